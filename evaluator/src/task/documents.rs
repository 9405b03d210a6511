//! The documents of a split: JSON objects, one a line or in an array, or the rows of a CSV file.
//!
//! **Invariant:** a document has at most [`MAX_TEXT_BYTES`] as written, and nothing here is more than a few times as large
//! as the file that it came from.

use std::collections::{BTreeMap, HashSet};

use anyhow::{Context, Result, bail, ensure};
use fineline_format::task::{DataFormat, Function, Role};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::builtin;
use super::language::MAX_TEXT_BYTES;

/// How many times the bytes of a split's files the fields may come to that documents lack and others have.
const MAX_FILLED: usize = 4;

/// What such a field counts beside its name.
const NULL_BYTES: usize = 8;

/// The documents of a split, prepared by the task's `process_docs`.
///
/// # Errors
/// Names the split and the document that is wrong.
pub(super) fn read(
    data: &BTreeMap<String, Vec<Vec<u8>>>,
    format: DataFormat,
    split: &str,
    process_docs: Option<&Function>,
) -> Result<Vec<Value>> {
    let files = data
        .get(split)
        .with_context(|| format!("there is no data for the split `{split}`"))?;
    ensure!(
        format != DataFormat::Parquet,
        "`dataset_path` is `parquet`, which is not read here: `fineline suite apply` turns it into JSON lines"
    );
    let mut docs = Vec::new();
    for file in files {
        let text = std::str::from_utf8(file).context("a data file is no UTF-8")?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        match format {
            DataFormat::Json if text.trim_start().starts_with('[') => array(text, split, &mut docs)?,
            DataFormat::Json | DataFormat::Parquet => lines(text, split, &mut docs)?,
            DataFormat::Csv => super::csv::rows(text, split, &mut docs)?,
        }
    }
    let n_bytes: usize = files.iter().map(Vec::len).sum();
    if fill(&mut docs, MAX_FILLED.saturating_mul(n_bytes)).is_none() {
        bail!("the documents of split `{split}` have too many different fields: give all of them the same");
    }
    let Some(function) = process_docs else {
        return Ok(docs);
    };
    let Some(first) = docs.first() else {
        return Ok(docs);
    };
    let builtin = builtin::resolve(function, Role::Docs, first).context("`process_docs`")?;
    let prepared = docs.into_iter().enumerate().map(|(i, doc)| {
        builtin::prepare(builtin, doc).with_context(|| format!("`process_docs` of document {i} of split `{split}`"))
    });
    prepared.collect()
}

/// As the library that lm-eval reads data with has columns: a field that some documents lack is null in those, and all have
/// theirs in the order in which they were met. `None` when there is more to fill than `max_bytes`.
fn fill(docs: &mut [Value], max_bytes: usize) -> Option<()> {
    let names = names(docs.iter());
    let mut left_bytes = max_bytes;
    for doc in docs.iter_mut().filter_map(Value::as_object_mut) {
        if doc.keys().eq(&names) {
            continue;
        }
        let mut filled = Map::new();
        for name in &names {
            let value = doc.remove(name);
            if value.is_none() {
                left_bytes = left_bytes.checked_sub(name.len() + NULL_BYTES)?;
            }
            filled.insert(name.clone(), value.unwrap_or_default());
        }
        *doc = filled;
    }
    for name in &names {
        order(docs.iter_mut().filter_map(|doc| doc.get_mut(name)).collect());
    }
    Some(())
}

/// What of one column holds fields of its own: objects that have the same are ordered alike, others stay as they are.
fn order(mut values: Vec<&mut Value>) {
    let items: Vec<&mut Value> = values
        .iter_mut()
        .filter_map(|value| value.as_array_mut())
        .flatten()
        .collect();
    if !items.is_empty() {
        order(items);
    }
    let names = names(values.iter().map(|value| &**value));
    if names.is_empty()
        || values
            .iter()
            .filter_map(|value| value.as_object())
            .any(|map| map.len() != names.len())
    {
        return;
    }
    for map in values.iter_mut().filter_map(|value| value.as_object_mut()) {
        *map = names
            .iter()
            .map(|name| (name.clone(), map.remove(name).unwrap_or_default()))
            .collect();
    }
    for name in &names {
        order(values.iter_mut().filter_map(|value| value.get_mut(name)).collect());
    }
}

/// The fields of all objects, in the order in which they were met.
fn names<'a>(values: impl Iterator<Item = &'a Value>) -> Vec<String> {
    let (mut names, mut seen) = (Vec::new(), HashSet::new());
    for name in values.filter_map(Value::as_object).flat_map(Map::keys) {
        if seen.insert(name.as_str()) {
            names.push(name.clone());
        }
    }
    names
}

fn lines(text: &str, split: &str, docs: &mut Vec<Value>) -> Result<()> {
    for (i, line) in text.split('\n').enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        docs.push(document(line, &format!("line {}", i + 1), split)?);
    }
    Ok(())
}

fn array(text: &str, split: &str, docs: &mut Vec<Value>) -> Result<()> {
    let items: Vec<&RawValue> =
        serde_json::from_str(text).with_context(|| format!("a file of split `{split}` is no array of documents"))?;
    for (i, item) in items.iter().enumerate() {
        docs.push(document(item.get(), &format!("item {}", i + 1), split)?);
    }
    Ok(())
}

fn document(text: &str, place: &str, split: &str) -> Result<Value> {
    let n = text.len();
    ensure!(
        n <= MAX_TEXT_BYTES,
        "{place} of split `{split}` has {n} bytes, {MAX_TEXT_BYTES} are the most"
    );
    let doc: Value = serde_json::from_str(text).with_context(|| format!("{place} of split `{split}`"))?;
    ensure!(doc.is_object(), "{place} of split `{split}` is no object");
    Ok(doc)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_lines(text: &str) -> Result<Vec<Value>> {
        let data = BTreeMap::from([("test".to_owned(), vec![text.as_bytes().to_vec()])]);
        read(&data, DataFormat::Json, "test", None)
    }

    #[test]
    fn what_some_documents_lack_is_null() {
        let text = r#"{"q":"a","s":{"v":"x"},"l":[{"i":1}],"t":{"a":1,"b":[{"c":2,"d":3}]}}
            {"e":2,"q":"b","s":{"u":1},"l":[]}
            {"q":"c","l":[{"j":[3]},null],"t":{"b":[{"d":4,"c":5}],"a":6}}"#;
        let docs = read_lines(text).unwrap();
        let as_read: Vec<String> = docs.iter().map(Value::to_string).collect();
        // As `datasets` 5.2 reads those lines.
        assert_eq!(
            as_read,
            [
                r#"{"q":"a","s":{"v":"x"},"l":[{"i":1}],"t":{"a":1,"b":[{"c":2,"d":3}]},"e":null}"#,
                r#"{"q":"b","s":{"u":1},"l":[],"t":null,"e":2}"#,
                r#"{"q":"c","s":null,"l":[{"j":[3]},null],"t":{"a":6,"b":[{"c":5,"d":4}]},"e":null}"#,
            ]
        );
    }

    #[test]
    fn documents_that_have_nothing_in_common_are_refused() {
        let lines: Vec<String> = (0..2000).map(|i| format!("{{\"field {i}\":1}}")).collect();
        let error = read_lines(&lines.join("\n")).unwrap_err().to_string();
        assert!(error.contains("too many different fields"), "{error}");
    }
}
