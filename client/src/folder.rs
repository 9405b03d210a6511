//! A checkpoint's folder on disk: which of its files are pushed, and random access to them.
//!
//! **Invariant:** nothing outside of the folder is ever read through it.

use std::fs::{self, File, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use fineline_format::ReadAt;
use fineline_format::manifest::MAX_FILES;

use crate::error::{Error, Result};

/// The end of the name of a file that is being pulled.
pub(crate) const PARTIAL_SUFFIX: &str = ".fineline-partial";

/// Ends of names that tell of a file that is still being written.
const UNFINISHED: [&str; 3] = [".tmp", ".partial", PARTIAL_SUFFIX];

/// What a folder holds.
#[derive(Debug)]
pub(crate) struct Folder {
    /// What is pushed, by path.
    pub(crate) files: Vec<LocalFile>,
    /// What is left out, in sentences.
    pub(crate) left_out: Vec<String>,
}

/// A file of a folder.
#[derive(Debug, Clone)]
pub(crate) struct LocalFile {
    /// Its path in the checkpoint, with `/`.
    pub(crate) path: String,
    pub(crate) location: PathBuf,
    pub(crate) size_bytes: u64,
    modified: Option<SystemTime>,
}

/// Lists a folder and its sub-folders. Hidden and unfinished files are left out, links that lead out are refused.
pub(crate) fn walk(dir: &Path) -> Result<Folder> {
    let root = fs::canonicalize(dir).map_err(Error::io("read folder", dir))?;
    let mut folder = Folder {
        files: Vec::new(),
        left_out: Vec::new(),
    };
    let mut pending = vec![(root.clone(), String::new())];
    while let Some((location, prefix)) = pending.pop() {
        for entry in fs::read_dir(&location).map_err(Error::io("read folder", &location))? {
            let entry = entry.map_err(Error::io("read folder", &location))?;
            let found = entry.path();
            let name = entry.file_name().into_string().map_err(|name| {
                Error::Folder(format!(
                    "the name of `{}` is no UTF-8: rename it",
                    location.join(name).display()
                ))
            })?;
            let path = format!("{prefix}{name}");
            if let Some(why) = reason_to_leave_out(&name) {
                folder.left_out.push(format!("`{path}` is left out: {why}"));
                continue;
            }
            let metadata = resolve(&root, &found)?;
            if metadata.is_dir() {
                pending.push((found, format!("{path}/")));
            } else {
                folder.files.push(LocalFile::new(path, found, &metadata));
            }
            if folder.files.len() > MAX_FILES {
                let shown = dir.display();
                return Err(Error::Folder(format!(
                    "`{shown}` has more than {MAX_FILES} files: name a checkpoint's own folder"
                )));
            }
        }
    }
    if folder.files.is_empty() {
        return Err(Error::Folder(format!(
            "`{}` has no files to push: name a checkpoint's folder",
            dir.display()
        )));
    }
    folder.files.sort_by(|a, b| a.path.cmp(&b.path));
    folder.left_out.sort();
    Ok(folder)
}

fn reason_to_leave_out(name: &str) -> Option<&'static str> {
    // `.metadata` says where the tensors of a torch.distributed.checkpoint lie: nothing can be loaded without it.
    if name.starts_with('.') && name != ".metadata" {
        Some("it is hidden")
    } else if UNFINISHED.iter().any(|end| name.ends_with(end)) {
        Some("its name says that it is unfinished")
    } else {
        None
    }
}

/// What `found` is, after following a link to a file inside of `root`.
fn resolve(root: &Path, found: &Path) -> Result<Metadata> {
    let refused = |why: &str| Err(Error::Folder(format!("`{}` is refused: {why}", found.display())));
    let metadata = fs::symlink_metadata(found).map_err(Error::io("read", found))?;
    if !metadata.is_symlink() {
        return match metadata.is_file() || metadata.is_dir() {
            true => Ok(metadata),
            false => refused("it is neither a file nor a folder: take it away"),
        };
    }
    let target = fs::canonicalize(found).map_err(Error::io("follow link", found))?;
    if !target.starts_with(root) {
        return refused("it is a link that leads out of the folder: copy the folder with `cp -rL` and push the copy");
    }
    let metadata = fs::metadata(&target).map_err(Error::io("read", found))?;
    match metadata.is_file() {
        true => Ok(metadata),
        false => refused("it is a link to a folder: put the files themselves there"),
    }
}

impl LocalFile {
    fn new(path: String, location: PathBuf, metadata: &Metadata) -> Self {
        Self {
            path,
            location,
            size_bytes: metadata.len(),
            modified: metadata.modified().ok(),
        }
    }

    /// Opens it, when it is still as it was found.
    pub(crate) fn open(&self) -> Result<OpenFile> {
        let file = File::open(&self.location).map_err(Error::io("open", &self.location))?;
        let open = OpenFile {
            file,
            size_bytes: self.size_bytes,
        };
        self.check(&open)?;
        Ok(open)
    }

    /// Finds out whether it changed since it was found, as far as size and time tell.
    pub(crate) fn check(&self, open: &OpenFile) -> Result<()> {
        let metadata = open.file.metadata().map_err(Error::io("read", &self.location))?;
        if metadata.len() == self.size_bytes && metadata.modified().ok() == self.modified {
            Ok(())
        } else {
            Err(Error::Changed(self.location.clone()))
        }
    }

    /// The error of reading it: one that ends early was cut while it was being read.
    pub(crate) fn read_error(&self, error: io::Error) -> Error {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Error::Changed(self.location.clone()),
            _ => Error::io("read", &self.location)(error),
        }
    }
}

/// An open file, read at any offset from any thread.
#[derive(Debug)]
pub(crate) struct OpenFile {
    pub(crate) file: File,
    pub(crate) size_bytes: u64,
}

impl ReadAt for OpenFile {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    #[cfg(unix)]
    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(&self.file, buf, offset)
    }

    #[cfg(windows)]
    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let mut done = 0;
        while done < buf.len() {
            let at = offset + done as u64;
            match std::os::windows::fs::FileExt::seek_read(&self.file, &mut buf[done..], at)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => done += n,
            }
        }
        Ok(())
    }
}

/// Writes all of `bytes` at `offset`, from any thread.
#[cfg(unix)]
pub(crate) fn write_all_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, offset)
}

/// Writes all of `bytes` at `offset`, from any thread.
#[cfg(windows)]
pub(crate) fn write_all_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    let mut done = 0;
    while done < bytes.len() {
        done += std::os::windows::fs::FileExt::seek_write(file, &bytes[done..], offset + done as u64)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(files: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for file in files {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, file).unwrap();
        }
        dir
    }

    fn paths(folder: &Folder) -> Vec<&str> {
        folder.files.iter().map(|file| file.path.as_str()).collect()
    }

    #[test]
    fn files_come_by_path_and_what_is_left_out_is_told() {
        let dir = given(&[
            "z",
            "sub/b",
            "a",
            ".git/config",
            "x.tmp",
            "m.safetensors.fineline-partial",
        ]);
        let folder = walk(dir.path()).unwrap();
        assert_eq!(paths(&folder), ["a", "sub/b", "z"]);
        assert_eq!(folder.left_out.len(), 3, "{:?}", folder.left_out);
        assert!(folder.left_out[0].contains("`.git`"));
    }

    #[test]
    fn an_empty_folder_is_refused() {
        let error = walk(given(&[".hidden"]).path()).unwrap_err().to_string();
        assert!(error.contains("has no files"), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn a_link_is_followed_only_inside() {
        let outside = given(&["secret"]);
        let dir = given(&["sub/a"]);
        std::os::unix::fs::symlink(dir.path().join("sub/a"), dir.path().join("inside")).unwrap();
        assert_eq!(paths(&walk(dir.path()).unwrap()), ["inside", "sub/a"]);
        std::os::unix::fs::symlink(outside.path().join("secret"), dir.path().join("out")).unwrap();
        assert!(walk(dir.path()).unwrap_err().to_string().contains("leads out"));
    }

    #[test]
    fn a_file_that_changed_since_it_was_found_is_told() {
        let dir = given(&["a"]);
        let folder = walk(dir.path()).unwrap();
        fs::write(dir.path().join("a"), "longer than before").unwrap();
        assert!(matches!(folder.files[0].open(), Err(Error::Changed(_))));
    }
}
