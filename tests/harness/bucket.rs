//! A part of Garage's bucket, and what a test sees of it by S3.

use futures::TryStreamExt as _;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path;
use object_store::{ObjectStore as _, ObjectStoreExt as _, PutPayload};
use uuid::Uuid;

use crate::garage::Garage;

/// The part of a bucket that lies under a prefix of its own, and a client of S3 for it.
#[derive(Debug)]
pub struct Bucket {
    /// `s3://BUCKET/PREFIX`.
    pub url: String,
    /// What its keys begin with.
    pub prefix: Path,
    /// Of the whole bucket.
    pub objects: AmazonS3,
}

impl Bucket {
    /// The keys below one of its folders.
    pub async fn keys(&self, folder: &str) -> Vec<Path> {
        let list = self.objects.list(Some(&self.prefix.clone().join(folder)));
        let keys = list.map_ok(|object| object.location);
        keys.try_collect().await.expect("the bucket is listed")
    }

    /// Puts an object.
    pub async fn put(&self, path: &str, bytes: &str) {
        let key = format!("{}/{path}", self.prefix).into();
        let put = self.objects.put(&key, PutPayload::from(bytes.to_owned()));
        put.await.expect("the object is put");
    }
}

impl Garage {
    /// A part of the bucket under a new prefix.
    pub fn new_store(&self) -> Bucket {
        let prefix = Uuid::now_v7().simple().to_string();
        let named = self.variables().into_iter();
        let builder = named.fold(AmazonS3Builder::new(), |builder, (name, value)| {
            builder.with_config(name.to_lowercase().parse().expect("a variable of AWS"), value)
        });
        let url = self.store(&prefix);
        Bucket {
            objects: builder
                .with_url(&url)
                .with_allow_http(true)
                .build()
                .expect("a client of S3"),
            url,
            prefix: prefix.into(),
        }
    }
}
