//! What lm-eval calls its files, and how Python writes numbers.

use chrono::{DateTime, Utc};
use serde_json::Value;

/// What lm-eval keeps out of the names of files and folders.
const NOT_IN_NAMES: &str = "\"<>:/|\\?*[]";

/// `sanitize_model_name`: each run of what no file may be called becomes `__`.
pub(super) fn sanitized(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    let mut inside = false;
    for c in name.chars() {
        let bad = NOT_IN_NAMES.contains(c);
        match (bad, inside) {
            (true, false) => out.push_str("__"),
            (true, true) => {}
            (false, _) => out.push(c),
        }
        inside = bad;
    }
    out
}

/// The time in the names of a set's files.
pub(super) fn date_id(time: DateTime<Utc>) -> String {
    time.format("%Y-%m-%dT%H-%M-%S%.6f").to_string()
}

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

/// `sanitize_list`: everything in a list becomes the text that Python's `str` makes of it, since readers of JSON Lines want
/// one type in a list.
pub(super) fn as_texts(value: &Value) -> Value {
    match value {
        Value::Array(list) => list.iter().map(as_texts).collect(),
        Value::String(text) => text.as_str().into(),
        Value::Bool(true) => "True".into(),
        Value::Bool(false) => "False".into(),
        Value::Null => "None".into(),
        Value::Number(number) => match number.as_f64().filter(|_| number.is_f64()) {
            Some(value) => float(value).into(),
            None => number.to_string().into(),
        },
        Value::Object(_) => value.to_string().into(),
    }
}

/// Python's `repr` of a finite float.
fn float(value: f64) -> String {
    let scientific = format!("{value:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if !(-4..16).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{mantissa}e{sign}{:02}", exponent.abs());
    }
    let plain = value.to_string();
    if plain.contains('.') { plain } else { plain + ".0" }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn floats_are_written_as_python_writes_them() {
        // repr() of Python 3.11.
        for (value, text) in [
            (-12.790411949157715, "-12.790411949157715"),
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.0, "1.0"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (-1.5e-7, "-1.5e-07"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.25e100, "1.25e+100"),
        ] {
            assert_eq!(float(value), text);
        }
        assert_eq!(
            as_texts(&json!([[[-1.5, true]], "a", 3])),
            json!([[["-1.5", "True"]], "a", "3"])
        );
    }

    #[test]
    fn names_are_lm_evals() {
        assert_eq!(sanitized("lab/run@step-1"), "lab__run@step-1");
        assert_eq!(sanitized("a:/\\b?"), "a__b__");
        let time = DateTime::from_timestamp_micros(1_795_716_411_452_267).unwrap_or_default();
        let date = date_id(time);
        assert_eq!(date, "2026-11-26T18-06-51.452267");
        assert_eq!(
            split_date(&format!("arc_easy_{date}")),
            ("arc_easy", Some(date.as_str()))
        );
        assert_eq!(split_date(&date), ("", Some(date.as_str())));
        assert_eq!(split_date("local_arc_easy"), ("local_arc_easy", None));
        assert_eq!(split_date("t_2026-11-26T18-06-51"), ("t", Some("2026-11-26T18-06-51")));
        assert_eq!(split_date("t_2026-11-26"), ("t_2026-11-26", None));
    }
}
