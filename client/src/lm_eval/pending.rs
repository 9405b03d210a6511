//! Putting the files of a set into a folder: each written beside its name, all of them named at the end.
//!
//! **Invariant:** nothing has its name before everything is written, and nothing that is there is replaced unless that is
//! asked.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use tempfile::{Builder, NamedTempFile};

use crate::error::{Error, Result};

/// Files that are written and have no name yet; they are gone when this is dropped.
#[derive(Debug)]
pub(super) struct Pending {
    folder: PathBuf,
    overwrite: bool,
    files: Vec<(NamedTempFile, PathBuf)>,
}

impl Pending {
    /// Makes the folder. Blocking, as all of this.
    pub(super) fn new(folder: &Path, overwrite: bool) -> Result<Self> {
        fs::create_dir_all(folder).map_err(Error::io("make folder", folder))?;
        Ok(Self {
            folder: folder.to_owned(),
            overwrite,
            files: Vec::new(),
        })
    }

    /// Writes a file.
    pub(super) fn add(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.folder.join(name);
        if !self.overwrite && path.exists() {
            return Err(in_the_way(&path));
        }
        let file = beside(&self.folder, bytes).map_err(Error::io("write", &path))?;
        self.files.push((file, path));
        Ok(())
    }

    /// Gives the files their names, in the order in which they were added.
    pub(super) fn commit(self) -> Result<Vec<PathBuf>> {
        let mut paths = Vec::with_capacity(self.files.len());
        for (file, path) in self.files {
            let named = match self.overwrite {
                true => file.persist(&path),
                false => file.persist_noclobber(&path),
            };
            named.map_err(|error| match error.error.kind() {
                io::ErrorKind::AlreadyExists => in_the_way(&path),
                _ => Error::io("write", &path)(error.error),
            })?;
            paths.push(path);
        }
        Ok(paths)
    }
}

fn in_the_way(path: &Path) -> Error {
    Error::Folder(format!(
        "`{}` is there: export with overwrite (`--overwrite`) to replace it",
        path.display()
    ))
}

fn beside(folder: &Path, bytes: &[u8]) -> io::Result<NamedTempFile> {
    let mut builder = Builder::new();
    builder.prefix(".fineline-").suffix(".tmp");
    // As any new file: what the user's mask leaves of this.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut file = builder.tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, overwrite: bool, text: &str) -> Result<Vec<PathBuf>> {
        let mut pending = Pending::new(folder, overwrite)?;
        pending.add("new", text.as_bytes())?;
        pending.add("r", text.as_bytes())?;
        pending.commit()
    }

    #[test]
    fn what_is_there_stays_unless_it_is_to_be_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("a/b");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("r"), "0").unwrap();
        let error = write(&folder, false, "1").unwrap_err().to_string();
        assert!(error.contains("/r`") && error.contains("--overwrite"), "{error}");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "nothing is left of a try");
        assert_eq!(
            write(&folder, true, "2").unwrap(),
            [folder.join("new"), folder.join("r")]
        );
        assert_eq!(fs::read_to_string(folder.join("r")).unwrap(), "2");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 2);
    }

    #[test]
    fn nothing_has_its_name_before_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let mut pending = Pending::new(dir.path(), false).unwrap();
        pending.add("s", b"1").unwrap();
        assert!(!dir.path().join("s").exists());
        // Somebody was faster.
        fs::write(dir.path().join("s"), "0").unwrap();
        assert!(pending.commit().is_err());
        assert_eq!(fs::read_to_string(dir.path().join("s")).unwrap(), "0");
    }
}
