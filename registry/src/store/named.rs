//! Objects with names of their own, beside the frames: what a backup is besides its frames. Only places of backups have
//! such, and only they are listed.

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::ObjectStoreExt;
use object_store::path::Path;
use uuid::Uuid;

use super::{Store, StoreError};

impl Store {
    /// Keeps an object under a name.
    pub(crate) async fn put_named(&self, name: &str, bytes: Bytes) -> Result<(), StoreError> {
        let key = self.key(&Path::from(name));
        let put = self.objects.put(&key, bytes.into()).await;
        put.map(|_| ()).map_err(|error| self.sort_out(&key, &error))
    }

    /// The object of that name.
    pub(crate) async fn get_named(&self, name: &str) -> Result<Bytes, StoreError> {
        let key = self.key(&Path::from(name));
        let read = async { self.objects.get(&key).await?.bytes().await };
        read.await.map_err(|error| self.sort_out(&key, &error))
    }

    /// Takes an object away; success when there was none.
    pub(crate) async fn delete_named(&self, name: &str) -> Result<(), StoreError> {
        self.delete(&self.key(&Path::from(name))).await
    }

    /// The names of all objects below a prefix, sorted.
    pub(crate) async fn list_named(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        let below = self.key(&Path::from(prefix));
        let listed = self.objects.list(Some(&below));
        let names = listed.map_ok(|object| {
            let name: Option<Path> = object.location.prefix_match(&self.prefix).map(Iterator::collect);
            name.unwrap_or(object.location).to_string()
        });
        let mut names: Vec<String> = names
            .try_collect()
            .await
            .map_err(|error| self.sort_out(&below, &error))?;
        names.sort_unstable();
        Ok(names)
    }

    /// The ids of all frames that lie here, whatever any database says.
    pub(crate) async fn list_frames(&self) -> Result<Vec<Uuid>, StoreError> {
        let below = self.key(&Path::from("frames"));
        let listed = self.objects.list(Some(&below));
        let ids = listed.try_filter_map(|object| async move {
            let id = object.location.filename().and_then(|name| Uuid::parse_str(name).ok());
            Ok(id)
        });
        let ids = ids.boxed().try_collect().await;
        ids.map_err(|error| self.sort_out(&below, &error))
    }
}
