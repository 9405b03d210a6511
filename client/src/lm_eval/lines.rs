//! Reading JSON as Python writes it: a file of lines as a stream, and a whole file, both bounded.
//!
//! **Invariant:** memory is bounded by the longest line that is taken, whatever the file; what is refused is named by file
//! and line.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};

use fineline_format::python_json;
use serde_json::Value;

use super::compare::CompareError;

/// The most bytes of a line: prompts of the longest models have a few MiB.
const MAX_LINE_BYTES: u64 = 32 << 20;

/// The most bytes of a results file.
const MAX_FILE_BYTES: u64 = 256 << 20;

/// The lines of a file, each a JSON value; empty ones are passed over.
#[derive(Debug)]
pub(super) struct Lines {
    path: PathBuf,
    reader: BufReader<File>,
    n: u64,
    max_bytes: u64,
}

impl Lines {
    pub(super) fn open(path: &Path) -> Result<Self, CompareError> {
        Self::with_max(path, MAX_LINE_BYTES)
    }

    fn with_max(path: &Path, max_bytes: u64) -> Result<Self, CompareError> {
        let file = File::open(path).map_err(|error| CompareError::file(path, &error))?;
        Ok(Self {
            path: path.to_owned(),
            reader: BufReader::new(file),
            n: 0,
            max_bytes,
        })
    }

    /// What is wrong with the last line.
    pub(super) fn bad(&self, reason: impl Into<String>) -> CompareError {
        CompareError::Line {
            path: self.path.clone(),
            line: self.n,
            reason: reason.into(),
        }
    }

    /// The next line.
    pub(super) fn next_value(&mut self) -> Result<Option<Value>, CompareError> {
        loop {
            let mut line = Vec::new();
            let mut bounded = self.reader.by_ref().take(self.max_bytes + 1);
            let n_bytes = bounded
                .read_until(b'\n', &mut line)
                .map_err(|error| CompareError::file(&self.path, &error))?;
            if n_bytes == 0 {
                return Ok(None);
            }
            self.n += 1;
            if n_bytes as u64 > self.max_bytes {
                return Err(self.bad(format!("it is longer than {} bytes", self.max_bytes)));
            }
            if !line.trim_ascii().is_empty() {
                return python_json::parse(&line)
                    .map(Some)
                    .map_err(|error| self.bad(error.to_string()));
            }
        }
    }
}

/// A whole file.
pub(super) fn read_file(path: &Path) -> Result<Value, CompareError> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| CompareError::file(path, &error))?;
    file.take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| CompareError::file(path, &error))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(CompareError::input(
            path,
            format!("it is longer than {MAX_FILE_BYTES} bytes"),
        ));
    }
    python_json::parse(&bytes).map_err(|error| CompareError::input(path, error.to_string()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_line_that_is_too_long_or_no_json_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.jsonl");
        std::fs::write(&path, "{}\n\n[1]\n{\"a\"\n").unwrap();
        let mut lines = Lines::with_max(&path, 5).unwrap();
        assert_eq!(lines.next_value().unwrap(), Some(json!({})));
        assert_eq!(lines.next_value().unwrap(), Some(json!([1])));
        let error = lines.next_value().unwrap_err().to_string();
        assert!(error.contains("s.jsonl` line 4"), "{error}");
        std::fs::write(&path, "{}\n[1,2,3,4]\n").unwrap();
        let mut lines = Lines::with_max(&path, 5).unwrap();
        lines.next_value().unwrap();
        let error = lines.next_value().unwrap_err().to_string();
        assert!(error.contains("line 2") && error.contains("longer than 5"), "{error}");
    }
}
