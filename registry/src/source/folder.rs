//! A folder of the server's machine. Each folder right below it is a checkpoint, and so is each file.
//!
//! **Invariant:** nothing is read but plain files below a root that the operator named. A link is followed only to what lies
//! below one; a file is opened part by part from its root without following any, so that no link that is put there in
//! between leads out.

use std::fs::{self, File, Metadata};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Component, Path, PathBuf};

use bytes::Bytes;
use rustix::fs::{Mode, OFlags, open, openat};

use super::{MAX_OBJECTS, Object, Place, SourceError, is_plain_path, told, version_of};

/// How deep folders may lie in each other.
const MAX_DEPTH: usize = 32;

/// A folder below one of the roots.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    roots: Roots,
}

#[derive(Debug, Clone)]
struct Roots(Vec<PathBuf>);

impl Folder {
    pub(super) fn open(path: &str, roots: &[PathBuf]) -> Result<Self, SourceError> {
        if roots.is_empty() {
            let message = "the server opens none of its folders to sources: start it with --source-root FOLDER";
            return Err(SourceError::Refused(message.to_owned()));
        }
        let (path, roots) = (plain(path)?, Roots(roots.to_vec()));
        // One that is not there yet may come.
        match roots.real().resolve(&path) {
            Err(error @ SourceError::Refused(_)) => Err(error),
            _ => Ok(Self { path, roots }),
        }
    }

    pub(super) async fn list(&self) -> Result<Vec<Place>, SourceError> {
        let (path, roots) = (self.path.clone(), self.roots.clone());
        blocking(move || {
            let roots = roots.real();
            let real = roots.resolve(&path)?;
            let mut walk = Walk::new(&roots);
            let mut places = Vec::new();
            for (name, is_text) in children(&real).map_err(|error| failed(&path, &error))? {
                walk.begin();
                if is_text {
                    walk.visit(&real.join(&name), &name, 0)?;
                } else {
                    walk.problem(format!("the name of `{}` is not of UTF-8", told(&name)));
                }
                places.push(walk.place(&name, &name));
            }
            Ok(places)
        })
        .await
    }

    pub(super) async fn place(&self, at: &str) -> Result<Place, SourceError> {
        let (path, roots, at) = (plain(at)?, self.roots.clone(), at.to_owned());
        blocking(move || {
            let roots = roots.real();
            let real = roots.resolve(&path)?;
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let mut walk = Walk::new(&roots);
            walk.visit(&real, &name, 0)?;
            Ok(walk.place(&name, &at))
        })
        .await
    }

    pub(super) async fn read(&self, object: &Object, range: Range<u64>) -> Result<Bytes, SourceError> {
        let (object, roots) = (object.clone(), self.roots.clone());
        blocking(move || {
            let path = Path::new(&object.key);
            let changed = || {
                let path = told(&object.key);
                SourceError::Changed(format!(
                    "`{path}` is another than the one that was listed: list the source again"
                ))
            };
            let told = |error: io::Error| match error.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
                // A link or something else where a folder or a file was.
                Some(rustix::io::Errno::LOOP | rustix::io::Errno::NOTDIR) => changed(),
                _ if error.kind() == io::ErrorKind::UnexpectedEof => changed(),
                _ => failed(path, &error),
            };
            let file = roots.real().open(path)?.map_err(told)?;
            let is_as_listed = || {
                let meta = file.metadata()?;
                Ok(meta.is_file() && meta.len() == object.size_bytes && version(&meta) == object.version)
            };
            if !is_as_listed().map_err(told)? {
                return Err(changed());
            }
            let size = usize::try_from(range.end - range.start).map_err(|_| changed())?;
            let mut bytes = vec![0; size];
            file.read_exact_at(&mut bytes, range.start).map_err(told)?;
            // Whoever writes to it now changed its time before the bytes were read, or does so after.
            if !is_as_listed().map_err(told)? {
                return Err(changed());
            }
            Ok(bytes.into())
        })
        .await
    }
}

impl Roots {
    /// Where they are. One that is not there holds nothing.
    fn real(&self) -> Self {
        Self(self.0.iter().filter_map(|root| fs::canonicalize(root).ok()).collect())
    }

    fn holds(&self, real: &Path) -> bool {
        self.0.iter().any(|root| real.starts_with(root))
    }

    /// Where a path leads, when that lies below a root. Of what lies elsewhere nothing is told, not whether it is there.
    fn resolve(&self, path: &Path) -> Result<PathBuf, SourceError> {
        let shown = told(&path.to_string_lossy());
        let outside = || {
            SourceError::Refused(format!(
                "`{shown}` is not below a folder that the server opens to sources: start it with --source-root FOLDER"
            ))
        };
        let error = match fs::canonicalize(path) {
            Ok(real) if self.holds(&real) => return Ok(real),
            Ok(_) => return Err(outside()),
            Err(error) => error,
        };
        let mut missing = path;
        while let Some(parent) = missing.parent() {
            match fs::canonicalize(parent) {
                // A link that leads nowhere could have led anywhere.
                Ok(real) if self.holds(&real) && !missing.is_symlink() => return Err(failed(path, &error)),
                Ok(_) => break,
                Err(_) => missing = parent,
            }
        }
        Err(outside())
    }

    /// Opens a file by its real path, following no link below its root.
    fn open(&self, real: &Path) -> Result<io::Result<File>, SourceError> {
        let below = self
            .0
            .iter()
            .find_map(|root| Some((root, real.strip_prefix(root).ok()?)));
        let is_down = |below: &Path| below.components().all(|part| matches!(part, Component::Normal(_)));
        let Some((root, below)) = below.filter(|(_, below)| is_down(below)) else {
            let shown = told(&real.to_string_lossy());
            return Err(SourceError::Refused(format!(
                "`{shown}` is no longer below a folder that the server opens to sources: look at --source-root"
            )));
        };
        Ok(open_below(root, below))
    }
}

fn open_below(root: &Path, below: &Path) -> io::Result<File> {
    let folder = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut at = open(root, folder, Mode::empty())?;
    let mut parts = below.components().peekable();
    while let Some(part) = parts.next() {
        let kind = match parts.peek() {
            Some(_) => folder,
            // A pipe's opening does not wait for its writer.
            None => OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC,
        };
        at = openat(&at, part.as_os_str(), kind | OFlags::NOFOLLOW, Mode::empty())?;
    }
    Ok(at.into())
}

/// Lists one checkpoint after the other.
struct Walk<'a> {
    roots: &'a Roots,
    n_left: usize,
    /// The folders in which it stands, to see a link that leads back.
    within: Vec<PathBuf>,
    objects: Vec<Object>,
    problem: Option<SourceError>,
}

impl<'a> Walk<'a> {
    fn new(roots: &'a Roots) -> Self {
        Self {
            roots,
            n_left: MAX_OBJECTS,
            within: Vec::new(),
            objects: Vec::new(),
            problem: None,
        }
    }

    fn begin(&mut self) {
        self.objects.clear();
        self.problem = None;
    }

    fn problem(&mut self, what: String) {
        self.problem.get_or_insert(SourceError::Refused(what));
    }

    /// What lies at `real` and is called `path` in the checkpoint; at depth 0 it is the checkpoint itself.
    fn visit(&mut self, real: &Path, path: &str, depth: usize) -> Result<(), SourceError> {
        self.n_left = self.n_left.checked_sub(1).ok_or_else(|| {
            SourceError::Refused(format!(
                "the source has more than {MAX_OBJECTS} files: give a folder of fewer"
            ))
        })?;
        let shown = told(path);
        match self.find(real) {
            Err(error) => self.problem(failed(Path::new(path), &error).to_string()),
            Ok(None) => self.problem(format!(
                "`{shown}` is a link to nothing, or to what is not below a folder that the server opens to sources"
            )),
            Ok(Some((meta, real))) if meta.is_dir() => return self.enter(&real, path, depth),
            Ok(Some((meta, real))) if meta.is_file() => match real.to_str() {
                Some(key) if is_plain_path(path) => self.objects.push(Object {
                    path: path.to_owned(),
                    key: key.to_owned(),
                    size_bytes: meta.len(),
                    version: version(&meta),
                    sha256: None,
                }),
                _ => self.problem(format!("`{shown}` can't be the path of a file")),
            },
            Ok(Some(_)) => self.problem(format!("`{shown}` is neither a file nor a folder: take it away")),
        }
        Ok(())
    }

    /// What lies there, at the end of a link where it may be followed, and where that is.
    fn find(&self, real: &Path) -> io::Result<Option<(Metadata, PathBuf)>> {
        let meta = fs::symlink_metadata(real)?;
        if !meta.is_symlink() {
            return Ok(Some((meta, real.to_owned())));
        }
        let real = fs::canonicalize(real).ok().filter(|real| self.roots.holds(real));
        real.map(|real| Ok((fs::metadata(&real)?, real))).transpose()
    }

    fn enter(&mut self, real: &Path, path: &str, depth: usize) -> Result<(), SourceError> {
        if depth == MAX_DEPTH || self.within.iter().any(|folder| folder == real) {
            self.problem(format!("`{}` leads back, or too deep: take it away", told(path)));
            return Ok(());
        }
        let names = match children(real) {
            Ok(names) => names,
            Err(error) => {
                self.problem(failed(Path::new(path), &error).to_string());
                return Ok(());
            }
        };
        self.within.push(real.to_owned());
        for (name, is_text) in names {
            // The checkpoint's own folder is no part of its paths.
            let path = if depth == 0 {
                name.clone()
            } else {
                format!("{path}/{name}")
            };
            if is_text {
                self.visit(&real.join(&name), &path, depth + 1)?;
            } else {
                self.problem(format!("the name of `{}` is not of UTF-8", told(&path)));
            }
        }
        self.within.pop();
        Ok(())
    }

    fn place(&mut self, name: &str, at: &str) -> Place {
        let mut objects = std::mem::take(&mut self.objects);
        objects.sort_by(|a, b| a.path.cmp(&b.path));
        Place {
            name: name.to_owned(),
            at: at.to_owned(),
            version: version_of(&objects),
            objects: Some(objects),
            problem: self.problem.take(),
        }
    }
}

/// The names in a folder, and whether they are text; hidden ones are left out.
fn children(folder: &Path) -> io::Result<Vec<(String, bool)>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let shown = name.to_string_lossy();
        if !shown.starts_with('.') {
            names.push((shown.clone().into_owned(), name.to_str().is_some()));
        }
        if names.len() > MAX_OBJECTS {
            break;
        }
    }
    names.sort();
    Ok(names)
}

/// An absolute path that goes down only.
fn plain(path: &str) -> Result<PathBuf, SourceError> {
    let is_down = Path::new(path).components().all(|part| part != Component::ParentDir);
    if Path::new(path).is_absolute() && is_down && !path.contains('\0') {
        return Ok(PathBuf::from(path));
    }
    let path = told(path);
    Err(SourceError::Refused(format!(
        "`{path}` is no absolute path without `..`: write it so"
    )))
}

fn version(meta: &Metadata) -> String {
    let ns = i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec());
    format!("{ns}-{}-{}", meta.len(), meta.ino())
}

fn failed(path: &Path, error: &io::Error) -> SourceError {
    let path = told(&path.to_string_lossy());
    match error.kind() {
        io::ErrorKind::NotFound => SourceError::NotFound(format!("`{path}` is not there")),
        io::ErrorKind::NotADirectory => {
            SourceError::Refused(format!("`{path}` is no folder: give the one that it is in"))
        }
        io::ErrorKind::PermissionDenied => SourceError::Denied(format!(
            "`{path}` may not be read by the server's user: open it to that"
        )),
        _ => SourceError::unavailable(format!("`{path}` can't be read: {error}")),
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SourceError> + Send + 'static,
) -> Result<T, SourceError> {
    let ended = tokio::task::spawn_blocking(work).await;
    ended.unwrap_or_else(|error| Err(SourceError::unavailable(format!("a folder can't be read: {error}"))))
}
