//! A prefix of a bucket of S3, or of what speaks its protocol. Each folder right below the prefix is a checkpoint, and so
//! is each file.
//!
//! **Invariant:** a source's bucket is opened with the source's own secret or with none. The server's variables, roles and
//! proxies are its store's, and no source borrows them.

use std::collections::{BTreeMap, HashSet};
use std::error::Error;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::TryStreamExt;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
};
use object_store::path::Path;
use object_store::{BackoffConfig, ClientOptions, GetOptions, GetRange, ObjectMeta, ObjectStore, RetryConfig};
use reqwest::Url;

use super::guard::{Guard, Refusal};
use super::{AllowedHost, MAX_OBJECTS, Object, Place, SourceError, is_plain_path, told, version_of};

/// For how long a request that fails in passing is sent again.
const RETRY_FOR: Duration = Duration::from_secs(60);
const MAX_RETRIES: usize = 5;

/// What an object's version begins with where the server gives no ETag.
const MODIFIED: &str = "modified ";

/// Where a bucket is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Address<'a> {
    pub(super) bucket: &'a str,
    pub(super) prefix: &'a str,
    pub(super) endpoint: Option<&'a str>,
    pub(super) region: Option<&'a str>,
}

/// A prefix of a bucket.
pub(super) struct Bucket {
    objects: AmazonS3,
    prefix: Path,
    has_secret: bool,
    /// What messages call it.
    shown: String,
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bucket")
            .field("shown", &self.shown)
            .finish_non_exhaustive()
    }
}

impl Bucket {
    pub(super) fn open(at: &Address<'_>, secret: Option<&str>, allowed: &[AllowedHost]) -> Result<Self, SourceError> {
        let region = at.region.unwrap_or("us-east-1");
        check_names(at.bucket, region)?;
        let prefix = parse(at.prefix)?;
        let guard = Guard::new(allowed)?;
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(at.bucket)
            .with_region(region)
            .with_virtual_hosted_style_request(false)
            .with_retry(retries());
        if let Some(endpoint) = at.endpoint {
            let url = Url::parse(endpoint).ok();
            let url = url.filter(|url| url.query().is_none() && url.fragment().is_none());
            let url = url.ok_or_else(|| refused("the endpoint is none: write it as `https://HOST[:PORT]`"))?;
            guard.client(&url)?;
            builder = builder
                .with_endpoint(url.as_str().trim_end_matches('/'))
                .with_allow_http(url.scheme() == "http");
        }
        builder = match secret {
            None => builder.with_skip_signature(true),
            Some(secret) => {
                let parts = secret.split_once(':');
                let parts = parts.filter(|(id, key)| !id.is_empty() && !key.is_empty());
                let what = "the secret opens no bucket: write it as `ACCESS_KEY_ID:SECRET_ACCESS_KEY`";
                let (id, key) = parts.ok_or_else(|| refused(what))?;
                builder.with_access_key_id(id).with_secret_access_key(key)
            }
        };
        let objects = builder.with_http_connector(Guarded(Arc::new(guard))).build();
        let endpoint = at.endpoint.map(|endpoint| format!(" at `{}`", told(endpoint)));
        let shown = format!("bucket `{}`{}", at.bucket, endpoint.unwrap_or_default());
        Ok(Self {
            objects: objects.map_err(|_| refused(&format!("{shown} can't be opened: look at its endpoint")))?,
            prefix,
            has_secret: secret.is_some(),
            shown,
        })
    }

    pub(super) async fn list(&self) -> Result<Vec<Place>, SourceError> {
        let mut groups = BTreeMap::<String, Vec<Object>>::new();
        for object in self.below(&self.prefix).await? {
            let (name, within) = match object.path.split_once('/') {
                Some((name, within)) => (name.to_owned(), Some(within.to_owned())),
                None => (object.path.clone(), None),
            };
            match within {
                Some(path) => groups.entry(name).or_default().push(Object { path, ..object }),
                // What a console leaves for a folder without files.
                None if object.size_bytes == 0 => {}
                None => groups.entry(name).or_default().push(object),
            }
        }
        let places = groups.into_iter().map(|(name, objects)| place(&name, &name, objects));
        Ok(places.collect())
    }

    pub(super) async fn place(&self, at: &str) -> Result<Place, SourceError> {
        let prefix = parse(at)?;
        let objects = self.below(&prefix).await?;
        if objects.is_empty() {
            let (at, shown) = (told(at), &self.shown);
            return Err(SourceError::NotFound(format!(
                "nothing lies below `{at}` in {shown}: look at its spelling"
            )));
        }
        Ok(place(prefix.filename().unwrap_or_default(), at, objects))
    }

    pub(super) async fn read(&self, object: &Object, range: Range<u64>) -> Result<Bytes, SourceError> {
        let modified = object.version.strip_prefix(MODIFIED);
        let options = GetOptions {
            range: Some(GetRange::Bounded(range.clone())),
            if_match: modified.is_none().then(|| object.version.clone()),
            if_unmodified_since: modified.and_then(|at| at.parse().ok()),
            ..GetOptions::default()
        };
        let failed = |error| self.failed(&object.key, &error);
        let key = Path::parse(&object.key).map_err(|error| failed(error.into()))?;
        let answer = self.objects.get_opts(&key, options).await.map_err(failed)?;
        if answer.meta.size != object.size_bytes || answer.range != range {
            return Err(self.changed(&object.key));
        }
        let bytes = answer.bytes().await.map_err(failed)?;
        if bytes.len() as u64 != range.end - range.start {
            return Err(self.changed(&object.key));
        }
        Ok(bytes)
    }

    /// Every object below a prefix, its path being what follows that.
    async fn below(&self, prefix: &Path) -> Result<Vec<Object>, SourceError> {
        let failed = |error| self.failed(prefix.as_ref(), &error);
        let mut listed = self.objects.list(Some(prefix));
        let mut objects = Vec::new();
        while let Some(meta) = listed.try_next().await.map_err(failed)? {
            let Some(path) = meta.location.as_ref().strip_prefix(prefix.as_ref()) else {
                continue;
            };
            let path = path.trim_start_matches('/').to_owned();
            // The prefix's own marker.
            if path.is_empty() {
                continue;
            }
            if objects.len() == MAX_OBJECTS {
                let (prefix, shown) = (told(prefix.as_ref()), &self.shown);
                return Err(SourceError::Refused(format!(
                    "{shown} has more than {MAX_OBJECTS} objects below `{prefix}`: give a longer prefix"
                )));
            }
            objects.push(Object {
                path,
                key: meta.location.to_string(),
                size_bytes: meta.size,
                version: version(&meta),
                sha256: None,
            });
        }
        Ok(without_markers(objects))
    }

    fn changed(&self, key: &str) -> SourceError {
        let (key, shown) = (told(key), &self.shown);
        SourceError::Changed(format!(
            "`{key}` of {shown} is another than the one that was listed: list the source again"
        ))
    }

    fn failed(&self, key: &str, error: &object_store::Error) -> SourceError {
        use object_store::Error as StoreError;
        if let Some(refusal) = Refusal::behind(error) {
            return refusal.clone().into();
        }
        let text = error.to_string();
        let (code, status) = (element(&text, "Code").unwrap_or_default(), status(&text));
        let (shown, told_key) = (&self.shown, told(key));
        let moved = ["PermanentRedirect", "TemporaryRedirect", "AuthorizationHeaderMalformed"];
        let is_redirect = status.starts_with('3') || text.contains("redirect without LOCATION");
        // Of a listing that fails only the text says how.
        match error {
            StoreError::Precondition { .. } => self.changed(key),
            _ if code == "InvalidRange" => self.changed(key),
            _ if code == "NoSuchBucket" => SourceError::NotFound(format!("{shown} is not there: look at its spelling")),
            StoreError::NotFound { .. } => SourceError::NotFound(format!("`{told_key}` is not in {shown}")),
            _ if status == "404" => SourceError::NotFound(format!("{shown} is not there: look at its spelling")),
            _ if moved.contains(&code) || is_redirect => SourceError::Refused(format!(
                "{shown} is somewhere else: look at the source's region and endpoint"
            )),
            _ if matches!(status, "401" | "403") && self.has_secret => SourceError::Denied(format!(
                "the secret does not open `{told_key}` of {shown}: give one that may list and read"
            )),
            _ if matches!(status, "401" | "403") => SourceError::Denied(format!(
                "`{told_key}` of {shown} is not public: give the source a secret"
            )),
            StoreError::InvalidPath { .. } => SourceError::Refused(format!(
                "{shown} has a key below `{told_key}` with an empty part, `.` or `..`, which can't be read: give a longer \
                 prefix"
            )),
            _ => SourceError::unavailable(format!("{shown} can't be read: {}", reason(error, status, code))),
        }
    }
}

fn refused(what: &str) -> SourceError {
    SourceError::Refused(what.to_owned())
}

/// Bucket and region become parts of a URL, and must not become more of it.
fn check_names(bucket: &str, region: &str) -> Result<(), SourceError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    if bucket.is_empty() || bucket.starts_with('.') || !bucket.chars().all(plain) {
        let bucket = told(bucket);
        return Err(refused(&format!("`{bucket}` is no bucket's name: give the name alone")));
    }
    if region.is_empty() || !region.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
        let region = told(region);
        return Err(refused(&format!("`{region}` is no region: write one as `us-east-1`")));
    }
    Ok(())
}

fn parse(prefix: &str) -> Result<Path, SourceError> {
    let refused = |_| SourceError::Refused(format!("`{}` can't be the beginning of a key", told(prefix)));
    Path::parse(prefix.trim_matches('/')).map_err(refused)
}

fn retries() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig {
            max_backoff: Duration::from_secs(10),
            ..BackoffConfig::default()
        },
        max_retries: MAX_RETRIES,
        retry_timeout: RETRY_FOR,
    }
}

/// A checkpoint of the objects below it.
fn place(name: &str, at: &str, mut objects: Vec<Object>) -> Place {
    objects.sort_by(|a, b| a.path.cmp(&b.path));
    let version = version_of(&objects);
    let problem = objects
        .iter()
        .find(|object| !is_plain_path(&object.path))
        .map(|object| format!("`{}` can't be the path of a file", told(&object.path)));
    let twice = objects.windows(2).find(|pair| pair[0].path == pair[1].path);
    let twice = twice.map(|pair| format!("`{}` is both a file and a folder", told(&pair[0].path)));
    objects.retain(|object| is_plain_path(&object.path));
    objects.dedup_by(|a, b| a.path == b.path);
    Place {
        name: name.to_owned(),
        at: at.to_owned(),
        version,
        objects: Some(objects),
        problem: problem.or(twice).map(SourceError::Refused),
    }
}

/// Drops the empty objects that stand for folders: those that others lie below.
fn without_markers(objects: Vec<Object>) -> Vec<Object> {
    let is_empty = |object: &&Object| object.size_bytes == 0;
    let empty: HashSet<_> = objects
        .iter()
        .filter(is_empty)
        .map(|object| object.path.as_str())
        .collect();
    let mut folders = HashSet::new();
    for object in &objects {
        let parents = object.path.match_indices('/').map(|(at, _)| &object.path[..at]);
        folders.extend(parents.filter(|parent| empty.contains(parent)).map(str::to_owned));
    }
    objects
        .into_iter()
        .filter(|object| object.size_bytes > 0 || !folders.contains(&object.path))
        .collect()
}

fn version(meta: &ObjectMeta) -> String {
    let modified = |at: &DateTime<Utc>| format!("{MODIFIED}{}", at.to_rfc3339());
    meta.e_tag.clone().unwrap_or_else(|| modified(&meta.last_modified))
}

/// The text of an element of an error's XML.
fn element<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    rest.split_once(&format!("</{name}>")).map(|(inner, _)| inner)
}

/// The status of an answer that was refused.
fn status(text: &str) -> &str {
    let (_, rest) = text.split_once("status code: ").unwrap_or_default();
    rest.get(..3).unwrap_or_default()
}

/// Why nothing came: the server's code, or what the line says; never an answer's text, which may repeat what was signed.
fn reason(error: &object_store::Error, status: &str, code: &str) -> String {
    if !status.is_empty() {
        return format!("its server answers {status} `{}`", told(code));
    }
    let mut inner: &dyn Error = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    told(inner.to_string().split('?').next().unwrap_or_default())
}

/// Reaches buckets by way of the guard.
#[derive(Debug, Clone)]
struct Guarded(Arc<Guard>);

impl HttpConnector for Guarded {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

#[async_trait]
impl HttpService for Guarded {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        // Not sent again: it stays refused.
        let refused = |refusal| HttpError::new(HttpErrorKind::Unknown, refusal);
        let url =
            Url::parse(&request.uri().to_string()).map_err(|error| HttpError::new(HttpErrorKind::Unknown, error))?;
        let client = self.0.client(&url).map_err(refused)?;
        let answer = HttpService::call(client, request).await;
        answer.map_err(|error| match Refusal::behind(&error) {
            Some(refusal) => refused(refusal.clone()),
            None => error,
        })
    }
}
