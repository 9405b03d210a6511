//! The reading side of sources: what lies at a place outside of the registry, and its bytes. What becomes of them is
//! somebody else's; nothing here knows of runs, steps or the database.
//!
//! **Invariant:** no address is connected to, and no folder is read, that the operator did not open ([`Reach`]); bytes are
//! given only of the object that was listed, never of what took its place; a secret goes to the source's own endpoint and
//! is in no message, log or `Debug`.

mod address;
mod bucket;
mod folder;
mod guard;
mod http;
mod hub;
pub(crate) mod plan;
mod remote;
mod wait;

use std::collections::HashMap;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use fineline_api::SourceLocation;
use fineline_format::{Digest, shown_within};

use bucket::Bucket;
use folder::Folder;
pub use guard::AllowedHost;
use hub::Hub;
pub(crate) use remote::RemoteFile;

/// The longest text of a place or its server that a message repeats.
const MAX_TOLD_CHARS: usize = 300;

/// The most objects that a source may have.
const MAX_OBJECTS: usize = 1_000_000;

/// What the operator opens to sources: folders by `--source-root`, hosts by `--source-allow`.
#[derive(Debug, Clone, Default)]
pub struct Reach {
    /// Folders of this machine below which sources may read.
    pub roots: Vec<PathBuf>,
    /// Hosts that sources may reach although their addresses are not public.
    pub allowed: Vec<AllowedHost>,
}

/// Why a place could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SourceError {
    /// It can't be read as it is given: another source, or other options of the server, are needed.
    #[error("{0}")]
    Refused(String),
    /// It is not there, or not any more, or the secret may not know of it.
    #[error("{0}")]
    NotFound(String),
    /// The secret does not open it.
    #[error("{0}")]
    Denied(String),
    /// The object is another than the one that was listed: list again.
    #[error("{0}")]
    Changed(String),
    /// It may be there later.
    #[error("{message}")]
    Unavailable {
        /// What happened.
        message: String,
        /// How long the server wants to be left alone, where it says so.
        retry_after: Option<Duration>,
    },
}

impl SourceError {
    /// Whether it may go well a moment later although nobody changes the source.
    pub(crate) fn is_passing(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::Changed(_))
    }

    /// How long the server wants to be left alone.
    pub(crate) fn asked(&self) -> Duration {
        match self {
            Self::Unavailable { retry_after, .. } => retry_after.unwrap_or_default(),
            _ => Duration::ZERO,
        }
    }

    fn unavailable(message: String) -> Self {
        Self::Unavailable {
            message,
            retry_after: None,
        }
    }
}

/// One checkpoint as it lies there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// What the step grammar reads: a branch, a folder, a repository without its namespace.
    pub(crate) name: String,
    /// Unique within the source: `org/repo@ckpt_000`, `step-1`.
    pub(crate) at: String,
    /// Another whenever anything of it is another: a commit, or a digest over all objects. Empty where it could not be
    /// found out, so that nobody knows it by that.
    pub(crate) version: String,
    /// By path; absent where the caller knows this version or does not want it, and where it could not be listed.
    pub(crate) objects: Option<Vec<Object>>,
    /// What is wrong with this one: it can't come in, the others can. Who would hear of it again does not name its version
    /// as known.
    pub(crate) problem: Option<SourceError>,
}

/// A file of a checkpoint as it lies there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Object {
    /// Relative to the place, `/` between its parts.
    pub(crate) path: String,
    /// By what it is read.
    pub(crate) key: String,
    /// How many bytes it has.
    pub(crate) size_bytes: u64,
    /// An ETag, a git object, or a file's time, size and inode.
    pub(crate) version: String,
    /// Its digest, where the place tells it.
    pub(crate) sha256: Option<Digest>,
}

/// What of a source its caller needs the files of.
#[derive(Clone, Copy)]
pub(crate) struct Wanted<'a> {
    /// Versions, by [`Place::at`], whose objects the caller has.
    pub(crate) known: &'a HashMap<String, String>,
    /// Which of all names it wants: to list the others costs requests.
    pub(crate) names: &'a (dyn Fn(&[&str]) -> Vec<bool> + Sync),
}

/// A source that is open for reading.
#[derive(Debug)]
pub(crate) struct Origin(Kind);

#[derive(Debug)]
enum Kind {
    Hub(Box<Hub>),
    Bucket(Bucket),
    Folder(Folder),
}

impl Origin {
    /// Opens what lies there; nothing is asked of it yet.
    ///
    /// # Errors
    /// [`SourceError::Refused`] when no source can be there, or none may.
    pub(crate) fn open(location: &SourceLocation, secret: Option<&str>, reach: &Reach) -> Result<Self, SourceError> {
        Ok(Self(match location {
            SourceLocation::Hub {
                endpoint,
                repositories,
                checkpoints,
            } => {
                let hub = Hub::open(endpoint.as_deref(), repositories, *checkpoints, secret, &reach.allowed)?;
                Kind::Hub(Box::new(hub))
            }
            SourceLocation::S3 {
                bucket,
                prefix,
                endpoint,
                region,
            } => {
                let at = bucket::Address {
                    bucket,
                    prefix,
                    endpoint: endpoint.as_deref(),
                    region: region.as_deref(),
                };
                Kind::Bucket(Bucket::open(&at, secret, &reach.allowed)?)
            }
            SourceLocation::Folder { path } => Kind::Folder(Folder::open(path, &reach.roots)?),
        }))
    }

    /// Every checkpoint that lies there, with the objects of those that are wanted and not known.
    ///
    /// # Errors
    /// [`SourceError`] when none can be listed. One that can't be is a [`Place::problem`].
    pub(crate) async fn list(&self, wanted: Wanted<'_>) -> Result<Vec<Place>, SourceError> {
        let mut places = match &self.0 {
            Kind::Hub(hub) => hub.list(wanted).await?,
            Kind::Bucket(bucket) => bucket.list().await?,
            Kind::Folder(folder) => folder.list().await?,
        };
        for place in &mut places {
            if wanted.known.get(&place.at) == Some(&place.version) {
                place.objects = None;
            }
        }
        Ok(places)
    }

    /// One further place of the same server: `NAMESPACE/NAME[@REVISION]` of a Hub, the beginning of keys of the bucket, a
    /// folder below the roots.
    ///
    /// # Errors
    /// [`SourceError::NotFound`] when nothing lies there, or any other.
    pub(crate) async fn place(&self, at: &str) -> Result<Place, SourceError> {
        match &self.0 {
            Kind::Hub(hub) => hub.place(at).await,
            Kind::Bucket(bucket) => bucket.place(at).await,
            Kind::Folder(folder) => folder.place(at).await,
        }
    }

    /// Exactly these bytes of the object as it was listed. What fails in passing is tried again within.
    ///
    /// # Errors
    /// [`SourceError::Changed`] when it is another by now, or any other.
    pub(crate) async fn read(&self, object: &Object, range: Range<u64>) -> Result<Bytes, SourceError> {
        if range.start > range.end || range.end > object.size_bytes {
            let (path, size) = (told(&object.path), object.size_bytes);
            return Err(SourceError::Changed(format!(
                "`{path}` ends at byte {size}, before what is asked of it: list the source again"
            )));
        }
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        match &self.0 {
            Kind::Hub(hub) => hub.read(object, range).await,
            Kind::Bucket(bucket) => bucket.read(object, range).await,
            Kind::Folder(folder) => folder.read(object, range).await,
        }
    }
}

/// Text of a place or its server as it may stand in a message.
fn told(text: &str) -> String {
    shown_within(MAX_TOLD_CHARS, text)
}

/// Whether a path can be one within a checkpoint, whatever it is written below.
fn is_plain_path(path: &str) -> bool {
    let is_part = |part: &str| !matches!(part, "" | "." | "..");
    path.len() <= 1024 && path.split('/').all(is_part) && !path.contains(|c: char| c.is_control() || c == '\\')
}

/// A version of all objects together. They are in the order of their paths.
fn version_of(objects: &[Object]) -> String {
    let lines = objects
        .iter()
        .map(|object| format!("{:?} {} {:?}\n", object.path, object.size_bytes, object.version));
    Digest::of(lines.collect::<String>().as_bytes()).to_hex()
}

#[cfg(test)]
mod tests;
