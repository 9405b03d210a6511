//! A split's files as one file of JSON lines, or of CSV.

use std::collections::HashMap;
use std::path::Path;

use bytes::Bytes;
use fineline_api::suite::MAX_SUITE_BYTES;
use fineline_format::task::DataFormat;
use serde_json::Value;

use super::fetch::too_large;
use crate::error::{Error, Result};
use crate::parquet_file::json_lines;

/// Where a text is cut: at the first end of a line behind so many bytes of a document.
const DOCUMENT_BYTES: usize = 16 << 10;

/// The longest line of a text, which is never cut.
const MAX_LINE_BYTES: usize = 1 << 20;

/// The files of a split as one, by the endings of their names; their bytes are kept where nothing has to be done.
///
/// # Errors
/// [`Error::Folder`] that names the file and what is wrong with it.
pub(super) fn converted(files: Vec<(String, Bytes)>) -> Result<(DataFormat, Bytes)> {
    let one = files.len() == 1;
    let mut lines = Vec::new();
    for (name, bytes) in files {
        let path = Path::new(&name);
        let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        match ending {
            "parquet" => lines.append(&mut json_lines(path, bytes)?),
            "txt" => lines.append(&mut documents(&name, &bytes)?),
            "csv" if one => return Ok((DataFormat::Csv, bytes)),
            "jsonl" | "json" if one => return Ok((DataFormat::Json, bytes)),
            _ => {
                return Err(Error::Folder(format!(
                    "data file `{name}` must end with .jsonl, .json, .csv or .parquet, or .txt for `perplexity`"
                )));
            }
        }
        if lines.len() as u64 > MAX_SUITE_BYTES {
            return Err(Error::Folder(too_large(&name)));
        }
    }
    Ok((DataFormat::Json, lines.into()))
}

/// The documents of a text as JSON lines with the field `text`. One after the other they are the text: each ends with the
/// line in which it reaches 16,384 bytes, the last one with the text.
fn documents(name: &str, bytes: &[u8]) -> Result<Vec<u8>> {
    let refused = |what: &str| Error::Folder(format!("text `{name}` {what}"));
    let text = std::str::from_utf8(bytes).map_err(|_| refused("is no UTF-8: convert it first"))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut lines = Vec::new();
    let mut push = |document: &str| {
        let line = serde_json::json!({ "text": document });
        lines.extend_from_slice(line.to_string().as_bytes());
        lines.push(b'\n');
    };
    let (mut begin, mut end) = (0, 0);
    for (i, line) in text.split_inclusive('\n').enumerate() {
        if line.len() > MAX_LINE_BYTES {
            let n = line.len();
            return Err(refused(&format!(
                "has {n} bytes in line {}, {MAX_LINE_BYTES} are the most: break it, or give its documents as JSON lines",
                i + 1
            )));
        }
        end += line.len();
        if end - begin >= DOCUMENT_BYTES {
            push(&text[begin..end]);
            begin = end;
        }
    }
    if begin < end {
        push(&text[begin..end]);
    }
    if lines.is_empty() {
        return Err(refused("is empty"));
    }
    Ok(lines)
}

/// The lines of a file by what one of their fields says; each line as it is.
///
/// # Errors
/// [`Error::Folder`] that names the file and the line.
pub(super) fn by_field(name: &str, bytes: &[u8], field: &str) -> Result<HashMap<String, Vec<u8>>> {
    let mut parts: HashMap<String, Vec<u8>> = HashMap::new();
    for (i, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let document: Result<Value, _> = serde_json::from_slice(line);
        let value = document
            .as_ref()
            .ok()
            .and_then(|document| document.get(field)?.as_str());
        let value = value.ok_or_else(|| {
            Error::Folder(format!(
                "line {} of `{name}` is no JSON object with a text `{field}`",
                i + 1
            ))
        })?;
        let part = parts.entry(value.to_owned()).or_default();
        part.extend_from_slice(line);
        part.push(b'\n');
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(lines: &[u8]) -> Vec<String> {
        let lines = std::str::from_utf8(lines).unwrap().lines();
        lines
            .map(|line| {
                serde_json::from_str::<Value>(line).unwrap()["text"]
                    .as_str()
                    .unwrap()
                    .to_owned()
            })
            .collect()
    }

    #[test]
    fn a_text_is_cut_at_the_ends_of_lines_and_nothing_is_lost() {
        let text: String = (0..4000).map(|i| format!("line {i} \"é\"\r\n")).collect();
        let (format, lines) = converted(vec![("a.txt".to_owned(), format!("\u{feff}{text}rest").into())]).unwrap();
        let documents = texts(&lines);
        assert_eq!((format, documents.concat()), (DataFormat::Json, format!("{text}rest")));
        assert!(documents.len() > 3);
        let (last, others) = documents.split_last().unwrap();
        assert!(last.ends_with("rest"));
        for document in others {
            assert!(document.ends_with('\n') && (16_384..16_500).contains(&document.len()));
        }
        for (bad, expected) in [
            (vec![0xff], "no UTF-8"),
            (Vec::new(), "is empty"),
            (vec![b'a'; (1 << 20) + 1], "line 1"),
        ] {
            let error = converted(vec![("a.txt".to_owned(), bad.into())])
                .unwrap_err()
                .to_string();
            assert!(error.contains(expected) && error.contains("`a.txt`"), "{error}");
        }
    }

    #[test]
    fn files_are_kept_and_shards_become_one() {
        let kept = converted(vec![("a.jsonl".to_owned(), "{\"a\": 1}\n".into())]).unwrap();
        assert_eq!(kept, (DataFormat::Json, Bytes::from("{\"a\": 1}\n")));
        let shard = || {
            (
                "a/0.parquet".to_owned(),
                Bytes::from(crate::parquet_file::tests::file()),
            )
        };
        let once = converted(vec![shard()]).unwrap().1;
        assert_eq!(converted(vec![shard(), shard()]).unwrap().1.len(), 2 * once.len());
        assert!(converted(vec![("a.arrow".to_owned(), Bytes::new())]).is_err());
    }

    #[test]
    fn lines_are_told_apart_by_a_field() {
        let parts = by_field(
            "f",
            b"{\"s\":\"x\", \"i\":1}\n\n{\"s\":\"y\"}\n{\"s\":\"x\",\"i\":2}",
            "s",
        )
        .unwrap();
        assert_eq!(parts["x"], b"{\"s\":\"x\", \"i\":1}\n{\"s\":\"x\",\"i\":2}\n");
        let error = by_field("f", b"{\"s\":\"x\"}\n{\"s\":1}\n", "s")
            .unwrap_err()
            .to_string();
        assert!(error.contains("line 2 of `f`"), "{error}");
    }
}
