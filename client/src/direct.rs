//! Direct transfer: frames straight from and to the registry's bucket by presigned URLs, where the registry offers it.
//!
//! Whatever goes wrong on this way, the frame goes through the registry instead; when the bucket can't be reached, all
//! further ones of the same push or pull do. What comes from the bucket is trusted no more than what comes from anywhere:
//! the caller decodes and hashes it.
//!
//! **Invariant:** the bucket's host gets neither token nor lease, and no message has a URL's query, which is a secret.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use fineline_api::{ChunkLocation, RunName, StagingPlace};
use fineline_format::{Digest, MAX_FRAME_BYTES};
use reqwest::header::CONTENT_LENGTH;
use reqwest::{Method, Url};
use tokio::sync::Mutex;
use uuid::Uuid;

use crate::call::sliced;
use crate::error::{Error, Result};
use crate::http::Client;
use crate::pulse::Pulse;

/// Whether frames go straight to and from the bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Direct {
    /// Where the registry offers it and the bucket can be reached.
    #[default]
    Auto,
    /// Never: everything goes through the registry.
    Off,
}

impl std::str::FromStr for Direct {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "off" => Ok(Self::Off),
            _ => Err("write `auto` or `off`".to_owned()),
        }
    }
}

/// Smaller ones go through the registry, where they take one round trip and not three: joined tensors, headers, most texts.
pub(crate) const MIN_DIRECT_BYTES: u64 = 16 << 10;
/// Chunks whose locations are asked for at once.
const LOCATED_AT_ONCE: usize = 64;
/// Staging places that are asked for at once.
const PLACES_AT_ONCE: u64 = 16;
/// A URL that works for no longer than this is asked for anew.
const LEAST_LIFETIME: Duration = Duration::from_secs(1);
/// A bucket in which no byte moves for so long is left alone.
const STALL_TIMEOUT: Duration = Duration::from_secs(20);
/// After so many failures in a row the bucket is left alone.
const MAX_FAILURES: u32 = 4;

/// The way to the bucket during one push or pull.
#[derive(Debug)]
struct Way {
    client: Client,
    closed: AtomicBool,
    n_failures: AtomicU32,
    moved_bytes: AtomicU64,
}

/// Why the bucket did not do what was asked.
#[derive(Debug)]
enum Failure {
    /// There is no way to it.
    Unreachable(String),
    /// It answered, and not with what was asked for.
    Refused(String),
}

impl Way {
    fn new(client: &Client) -> Self {
        Self {
            closed: AtomicBool::new(client.options().direct == Direct::Off),
            client: client.clone(),
            n_failures: AtomicU32::new(0),
            moved_bytes: AtomicU64::new(0),
        }
    }

    fn is_open(&self) -> bool {
        !self.closed.load(Ordering::Relaxed)
    }

    fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    /// Asks the bucket; `None` when it did not do it, which is written down.
    async fn ask(&self, method: Method, url: &str, body: Option<Bytes>, max_bytes: usize) -> Option<Bytes> {
        match self.exchange(method, url, body, max_bytes).await {
            Ok(answer) => return Some(answer),
            Err(failure) => self.failed(failure),
        }
        None
    }

    /// A frame did not go this way; after several in a row, or when there is no way, no further one is to try.
    fn failed(&self, failure: Failure) {
        let n_failures = self.n_failures.fetch_add(1, Ordering::Relaxed) + 1;
        let (reason, is_hopeless) = match failure {
            Failure::Unreachable(reason) => (reason, true),
            Failure::Refused(reason) => (reason, n_failures >= MAX_FAILURES),
        };
        tracing::debug!(reason, "a frame goes through the registry");
        if is_hopeless && self.is_open() {
            tracing::warn!(reason, "bytes go through the registry from here on");
            self.close();
        }
    }

    /// A frame went this way and was what it should be.
    fn moved(&self, frame_bytes: u64) {
        self.n_failures.store(0, Ordering::Relaxed);
        self.moved_bytes.fetch_add(frame_bytes, Ordering::Relaxed);
    }

    async fn exchange(
        &self,
        method: Method,
        url: &str,
        body: Option<Bytes>,
        max_bytes: usize,
    ) -> Result<Bytes, Failure> {
        let url = self.check_url(url)?;
        let host = url.host_str().unwrap_or_default().to_owned();
        let pulse = Pulse::new();
        let exchange = async {
            let mut request = self.client.foreign(method, url);
            if let Some(body) = body {
                request = request.header(CONTENT_LENGTH, body.len()).body(sliced(&body, &pulse));
            }
            let broken = |error: reqwest::Error| {
                let is_unreachable = error.is_connect();
                let reason = format!("store `{host}`: {}", chain(&error.without_url()));
                if is_unreachable {
                    Failure::Unreachable(reason)
                } else {
                    Failure::Refused(reason)
                }
            };
            let mut response = request.send().await.map_err(broken)?;
            let status = response.status();
            if !status.is_success() {
                return Err(Failure::Refused(format!(
                    "store `{host}` answered with status {status}"
                )));
            }
            let mut answer = BytesMut::new();
            while let Some(part) = response.chunk().await.map_err(broken)? {
                pulse.beat();
                if answer.len() + part.len() > max_bytes {
                    return Err(Failure::Refused(format!("store `{host}` sent more than the frame has")));
                }
                answer.extend_from_slice(&part);
            }
            Ok(answer.freeze())
        };
        let limit = STALL_TIMEOUT.min(self.client.options().stall_timeout);
        tokio::select! {
            result = exchange => result,
            () = pulse.stopped(limit) => Err(Failure::Unreachable(format!("store `{host}`: no byte moved for {limit:?}"))),
        }
    }

    /// A URL that can be used; not an open one where the registry itself is spoken to in secret.
    fn check_url(&self, url: &str) -> Result<Url, Failure> {
        let usable = Url::parse(url).ok().filter(|url| match url.scheme() {
            "https" => true,
            "http" => !self.client.url().starts_with("https:"),
            _ => false,
        });
        usable.ok_or_else(|| Failure::Unreachable("the registry gave a URL that is not used".to_owned()))
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

/// Reads the frames of one pull.
#[derive(Debug)]
pub(crate) struct DirectPull {
    way: Way,
    run: RunName,
    known: Mutex<Known>,
}

/// What is known of where frames are.
#[derive(Debug, Default)]
struct Known {
    /// Chunks that will be asked for, so that their locations come with those of others.
    ahead: VecDeque<Digest>,
    /// `None` for one that goes through the registry.
    located: HashMap<Digest, Option<(ChunkLocation, Instant)>>,
}

impl DirectPull {
    pub(crate) fn new(client: &Client, run: &RunName) -> Self {
        Self {
            way: Way::new(client),
            run: run.clone(),
            known: Mutex::default(),
        }
    }

    /// Says which chunks, with their sizes, will be fetched.
    pub(crate) async fn expect(&self, chunks: impl Iterator<Item = (Digest, u64)>) {
        if self.way.is_open() {
            let large = chunks.filter(|(_, size_bytes)| *size_bytes >= MIN_DIRECT_BYTES);
            self.known.lock().await.ahead.extend(large.map(|(digest, _)| digest));
        }
    }

    /// A chunk's frame as the bucket has it, not yet decoded or hashed; `None` when it is to come through the registry.
    pub(crate) async fn get(&self, digest: Digest, size_bytes: u64) -> Option<Bytes> {
        if !self.way.is_open() || size_bytes < MIN_DIRECT_BYTES {
            return None;
        }
        let location = self.location(digest).await?;
        let max_bytes = usize::try_from(location.size_bytes)
            .unwrap_or(usize::MAX)
            .min(MAX_FRAME_BYTES);
        self.way.ask(Method::GET, &location.url, None, max_bytes).await
    }

    /// Says that a frame of so many bytes was what it should be.
    pub(crate) fn was_right(&self, frame_bytes: u64) {
        self.way.moved(frame_bytes);
    }

    /// Says that a frame was not what it should be.
    pub(crate) fn was_wrong(&self, error: &Error) {
        self.way.failed(Failure::Refused(error.to_string()));
    }

    /// Bytes of frames that came straight from the bucket.
    pub(crate) fn moved_bytes(&self) -> u64 {
        self.way.moved_bytes.load(Ordering::Relaxed)
    }

    async fn location(&self, digest: Digest) -> Option<ChunkLocation> {
        // Held while the registry is asked: who comes meanwhile finds the answer.
        let mut known = self.known.lock().await;
        match known.located.get(&digest) {
            Some(Some((location, until))) if *until > Instant::now() => return Some(location.clone()),
            Some(None) => return None,
            _ => {}
        }
        if !self.way.is_open() {
            return None;
        }
        let mut wanted = vec![digest];
        while let Some(next) = known.ahead.pop_front() {
            if next != digest && !known.located.contains_key(&next) {
                wanted.push(next);
            }
            if wanted.len() == LOCATED_AT_ONCE {
                break;
            }
        }
        let asked = Instant::now();
        match self.way.client.locate_chunks(&self.run, wanted.clone()).await {
            Ok(answer) if answer.offered => {
                let until = asked + usable_for(answer.expires_in_s);
                known.located.extend(wanted.into_iter().map(|digest| (digest, None)));
                let located = answer.locations.into_iter();
                known
                    .located
                    .extend(located.map(|location| (location.digest, Some((location, until)))));
            }
            // What the registry refuses, or does not know yet.
            _ => self.way.close(),
        }
        let located = known.located.get(&digest)?.as_ref();
        located.map(|(location, _)| location.clone())
    }
}

/// Writes the frames of one push.
#[derive(Debug)]
pub(crate) struct DirectPush {
    way: Way,
    run: RunName,
    session: Uuid,
    places: Mutex<Vec<(StagingPlace, Instant)>>,
}

impl DirectPush {
    pub(crate) fn new(client: &Client, run: &RunName, session: Uuid) -> Arc<Self> {
        Arc::new(Self {
            way: Way::new(client),
            run: run.clone(),
            session,
            places: Mutex::default(),
        })
    }

    /// Puts a chunk's frame at a staging place and has the registry take it from there; whether it did.
    ///
    /// # Errors
    /// When the registry can't be reached.
    pub(crate) async fn put(&self, digest: Digest, frame: Bytes) -> Result<bool> {
        let frame_bytes = frame.len() as u64;
        if !self.way.is_open() || frame_bytes < MIN_DIRECT_BYTES {
            return Ok(false);
        }
        let Some(place) = self.place().await else {
            return Ok(false);
        };
        if self
            .way
            .ask(Method::PUT, &place.url, Some(frame), MAX_FRAME_BYTES)
            .await
            .is_none()
        {
            return Ok(false);
        }
        fail_point!("push.staged");
        let client = &self.way.client;
        match client.put_staged_chunk(&self.run, digest, self.session, place.id).await {
            Ok(()) => {
                self.way.moved(frame_bytes);
                Ok(true)
            }
            // Sent with the call itself, the frame is taken, or the registry says what is wrong with it. Not found there, it
            // was put somewhere else: the bucket has another name here.
            Err(error) if error.refusal().is_some() => {
                self.way.failed(Failure::Refused(error.to_string()));
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Bytes of frames that went straight to the bucket.
    pub(crate) fn moved_bytes(&self) -> u64 {
        self.way.moved_bytes.load(Ordering::Relaxed)
    }

    async fn place(&self) -> Option<StagingPlace> {
        let mut places = self.places.lock().await;
        places.retain(|(_, until)| *until > Instant::now());
        if places.is_empty() && self.way.is_open() {
            let asked = Instant::now();
            let client = &self.way.client;
            match client.stage_frames(&self.run, self.session, PLACES_AT_ONCE).await {
                Ok(answer) if answer.offered => {
                    let until = asked + usable_for(answer.expires_in_s);
                    places.extend(answer.places.into_iter().map(|place| (place, until)));
                }
                _ => self.way.close(),
            }
        }
        places.pop().map(|(place, _)| place)
    }
}

/// For how long a URL is begun with: with some of its time left for the clock of the bucket.
fn usable_for(expires_in_s: u64) -> Duration {
    let whole = Duration::from_secs(expires_in_s.min(24 * 60 * 60));
    (whole * 9 / 10).max(LEAST_LIFETIME.min(whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(registry: &str) -> Way {
        Way::new(&Client::new(registry, Some("fl_test")).unwrap())
    }

    #[tokio::test]
    async fn a_bucket_that_cannot_be_reached_is_left_and_its_url_is_not_told() {
        let way = way("http://127.0.0.1:1");
        let url = "http://127.0.0.1:1/key?X-Amz-Signature=hush";
        let Err(Failure::Unreachable(reason)) = way.exchange(Method::GET, url, None, 9).await else {
            panic!("nobody listens there");
        };
        assert!(
            reason.contains("127.0.0.1") && !reason.contains("hush") && !reason.contains("key"),
            "{reason}"
        );
        assert!(way.is_open());
        assert_eq!(way.ask(Method::GET, url, None, 9).await, None);
        assert!(!way.is_open());
    }

    #[test]
    fn an_open_url_is_not_used_beside_a_registry_that_is_reached_in_secret() {
        let (open, secret) = (way("http://registry"), way("https://registry"));
        assert!(open.check_url("http://bucket/a").is_ok() && secret.check_url("https://bucket/a").is_ok());
        for url in ["http://bucket/a", "ftp://bucket/a", "file:///a", "bucket"] {
            assert!(secret.check_url(url).is_err(), "{url}");
        }
    }

    #[test]
    fn a_url_is_not_begun_with_at_its_end() {
        assert!(usable_for(900) < Duration::from_secs(900) && usable_for(900) > Duration::from_secs(600));
        assert_eq!(usable_for(1), Duration::from_secs(1));
        assert_eq!(usable_for(0), Duration::ZERO);
        assert!(usable_for(u64::MAX) <= Duration::from_secs(24 * 60 * 60));
    }
}
