//! What lm-eval calls its files.

/// Splits what stands between `samples_` or `results_` and the ending into a name and the time behind it, if there is one.
pub(super) fn split_date(stem: &str) -> (&str, Option<&str>) {
    match stem.rsplit_once('_') {
        Some((name, date)) if is_date(date) => (name, Some(date)),
        None if is_date(stem) => ("", Some(stem)),
        _ => (stem, None),
    }
}

/// Whether it is `2026-01-31T23-59-59`, with or without a fraction.
fn is_date(text: &str) -> bool {
    let (date, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let pattern = "0000-00-00T00-00-00";
    date.len() == pattern.len()
        && date
            .bytes()
            .zip(pattern.bytes())
            .all(|(a, b)| if b == b'0' { a.is_ascii_digit() } else { a == b })
        && !fraction.is_empty()
        && fraction.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_and_its_time_are_told_apart() {
        let date = "2026-11-26T18-06-51.452267";
        assert_eq!(split_date(&format!("arc_easy_{date}")), ("arc_easy", Some(date)));
        assert_eq!(split_date(date), ("", Some(date)));
        assert_eq!(split_date("local_arc_easy"), ("local_arc_easy", None));
        assert_eq!(split_date("t_2026-11-26T18-06-51"), ("t", Some("2026-11-26T18-06-51")));
        assert_eq!(split_date("t_2026-11-26"), ("t_2026-11-26", None));
    }
}
