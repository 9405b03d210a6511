//! The documents of a split: JSON objects, one a line or in an array, or the rows of a CSV file.
//!
//! **Invariant:** a document has at most [`MAX_TEXT_BYTES`] as written, and nothing here is more than a few times as large
//! as the file that it came from.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use fineline_format::task::{DataFormat, Function, Role};
use serde_json::Value;
use serde_json::value::RawValue;

use super::builtin;
use super::language::MAX_TEXT_BYTES;

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
