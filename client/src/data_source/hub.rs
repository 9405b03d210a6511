//! Data sets of the Hugging Face Hub, as Parquet: the branch `refs/convert/parquet` holds every public one as
//! `CONFIG/SPLIT/NNNN.parquet`.
//!
//! **Invariant:** a branch is resolved to a commit before anything of it is listed or read, and the token goes to the
//! endpoint alone.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, HeaderValue, LINK};
use reqwest::{Response, StatusCode, Url};
use serde::Deserialize;

use crate::error::{Error, Result};

const PUBLIC_HUB: &str = "https://huggingface.co";

/// The branch that the Hub itself writes.
const PARQUET_BRANCH: &str = "refs/convert/parquet";

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const STALL_TIMEOUT: Duration = Duration::from_secs(60);

/// A request that fails in passing is sent so often, the waits between doubling from this one.
const N_TRIES: u32 = 4;
const FIRST_BACK_OFF: Duration = Duration::from_millis(300);

/// The most pages of a data set's list of files, and the most bytes of one.
const MAX_PAGES: usize = 100;
const MAX_PAGE_BYTES: u64 = 16 << 20;

/// How the Hub is reached.
#[derive(Clone)]
pub struct HubOptions {
    /// `https://huggingface.co`, or a mirror.
    pub endpoint: String,
    /// For what is not public.
    pub token: Option<String>,
}

impl HubOptions {
    /// As `HF_ENDPOINT` and `HF_TOKEN` say.
    pub fn from_env() -> Self {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self {
            endpoint: variable("HF_ENDPOINT").unwrap_or_else(|| PUBLIC_HUB.to_owned()),
            token: variable("HF_TOKEN"),
        }
    }
}

impl std::fmt::Debug for HubOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HubOptions")
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

/// The Hub.
#[derive(Debug)]
pub(super) struct Hub {
    http: reqwest::Client,
    endpoint: Url,
    authorization: Option<HeaderValue>,
}

/// A data set at a commit.
#[derive(Debug, Clone)]
pub(super) struct Snapshot {
    pub(super) dataset: String,
    pub(super) commit: String,
    pub(super) paths: BTreeSet<String>,
}

#[derive(Deserialize)]
struct Revision {
    sha: String,
}

#[derive(Deserialize)]
struct Entry {
    path: String,
    #[serde(rename = "type")]
    kind: String,
}

impl Hub {
    /// # Errors
    /// [`Error::Configuration`] when endpoint or token can't be one.
    pub(super) fn new(options: &HubOptions) -> Result<Self> {
        let refused = |what: String| Error::Configuration(what);
        let endpoint = Url::parse(&options.endpoint)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.host_str().is_some());
        let endpoint =
            endpoint.ok_or_else(|| refused("HF_ENDPOINT is no URL: write it as `https://HOST`".to_owned()))?;
        let secret = |token: &String| {
            let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
                .map_err(|_| refused("HF_TOKEN holds something that no token has: copy it again".to_owned()))?;
            value.set_sensitive(true);
            Ok::<_, Error>(value)
        };
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(STALL_TIMEOUT)
            .user_agent(concat!("fineline/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| refused(format!("can't make an HTTP client: {error}")))?;
        Ok(Self {
            http,
            endpoint,
            authorization: options.token.as_ref().map(secret).transpose()?,
        })
    }

    /// The files of a data set at a revision.
    ///
    /// # Errors
    /// [`Error::Data`] that names the URL.
    pub(super) async fn snapshot(&self, dataset: &str, revision: Option<&str>) -> Result<Snapshot> {
        let revision = revision.unwrap_or(PARQUET_BRANCH);
        let url = self.url(&["api", "datasets"], dataset, &["revision", revision]);
        let Revision { sha } = self.json(url.clone()).await?.0;
        if sha.is_empty() || !sha.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(unreadable(&url, "it names no commit"));
        }
        let mut url = self.url(&["api", "datasets"], dataset, &["tree", &sha]);
        url.set_query(Some("recursive=true"));
        let mut paths = BTreeSet::new();
        for _ in 0..MAX_PAGES {
            let (entries, next): (Vec<Entry>, _) = self.json(url.clone()).await?;
            paths.extend(
                entries
                    .into_iter()
                    .filter(|entry| entry.kind == "file")
                    .map(|entry| entry.path),
            );
            match next {
                Some(next) => url = next,
                None => {
                    return Ok(Snapshot {
                        dataset: dataset.to_owned(),
                        commit: sha,
                        paths,
                    });
                }
            }
        }
        Err(unreadable(
            &url,
            &format!("its list of files has more than {MAX_PAGES} pages"),
        ))
    }

    /// A file of a data set, which has at most `max_bytes`.
    ///
    /// # Errors
    /// [`Error::Data`] that names the URL.
    pub(super) async fn read(&self, snapshot: &Snapshot, path: &str, max_bytes: u64) -> Result<Bytes> {
        let mut rest = vec!["resolve", &snapshot.commit];
        rest.extend(path.split('/'));
        self.bytes(self.url(&["datasets"], &snapshot.dataset, &rest), max_bytes)
            .await
            .map(|(bytes, _)| bytes)
    }

    fn url(&self, before: &[&str], dataset: &str, rest: &[&str]) -> Url {
        let mut url = self.endpoint.clone();
        // A slash within a segment is written as `%2F`, as a branch's name wants it.
        let segments = before
            .iter()
            .copied()
            .chain(dataset.split('/'))
            .chain(rest.iter().copied());
        url.path_segments_mut()
            .expect("an HTTP URL has a path")
            .pop_if_empty()
            .extend(segments);
        url
    }

    async fn json<T: serde::de::DeserializeOwned>(&self, url: Url) -> Result<(T, Option<Url>)> {
        let (bytes, next) = self.bytes(url.clone(), MAX_PAGE_BYTES).await?;
        let read = serde_json::from_slice(&bytes).map_err(|error| unreadable(&url, &error.to_string()))?;
        Ok((read, next))
    }

    /// An answer's body, and the page behind it.
    async fn bytes(&self, url: Url, max_bytes: u64) -> Result<(Bytes, Option<Url>)> {
        let mut wait = FIRST_BACK_OFF;
        for _ in 1..N_TRIES {
            match self.attempt(&url, max_bytes).await {
                Err(Failure { passing: true, error }) => tracing::debug!(%error, "asked again"),
                ended => return ended.map_err(|failure| failure.error),
            }
            tokio::time::sleep(wait).await;
            wait *= 2;
        }
        self.attempt(&url, max_bytes).await.map_err(|failure| failure.error)
    }

    async fn attempt(&self, url: &Url, max_bytes: u64) -> Result<(Bytes, Option<Url>), Failure> {
        let mut request = self.http.get(url.clone());
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let broken = |error: reqwest::Error| Failure {
            passing: !error.is_redirect() && !error.is_builder(),
            error: unreadable(url, &causes(&error.without_url())),
        };
        let mut response = request.send().await.map_err(broken)?;
        let status = response.status();
        if !status.is_success() {
            return Err(refused(url, status, self.authorization.is_some()));
        }
        let mut body = Vec::new();
        while let Some(part) = response.chunk().await.map_err(broken)? {
            if (body.len() + part.len()) as u64 > max_bytes {
                return Err(Failure {
                    passing: false,
                    error: unreadable(
                        url,
                        &format!("it is longer than the {max_bytes} bytes that there is room for"),
                    ),
                });
            }
            body.extend_from_slice(&part);
        }
        let next = self.next_page(&response);
        Ok((body.into(), next))
    }

    /// The URL that `Link: <URL>; rel="next"` names, where it is of the same host.
    fn next_page(&self, response: &Response) -> Option<Url> {
        let link = response.headers().get(LINK)?.to_str().ok()?;
        let next = link.split(',').find(|link| link.contains("rel=\"next\""))?;
        let url = next.trim().strip_prefix('<')?.split_once('>')?.0;
        self.endpoint
            .join(url)
            .ok()
            .filter(|url| url.origin() == self.endpoint.origin())
    }
}

struct Failure {
    error: Error,
    /// Whether the same request may go well a moment later.
    passing: bool,
}

fn refused(url: &Url, status: StatusCode, has_token: bool) -> Failure {
    let what = match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if has_token => {
            "the token (HF_TOKEN) is not for it, or its terms were not agreed to".to_owned()
        }
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => "it is not public: set HF_TOKEN".to_owned(),
        StatusCode::NOT_FOUND => "there is no such data set, revision or file".to_owned(),
        status => format!("it answered with status {}", status.as_u16()),
    };
    Failure {
        error: unreadable(url, &what),
        passing: status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS,
    }
}

fn unreadable(url: &Url, reason: &str) -> Error {
    Error::Data {
        url: shown(url),
        reason: reason.to_owned(),
    }
}

fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.to_string()
}

/// What the transport says, with its causes: the first alone says next to nothing.
fn causes(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
