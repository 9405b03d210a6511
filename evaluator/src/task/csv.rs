//! CSV as the library that lm-eval reads data with (pandas) understands it: a column is of whole numbers, of numbers, of
//! truth values, or of texts, and what stands for nothing is null.

use anyhow::{Context, Result, ensure};
use serde_json::{Map, Number, Value};

use super::language::MAX_TEXT_BYTES;

/// What pandas takes for nothing.
const NOTHING: &[&str] = &[
    "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA",
    "NULL", "NaN", "None", "n/a", "nan", "null",
];

/// The most columns of a file.
const MAX_COLUMNS: usize = 1000;

/// The longest name of a column, which every row has again.
const MAX_NAME_BYTES: usize = 128;

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Whole,
    Number,
    Truth,
    Text,
}

/// Reads the rows of a file.
///
/// # Errors
/// Names the row that is wrong.
pub(super) fn rows(text: &str, split: &str, docs: &mut Vec<Value>) -> Result<()> {
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let names = reader
        .headers()
        .with_context(|| format!("the names of split `{split}`"))?;
    ensure!(
        names.len() <= MAX_COLUMNS,
        "a file of split `{split}` has {} columns, {MAX_COLUMNS} are the most",
        names.len()
    );
    ensure!(
        names.iter().all(|name| name.len() <= MAX_NAME_BYTES),
        "a column of split `{split}` has a name of more than {MAX_NAME_BYTES} bytes: has the file a first line of names?"
    );
    let name = |(i, name): (usize, &str)| match name {
        "" => format!("Unnamed: {i}"),
        name => name.to_owned(),
    };
    let names: Vec<String> = names.iter().enumerate().map(name).collect();
    let mut cells = Vec::new();
    for (i, row) in reader.records().enumerate() {
        let row = row.with_context(|| format!("row {} of split `{split}`", i + 1))?;
        ensure!(
            row.as_slice().len() <= MAX_TEXT_BYTES,
            "row {} of split `{split}` has more than {MAX_TEXT_BYTES} bytes",
            i + 1
        );
        cells.push(row);
    }
    let kinds: Vec<Kind> = (0..names.len()).map(|column| kind(&cells, column)).collect();
    for row in &cells {
        let mut doc = Map::new();
        for ((name, kind), cell) in names.iter().zip(&kinds).zip(row) {
            doc.insert(name.clone(), value(cell, *kind));
        }
        docs.push(doc.into());
    }
    Ok(())
}

/// The narrowest kind that holds a column.
fn kind(cells: &[csv::StringRecord], column: usize) -> Kind {
    let (mut kind, mut has_nothing) = (None, false);
    for cell in cells.iter().filter_map(|row| row.get(column)) {
        if NOTHING.contains(&cell) {
            has_nothing = true;
            continue;
        }
        let its = if cell.trim().parse::<i64>().is_ok() {
            Kind::Whole
        } else if number(cell).is_some() {
            Kind::Number
        } else if truth(cell).is_some() {
            Kind::Truth
        } else {
            Kind::Text
        };
        kind = Some(match (kind, its) {
            (None, its) => its,
            (Some(kind), its) if kind == its => its,
            (Some(Kind::Whole | Kind::Number), Kind::Whole | Kind::Number) => Kind::Number,
            _ => return Kind::Text,
        });
    }
    match kind {
        // Whole numbers with gaps become numbers; truth values with gaps stay what they are.
        Some(Kind::Whole) if has_nothing => Kind::Number,
        Some(kind) => kind,
        None => Kind::Text,
    }
}

fn number(cell: &str) -> Option<f64> {
    let looks_like_one = cell.trim().bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b));
    cell.trim().parse().ok().filter(|_| looks_like_one)
}

fn truth(cell: &str) -> Option<bool> {
    match cell {
        "True" | "TRUE" | "true" => Some(true),
        "False" | "FALSE" | "false" => Some(false),
        _ => None,
    }
}

fn value(cell: &str, kind: Kind) -> Value {
    if NOTHING.contains(&cell) {
        return Value::Null;
    }
    match kind {
        Kind::Whole => cell.trim().parse::<i64>().map_or(Value::Null, Value::from),
        Kind::Number => number(cell)
            .and_then(Number::from_f64)
            .map_or(Value::Null, Value::Number),
        Kind::Truth => truth(cell).map_or(Value::Null, Value::Bool),
        Kind::Text => cell.into(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_have_the_types_of_pandas() {
        let text = ",n,x,t,s,g\n0,1,1.5,True,\"a, \"\"b\"\"\nc\",3\n1,-2,2,False,7,\n2,3,,True,NA,4\n";
        let mut docs = Vec::new();
        rows(text, "test", &mut docs).unwrap();
        assert_eq!(
            docs,
            [
                json!({"Unnamed: 0": 0, "n": 1, "x": 1.5, "t": true, "s": "a, \"b\"\nc", "g": 3.0}),
                json!({"Unnamed: 0": 1, "n": -2, "x": 2.0, "t": false, "s": "7", "g": null}),
                json!({"Unnamed: 0": 2, "n": 3, "x": null, "t": true, "s": null, "g": 4.0}),
            ]
        );
        assert!(rows("a,b\n1\n", "test", &mut docs).is_err());
    }
}
