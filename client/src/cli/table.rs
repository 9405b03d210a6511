//! Text in columns, and how values are written in them.

use std::fmt::Write as _;

use chrono::{DateTime, SecondsFormat, Utc};

/// What stands where there is no value.
pub(crate) const NONE: &str = "-";

/// A table whose columns are as wide as they need to be. A column is set flush right when its title begins with `>`.
#[derive(Debug)]
pub(crate) struct Table {
    titles: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new<T: Into<String>>(titles: impl IntoIterator<Item = T>) -> Self {
        Self {
            titles: titles.into_iter().map(Into::into).collect(),
            rows: Vec::new(),
        }
    }

    pub(crate) fn row<T: Into<String>>(&mut self, cells: impl IntoIterator<Item = T>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }

    /// The whole, with a line of titles; `empty` when there is no row.
    pub(crate) fn render(&self, empty: &str) -> String {
        if self.rows.is_empty() {
            return format!("{empty}\n");
        }
        let right: Vec<bool> = self.titles.iter().map(|title| title.starts_with('>')).collect();
        let titles: Vec<String> = self
            .titles
            .iter()
            .map(|title| title.trim_start_matches('>').to_owned())
            .collect();
        let width = |column: usize| {
            let cells = self.rows.iter().chain([&titles]).filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
        };
        let widths: Vec<usize> = (0..titles.len()).map(width).collect();
        let mut text = String::new();
        for row in [&titles].into_iter().chain(&self.rows) {
            let mut line = String::new();
            for ((cell, width), right) in row.iter().zip(&widths).zip(&right) {
                let pad = " ".repeat(width - cell.chars().count());
                let (before, after) = if *right { (pad.as_str(), "") } else { ("", pad.as_str()) };
                write!(line, "{before}{cell}{after}  ").expect("writing to a string can't fail");
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// Names and values, one pair a line.
pub(crate) fn facts(facts: &[(&str, String)]) -> String {
    let width = facts
        .iter()
        .map(|(name, _)| name.chars().count())
        .max()
        .unwrap_or_default();
    facts
        .iter()
        .map(|(name, value)| format!("{name:width$}  {value}\n"))
        .collect()
}

/// A value, or what stands for none.
pub(crate) fn or_none(value: Option<impl ToString>) -> String {
    value.map_or_else(|| NONE.to_owned(), |value| value.to_string())
}

/// A list in one cell.
pub(crate) fn list<T: ToString>(values: impl IntoIterator<Item = T>) -> String {
    let values: Vec<_> = values.into_iter().map(|value| value.to_string()).collect();
    if values.is_empty() {
        NONE.to_owned()
    } else {
        values.join(", ")
    }
}

pub(crate) fn bytes(n_bytes: u64) -> String {
    indicatif::BinaryBytes(n_bytes).to_string()
}

/// What is said behind a number of bytes of which so many went by way of the bucket.
pub(crate) fn directly(n_bytes: u64) -> String {
    if n_bytes == 0 {
        return String::new();
    }
    format!(" ({} by way of the bucket)", bytes(n_bytes))
}

pub(crate) fn time(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Secs, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_they_need_to_be() {
        let mut table = Table::new([">STEP", "TAGS", "STATE"]);
        table.row(["7", "größte", "ready"]);
        table.row(["1000", "", "failed"]);
        let text = "STEP  TAGS    STATE\n   7  größte  ready\n1000          failed\n";
        assert_eq!(table.render("none"), text);
        assert_eq!(Table::new(["A"]).render("nothing yet"), "nothing yet\n");
    }

    #[test]
    fn facts_are_aligned() {
        assert_eq!(
            facts(&[("a", "1".to_owned()), ("long", "2".to_owned())]),
            "a     1\nlong  2\n"
        );
        assert_eq!(
            (list::<&str>([]), list(["a", "b"])),
            ("-".to_owned(), "a, b".to_owned())
        );
    }
}
