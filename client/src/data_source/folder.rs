//! Data in a folder.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::blocking::blocking;
use crate::error::{Error, Result};

/// The most entries that are looked at below one folder of a task.
const MAX_ENTRIES: usize = 20_000;

/// How deep a split's files lie: `CONFIG/SPLIT/FILE` below a task's folder, and that of a subject below mmlu's.
const MAX_DEPTH: usize = 4;

/// The files below the folders of `roots` in `folder`, by their paths in it; one that is not there has none.
///
/// # Errors
/// [`Error::Io`] when a folder can't be read, [`Error::Folder`] when it has too many files.
pub(super) async fn list(folder: &Path, roots: Vec<String>) -> Result<BTreeSet<String>> {
    let folder = folder.to_owned();
    blocking(move || {
        // What is no folder at all is a typing error, and is told as one.
        std::fs::read_dir(&folder).map_err(Error::io("read", &folder))?;
        let mut paths = BTreeSet::new();
        for root in roots {
            walk(&folder, &root, 0, &mut paths)?;
        }
        Ok(paths)
    })
    .await
}

fn walk(folder: &Path, within: &str, depth: usize, paths: &mut BTreeSet<String>) -> Result<()> {
    let here = folder.join(within);
    if depth > MAX_DEPTH || !here.is_dir() {
        return Ok(());
    }
    for entry in std::fs::read_dir(&here).map_err(Error::io("read", &here))? {
        let entry = entry.map_err(Error::io("read", &here))?;
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        let path = format!("{within}/{name}");
        // A link is followed: a folder of data is often made of them.
        if entry.path().is_dir() {
            walk(folder, &path, depth + 1, paths)?;
        } else {
            paths.insert(path);
        }
        if paths.len() > MAX_ENTRIES {
            let here = here.display();
            return Err(Error::Folder(format!("`{here}` holds more than {MAX_ENTRIES} files")));
        }
    }
    Ok(())
}

/// A file, which has at most `max_bytes`.
///
/// # Errors
/// [`Error::Io`] when it can't be read, [`Error::Folder`] when it is larger.
pub(super) async fn read(path: PathBuf, max_bytes: u64) -> Result<Bytes> {
    blocking(move || {
        let size_bytes = std::fs::metadata(&path).map_err(Error::io("read", &path))?.len();
        if size_bytes > max_bytes {
            return Err(Error::Folder(super::fetch::too_large(&path.display().to_string())));
        }
        Ok(std::fs::read(&path).map_err(Error::io("read", &path))?.into())
    })
    .await
}
