//! Objects: frames over `object_store`. Content is immutable, so putting the same object twice is harmless; nothing
//! here depends on conditional puts or on listing.

pub(crate) mod key;
mod room;

use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use fineline_format::Buffers;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::{GetResultPayload, ObjectStore, ObjectStoreExt};
use uuid::Uuid;

/// Chunks and frames whose memory is kept for the next ones.
const MAX_IDLE_BUFFERS: usize = 6;

/// Where frames lie.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    objects: Arc<dyn ObjectStore>,
    /// The folder, where it is one.
    dir: Option<PathBuf>,
    /// What frames are read into.
    buffers: Buffers,
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

impl Store {
    /// Opens the store at `url`: `file:///DIR`, or `memory:` for tests.
    ///
    /// # Errors
    /// A sentence that names the URL and what is wrong with it.
    pub(crate) fn open(url: &str) -> Result<Self, String> {
        if url == "memory:" {
            return Ok(Self {
                objects: Arc::new(InMemory::new()),
                dir: None,
                buffers: Buffers::new(MAX_IDLE_BUFFERS),
            });
        }
        let Some(dir) = url.strip_prefix("file://") else {
            return Err(format!("store `{url}` is not supported: use `file:///DIR`"));
        };
        std::fs::create_dir_all(dir).map_err(|error| format!("folder `{dir}` can't be made: {error}"))?;
        let local = LocalFileSystem::new_with_prefix(dir).map_err(|error| format!("folder `{dir}`: {error}"))?;
        // A frame that was acknowledged survives a power cut.
        Ok(Self {
            objects: Arc::new(local.with_fsync(true)),
            dir: Some(PathBuf::from(dir)),
            buffers: Buffers::new(MAX_IDLE_BUFFERS),
        })
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

    /// Keeps a frame under its id.
    pub(crate) async fn put_frame(&self, id: Uuid, frame: Bytes) -> Result<(), StoreError> {
        let key = key::frame(id);
        self.objects
            .put(&key, frame.into())
            .await
            .map(|_| ())
            .map_err(|error| self.sort_out(key.as_ref(), &error))
    }

    /// The memory of frames, for those who make or decode them too.
    pub(crate) fn buffers(&self) -> &Buffers {
        &self.buffers
    }

    /// The frame with that id.
    pub(crate) async fn get_frame(&self, id: Uuid) -> Result<Bytes, StoreError> {
        let key = key::frame(id);
        let object = self.objects.get(&key).await;
        let object = object.map_err(|error| self.sort_out(key.as_ref(), &error))?;
        let size = object.meta.size;
        // A folder's file is read here and not by `object_store`, which would take fresh memory for each.
        let GetResultPayload::File(file, _) = object.payload else {
            let bytes = object.bytes().await;
            return bytes.map_err(|error| self.sort_out(key.as_ref(), &error));
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
        let key = key::frame(id);
        match self.objects.head(&key).await {
            Ok(object) => Ok(Some(object.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.sort_out(key.as_ref(), &error)),
        }
    }

    /// Takes a frame away, and what a put that was cut left of it; success when there was none.
    pub(crate) async fn delete_frame(&self, id: Uuid) -> Result<(), StoreError> {
        let key = key::frame(id);
        match self.objects.delete(&key).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => return Err(self.sort_out(key.as_ref(), &error)),
        }
        match &self.dir {
            Some(dir) => remove_partial(dir.join(key.as_ref()))
                .await
                .map_err(|error| StoreError::Other(format!("`{key}`: {error}"))),
            None => Ok(()),
        }
    }

    /// How many objects there are, whatever the database says.
    #[cfg(test)]
    pub(crate) async fn count_objects(&self) -> usize {
        use futures::StreamExt;
        self.objects.list(None).count().await
    }

    fn sort_out(&self, key: &str, error: &object_store::Error) -> StoreError {
        if matches!(error, object_store::Error::NotFound { .. }) {
            return StoreError::Missing(key.to_owned());
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
        StoreError::Other(error.to_string())
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
mod tests {
    use super::*;

    /// What every store must do, whatever lies behind it.
    async fn store_suite(store: &Store) {
        let (id, other) = (Uuid::now_v7(), Uuid::now_v7());
        assert!(matches!(store.get_frame(id).await, Err(StoreError::Missing(_))));
        assert_eq!(store.frame_size(id).await.unwrap(), None);
        for _ in 0..2 {
            store.put_frame(id, Bytes::from_static(b"frame")).await.unwrap();
        }
        store.put_frame(other, Bytes::new()).await.unwrap();
        assert_eq!(store.get_frame(id).await.unwrap(), "frame");
        assert_eq!(store.get_frame(other).await.unwrap(), "");
        assert_eq!(store.frame_size(id).await.unwrap(), Some(5));
        assert_eq!(store.frame_size(other).await.unwrap(), Some(0));
        for _ in 0..2 {
            store.delete_frame(id).await.unwrap();
        }
        assert!(matches!(store.get_frame(id).await, Err(StoreError::Missing(_))));
        assert_eq!(store.frame_size(other).await.unwrap(), Some(0), "its neighbour stays");
    }

    #[tokio::test]
    async fn memory_and_folder_behave_alike() {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("file://{}", dir.path().join("store").display());
        store_suite(&Store::open("memory:").unwrap()).await;
        store_suite(&Store::open(&url).unwrap()).await;
    }

    #[tokio::test]
    async fn deleting_takes_away_what_a_cut_put_left() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&format!("file://{}", dir.path().display())).unwrap();
        let id = Uuid::now_v7();
        store.put_frame(id, Bytes::from_static(b"frame")).await.unwrap();
        let object = dir.path().join(key::frame(id).as_ref());
        for n in 1..3 {
            std::fs::write(format!("{}#{n}", object.display()), "half").unwrap();
        }
        store.delete_frame(id).await.unwrap();
        assert_eq!(std::fs::read_dir(object.parent().unwrap()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_folder_keeps_frames_between_starts_and_refuses_what_it_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let (url, id) = (format!("file://{}", dir.path().display()), Uuid::now_v7());
        Store::open(&url)
            .unwrap()
            .put_frame(id, Bytes::from_static(b"x"))
            .await
            .unwrap();
        assert_eq!(Store::open(&url).unwrap().get_frame(id).await.unwrap(), "x");
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        let error = Store::open(&format!("file://{}/inside", file.display())).unwrap_err();
        assert!(error.contains("file/inside"), "{error}");
        assert!(Store::open("ftp://host").unwrap_err().contains("`ftp://host`"));
    }
}
