//! Objects: frames over `object_store`, in a folder or in a bucket. Content is immutable, so putting the same object twice
//! is harmless; nothing here depends on conditional puts, and nothing but places of backups (`named`) on listing.

pub(crate) mod key;
mod named;
mod room;
mod s3;

use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fineline_format::Buffers;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::signer::{Method, Signer};
use object_store::{GetResultPayload, ObjectStore, ObjectStoreExt};
use uuid::Uuid;

/// Chunks and frames of the largest size whose memory is kept for the next ones, those in use among them.
const N_BUFFERS: usize = 6;

/// Where frames lie.
#[derive(Clone)]
pub(crate) struct Store {
    objects: Arc<dyn ObjectStore>,
    /// Signs URLs by which clients reach single objects, where they may.
    signer: Option<Arc<dyn Signer>>,
    /// The folder, where it is one.
    dir: Option<PathBuf>,
    /// What frames are read into.
    buffers: Buffers,
    /// What all keys of a bucket begin with.
    prefix: Path,
    /// What messages call it.
    shown: String,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("shown", &self.shown)
            .finish_non_exhaustive()
    }
}

/// How a bucket is reached. A folder needs none of it.
#[derive(Debug, Clone, Default)]
pub struct StoreOptions {
    /// The environment of S3.
    pub aws: AwsVariables,
    /// Whether clients get no URLs and send and receive everything through the registry.
    pub direct_off: bool,
    /// The endpoint by which clients reach the bucket, where it is another than the registry's.
    pub public_url: Option<String>,
}

/// The variables whose names begin with `AWS_`, secrets among them.
#[derive(Clone, Default)]
pub struct AwsVariables(Vec<(String, String)>);

impl AwsVariables {
    /// Those of this process.
    pub fn from_environment() -> Self {
        let text = |text: std::ffi::OsString| text.into_string().ok();
        Self::new(std::env::vars_os().filter_map(|(name, value)| text(name).zip(text(value))))
    }

    /// Those among the given ones that mean something.
    pub fn new(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let named = variables.into_iter();
        Self(
            named
                .filter(|(name, value)| name.starts_with("AWS_") && !value.is_empty())
                .collect(),
        )
    }
}

impl std::fmt::Debug for AwsVariables {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

/// Why an object can't be had or kept.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// There is no such object: something took it away behind our back.
    #[error("object `{0}` is missing from the store")]
    Missing(String),
    /// The store has no room.
    #[error("the store is full: {0}")]
    Full(String),
    /// Anything else.
    #[error("the store failed: {0}")]
    Other(String),
}

/// What a client put at a place by itself.
#[derive(Debug)]
pub(crate) enum Staged {
    Nothing,
    /// More bytes than may be read.
    TooLong(u64),
    Frame(Bytes),
}

impl Store {
    /// Opens the store at `url`: `file:///DIR`, `s3://BUCKET/PREFIX`, or `memory:` for tests. A bucket is not asked for
    /// anything before [`Store::try_out`].
    ///
    /// # Errors
    /// A sentence that names the URL and what is wrong with it.
    pub(crate) fn open(url: &str, options: &StoreOptions) -> Result<Self, String> {
        let buffers = Buffers::new(N_BUFFERS);
        if url == "memory:" {
            return Ok(Self {
                objects: Arc::new(InMemory::new()),
                signer: None,
                dir: None,
                prefix: Path::default(),
                shown: url.to_owned(),
                buffers,
            });
        }
        if url.starts_with("s3://") {
            let bucket = s3::open(url, options)?;
            return Ok(Self {
                objects: bucket.objects,
                signer: (!options.direct_off).then_some(bucket.signer as Arc<dyn Signer>),
                dir: None,
                prefix: bucket.prefix,
                shown: bucket.shown,
                buffers,
            });
        }
        let Some(dir) = url.strip_prefix("file://") else {
            return Err(format!(
                "store `{url}` is not supported: use `file:///DIR` or `s3://BUCKET/PREFIX`"
            ));
        };
        std::fs::create_dir_all(dir).map_err(|error| format!("folder `{dir}` can't be made: {error}"))?;
        let local = LocalFileSystem::new_with_prefix(dir).map_err(|error| format!("folder `{dir}`: {error}"))?;
        // A frame that was acknowledged survives a power cut.
        Ok(Self {
            objects: Arc::new(local.with_fsync(true)),
            signer: None,
            dir: Some(PathBuf::from(dir)),
            prefix: Path::default(),
            shown: format!("folder `{dir}`"),
            buffers,
        })
    }

    /// Tries to write, read and delete a small object in a bucket, so that a server without the rights does not start. A
    /// folder was made or found already, and one without room is still good to read from.
    ///
    /// # Errors
    /// A sentence that names the store and what it refused.
    pub(crate) async fn try_out(&self) -> Result<(), String> {
        if self.dir.is_some() {
            return Ok(());
        }
        let key = self.key(&key::probe(Uuid::now_v7()));
        let tried = async {
            self.objects.put(&key, Bytes::from_static(b"probe").into()).await?;
            let read = self.objects.get(&key).await?.bytes().await?;
            self.objects.delete(&key).await?;
            Ok::<_, object_store::Error>(read)
        };
        match tried.await {
            Ok(read) if read == "probe" => {}
            Ok(_) => return Err(format!("{}: a small object reads back with other bytes", self.shown)),
            Err(error) => return Err(format!("{}: {}", self.shown, self.describe(&error))),
        }
        // Amazon says of what is not there that it may not be read, to those who may not list.
        let missing = self.check().await;
        missing.map_err(|error| {
            let shown = &self.shown;
            format!(
                "{shown}: it does not tell a missing object from a refused one; it needs the right to list: {error}"
            )
        })
    }

    /// Finds out that the store answers and is there, so that what is missing from it is a matter of single objects.
    ///
    /// # Errors
    /// [`StoreError::Other`] when it is not.
    async fn check(&self) -> Result<(), StoreError> {
        let key = self.key(&key::probe(Uuid::nil()));
        match self
            .objects
            .get(&key)
            .await
            .map_err(|error| self.sort_out(&key, &error))
        {
            Ok(_) | Err(StoreError::Missing(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Whether `n_bytes` more find room.
    ///
    /// # Errors
    /// [`StoreError::Full`] with the numbers, before a byte is written, while there is still room to delete.
    pub(crate) fn check_room(&self, n_bytes: u64) -> Result<(), StoreError> {
        match &self.dir {
            Some(dir) => room::check(dir, n_bytes),
            None => Ok(()),
        }
    }

    /// Whether the store answers: a folder is there and may be written to, an object store says of a key that it is not
    /// there.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when the folder is gone, [`StoreError::Full`] when nothing more would fit.
    pub(crate) async fn probe(&self) -> Result<(), StoreError> {
        let Some(dir) = self.dir.clone() else {
            return self.check().await;
        };
        // Off the async threads: a folder on a file server may hang.
        let probed = tokio::task::spawn_blocking(move || room::probe(&dir)).await;
        probed.unwrap_or_else(|error| Err(StoreError::Other(error.to_string())))
    }

    /// Keeps a frame under its id.
    pub(crate) async fn put_frame(&self, id: Uuid, frame: Bytes) -> Result<(), StoreError> {
        let key = self.key(&key::frame(id));
        self.objects
            .put(&key, frame.into())
            .await
            .map(|_| ())
            .map_err(|error| self.sort_out(&key, &error))
    }

    /// The memory of frames, for those who make or decode them too.
    pub(crate) fn buffers(&self) -> &Buffers {
        &self.buffers
    }

    /// The frame with that id.
    pub(crate) async fn get_frame(&self, id: Uuid) -> Result<Bytes, StoreError> {
        let key = self.key(&key::frame(id));
        let object = self.objects.get(&key).await;
        let object = object.map_err(|error| self.sort_out(&key, &error))?;
        let size = object.meta.size;
        // A folder's file is read here and not by `object_store`, which would take fresh memory for each.
        let GetResultPayload::File(file, _) = object.payload else {
            let bytes = object.bytes().await;
            return bytes.map_err(|error| self.sort_out(&key, &error));
        };
        let failed = |error: &dyn std::fmt::Display| StoreError::Other(format!("`{key}`: {error}"));
        let mut frame = self
            .buffers
            .empty(usize::try_from(size).map_err(|error| failed(&error))?);
        let read = move || (&file).take(size).read_to_end(&mut frame).map(|_| frame);
        let read = tokio::task::spawn_blocking(read).await;
        let frame = read.map_err(|error| failed(&error))?.map_err(|error| failed(&error))?;
        Ok(Bytes::from_owner(frame))
    }

    /// The stored bytes of a frame; `None` when its object is not there.
    pub(crate) async fn frame_size(&self, id: Uuid) -> Result<Option<u64>, StoreError> {
        let key = self.key(&key::frame(id));
        match self.objects.head(&key).await {
            Ok(object) => Ok(Some(object.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.sort_out(&key, &error)),
        }
    }

    /// Takes a frame away, and what a put that was cut left of it; success when there was none.
    pub(crate) async fn delete_frame(&self, id: Uuid) -> Result<(), StoreError> {
        let key = self.key(&key::frame(id));
        self.delete(&key).await?;
        match &self.dir {
            Some(dir) => remove_partial(dir.join(key.as_ref()))
                .await
                .map_err(|error| StoreError::Other(format!("`{key}`: {error}"))),
            None => Ok(()),
        }
    }

    /// Whether clients are given URLs.
    pub(crate) fn gives_urls(&self) -> bool {
        self.signer.is_some()
    }

    /// A URL by which whoever has it reads a frame for a while; `None` where URLs are not given.
    pub(crate) async fn frame_url(&self, id: Uuid, lifetime: Duration) -> Result<Option<String>, StoreError> {
        self.sign(Method::GET, &self.key(&key::frame(id)), lifetime).await
    }

    /// A URL by which whoever has it writes a staging place for a while; `None` where URLs are not given.
    pub(crate) async fn staging_url(&self, id: Uuid, lifetime: Duration) -> Result<Option<String>, StoreError> {
        self.sign(Method::PUT, &self.key(&key::staging(id)), lifetime).await
    }

    async fn sign(&self, method: Method, key: &Path, lifetime: Duration) -> Result<Option<String>, StoreError> {
        let Some(signer) = &self.signer else { return Ok(None) };
        match signer.signed_url(method, key, lifetime).await {
            Ok(url) => Ok(Some(url.into())),
            Err(error) => Err(self.sort_out(key, &error)),
        }
    }

    /// What was put at a staging place, read once and no further than `max_bytes`.
    pub(crate) async fn get_staged(&self, id: Uuid, max_bytes: u64) -> Result<Staged, StoreError> {
        let key = self.key(&key::staging(id));
        let object = match self.objects.get(&key).await {
            Ok(object) => object,
            Err(error) => {
                return match self.sort_out(&key, &error) {
                    StoreError::Missing(_) => Ok(Staged::Nothing),
                    error => Err(error),
                };
            }
        };
        if object.meta.size > max_bytes {
            return Ok(Staged::TooLong(object.meta.size));
        }
        let bytes = object.bytes().await;
        bytes.map(Staged::Frame).map_err(|error| self.sort_out(&key, &error))
    }

    /// Takes away what was put at a staging place; success when there was nothing.
    pub(crate) async fn delete_staged(&self, id: Uuid) -> Result<(), StoreError> {
        self.delete(&self.key(&key::staging(id))).await
    }

    async fn delete(&self, key: &Path) -> Result<(), StoreError> {
        match self.objects.delete(key).await {
            Ok(()) => Ok(()),
            Err(error) => match self.sort_out(key, &error) {
                StoreError::Missing(_) => Ok(()),
                error => Err(error),
            },
        }
    }

    fn key(&self, path: &Path) -> Path {
        self.prefix.parts().chain(path.parts()).collect()
    }

    fn describe(&self, error: &object_store::Error) -> String {
        match self.dir {
            Some(_) => error.to_string(),
            None => s3::describe(error),
        }
    }

    fn sort_out(&self, key: &Path, error: &object_store::Error) -> StoreError {
        if matches!(error, object_store::Error::NotFound { .. }) && !s3::is_bucket_missing(error) {
            return StoreError::Missing(key.to_string());
        }
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
        while let Some(inner) = cause {
            let io = inner.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
            if matches!(
                io,
                Some(std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
            ) {
                return StoreError::Full(self.dir.as_deref().map_or_else(|| error.to_string(), room::describe));
            }
            cause = inner.source();
        }
        StoreError::Other(self.describe(error))
    }
}

/// `object_store` writes to `NAME#1` (`#2`, …) and renames; a process that is killed in between leaves that behind.
async fn remove_partial(object: PathBuf) -> std::io::Result<()> {
    for n in 1.. {
        let mut partial = object.clone().into_os_string();
        partial.push(format!("#{n}"));
        match tokio::fs::remove_file(partial).await {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
