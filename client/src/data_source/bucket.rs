//! Data in a bucket of S3 or of what speaks its protocol. The usual variables of AWS say how it is reached:
//! `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`, `AWS_REGION`, `AWS_ENDPOINT_URL`.
//!
//! **Invariant:** no message has a secret or the query of a signed request.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt as _;
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey};
use object_store::path::Path;
use object_store::{ClientOptions, ObjectStore as _, ObjectStoreExt as _, RetryConfig};

use super::fetch::too_large;
use crate::error::{Error, Result};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const STALL_TIMEOUT: Duration = Duration::from_secs(60);
const RETRY_FOR: Duration = Duration::from_secs(20);
const MAX_RETRIES: usize = 4;

/// The most objects that are looked at below one folder of a task.
const MAX_OBJECTS: usize = 20_000;

const CREDENTIALS: &str = "the credentials (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY)";

/// A bucket, and what the keys in it begin with.
#[derive(Debug)]
pub(super) struct Bucket {
    objects: AmazonS3,
    /// `s3://BUCKET/PREFIX` with a slash behind it.
    shown: String,
    prefix: Path,
}

impl Bucket {
    /// # Errors
    /// [`Error::Configuration`] when bucket or variables can't be used.
    pub(super) fn open(bucket: &str, prefix: &str) -> Result<Self> {
        let refused = |what: &str| Error::Configuration(format!("bucket `{bucket}` can't be used: {what}"));
        let prefix = Path::parse(prefix).map_err(|_| refused("its prefix can't be the beginning of a key"))?;
        let options = ClientOptions::new()
            .with_timeout_disabled()
            .with_connect_timeout(CONNECT_TIMEOUT)
            .with_read_timeout(STALL_TIMEOUT);
        let retry = RetryConfig {
            max_retries: MAX_RETRIES,
            retry_timeout: RETRY_FOR,
            ..RetryConfig::default()
        };
        let builder = AmazonS3Builder::from_env()
            .with_bucket_name(bucket)
            .with_client_options(options)
            .with_retry(retry);
        let value = |key| builder.get_config_value(&key);
        let endpoint = value(AmazonS3ConfigKey::S3Endpoint).or_else(|| value(AmazonS3ConfigKey::Endpoint));
        let is_plain = endpoint.is_some_and(|endpoint| endpoint.starts_with("http://"));
        let objects = builder.with_allow_http(is_plain).build();
        let slash = if prefix.as_ref().is_empty() { "" } else { "/" };
        Ok(Self {
            objects: objects.map_err(|error| refused(&told(&error)))?,
            shown: format!("s3://{bucket}/{prefix}{slash}"),
            prefix,
        })
    }

    /// The objects below the folders of `roots`, by their paths behind the prefix.
    ///
    /// # Errors
    /// [`Error::Data`] that names the folder.
    pub(super) async fn list(&self, roots: Vec<String>) -> Result<BTreeSet<String>> {
        let mut paths = BTreeSet::new();
        for root in roots {
            let mut listed = self.objects.list(Some(&self.key(&root)));
            while let Some(object) = listed
                .try_next()
                .await
                .map_err(|error| self.unreadable(&root, &error))?
            {
                let path = object.location.prefix_match(&self.prefix);
                let path = path.map(|parts| parts.map(|part| part.as_ref().to_owned()).collect::<Vec<_>>().join("/"));
                paths.extend(path);
                if paths.len() > MAX_OBJECTS {
                    let url = self.url(&root);
                    return Err(Error::Folder(format!("`{url}` holds more than {MAX_OBJECTS} objects")));
                }
            }
        }
        Ok(paths)
    }

    /// An object, which has at most `max_bytes`.
    ///
    /// # Errors
    /// [`Error::Data`] that names the object.
    pub(super) async fn read(&self, path: &str, max_bytes: u64) -> Result<Bytes> {
        let unreadable = |error: object_store::Error| self.unreadable(path, &error);
        let object = self.objects.get(&self.key(path)).await.map_err(unreadable)?;
        if object.meta.size > max_bytes {
            return Err(Error::Folder(too_large(&self.url(path))));
        }
        object.bytes().await.map_err(unreadable)
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.shown)
    }

    fn key(&self, path: &str) -> Path {
        self.prefix.parts().chain(Path::from(path).parts()).collect()
    }

    fn unreadable(&self, path: &str, error: &object_store::Error) -> Error {
        Error::Data {
            url: self.url(path),
            reason: told(error),
        }
    }
}

/// What went wrong: the server's own word for it where it sent one, else the kind alone.
fn told(error: &object_store::Error) -> String {
    let text = error.to_string();
    let code = text
        .split_once("<Code>")
        .and_then(|(_, rest)| Some(rest.split_once("</Code>")?.0));
    let is_refusal = |code: &str| matches!(code, "AccessDenied" | "SignatureDoesNotMatch" | "InvalidAccessKeyId");
    match (error, code) {
        (object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. }, None) => {
            format!("{CREDENTIALS} are refused")
        }
        (_, Some(code)) if is_refusal(code) => format!("{CREDENTIALS} are refused: {code}"),
        (_, Some(code)) => format!("the bucket's server says {code}"),
        (object_store::Error::NotFound { .. }, None) => "there is no such object".to_owned(),
        _ => text.split('?').next().unwrap_or_default().to_owned(),
    }
}
