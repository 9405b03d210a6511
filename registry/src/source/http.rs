//! Reading from a server over HTTP: a small answer whole, or exactly the bytes of a range, however often the line is cut.
//!
//! **Invariant:** the secret goes to the endpoint's own origin alone; bytes of two versions of a file never come together;
//! an answer that is not the range that was asked for is none.

use std::error::Error;
use std::ops::Range;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use chrono::Utc;
use reqwest::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderMap, HeaderValue, LOCATION, RANGE,
};
use reqwest::{Response, StatusCode, Url};

use super::guard::{Guard, Refusal};
use super::wait::{self, FIRST_WAIT, Passing, Tries};
use super::{AllowedHost, SourceError, told};

const MAX_REDIRECTS: usize = 5;

/// Room that is made before a byte came; more is made as bytes come.
const MAX_ROOM_BYTES: usize = 16 << 20;

/// A server, and what opens it.
#[derive(Debug)]
pub(super) struct Http {
    guard: Guard,
    /// Whose origin gets the secret.
    endpoint: Url,
    authorization: Option<HeaderValue>,
    first_wait: Duration,
}

/// A file as it was listed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Listed<'a> {
    pub(super) size_bytes: u64,
    pub(super) commit: &'a str,
    /// What `X-Linked-Etag` says of it.
    pub(super) etag: &'a str,
}

/// What came of a range so far.
#[derive(Debug, Default)]
struct Got {
    bytes: BytesMut,
    /// Of the answers that they came with.
    etag: Option<String>,
}

enum Failure {
    Final(SourceError),
    Passing(Passing),
}

impl From<SourceError> for Failure {
    fn from(error: SourceError) -> Self {
        Self::Final(error)
    }
}

impl From<Passing> for Failure {
    fn from(passing: Passing) -> Self {
        Self::Passing(passing)
    }
}

impl Http {
    /// Reaches the server of `endpoint`, with the secret as a bearer's token.
    pub(super) fn new(endpoint: &str, secret: Option<&str>, allowed: &[AllowedHost]) -> Result<Self, SourceError> {
        let refused = |what: &str| SourceError::Refused(what.to_owned());
        let endpoint = Url::parse(endpoint)
            .ok()
            .filter(|url| url.query().is_none() && url.fragment().is_none())
            .ok_or_else(|| refused("the endpoint is none: write it as `https://HOST[:PORT][/PATH]`"))?;
        let guard = Guard::new(allowed)?;
        guard.client(&endpoint)?;
        let authorization = |secret: &str| {
            let mut value = HeaderValue::from_str(&format!("Bearer {secret}"))
                .map_err(|_| refused("the secret holds something that no token has: copy it again"))?;
            value.set_sensitive(true);
            Ok::<_, SourceError>(value)
        };
        Ok(Self {
            guard,
            endpoint,
            authorization: secret.map(authorization).transpose()?,
            first_wait: FIRST_WAIT,
        })
    }

    pub(super) fn endpoint(&self) -> &Url {
        &self.endpoint
    }

    /// Waits less between two tries.
    #[cfg(test)]
    pub(super) fn hurry(&mut self) {
        self.first_wait = Duration::from_millis(1);
    }

    /// A whole answer of at most so many bytes, with its headers.
    pub(super) async fn get(&self, url: &Url, max_bytes: usize) -> Result<(Bytes, HeaderMap), SourceError> {
        let mut tries = Tries::new(self.first_wait);
        loop {
            match self.try_get(url, max_bytes).await {
                Ok(answer) => return Ok(answer),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Passing(passing)) => tries.wait(passing).await?,
            }
        }
    }

    async fn try_get(&self, url: &Url, max_bytes: usize) -> Result<(Bytes, HeaderMap), Failure> {
        let mut response = self.send(url, None, None).await?;
        let mut body = BytesMut::new();
        while let Some(part) = response.chunk().await.map_err(|error| cut(url, error))? {
            if body.len() + part.len() > max_bytes {
                let url = shown(url);
                let message = format!("`{url}` answers with more than {max_bytes} bytes, the most that are read");
                return Err(SourceError::Refused(message).into());
            }
            body.extend_from_slice(&part);
        }
        Ok((body.freeze(), response.headers().clone()))
    }

    /// Exactly these bytes of a file. The range is not empty and within it, and no longer than what memory is there for.
    pub(super) async fn read(&self, url: &Url, range: Range<u64>, listed: Listed<'_>) -> Result<Bytes, SourceError> {
        let mut tries = Tries::new(self.first_wait);
        let (mut got, mut most) = (Got::default(), 0);
        loop {
            let passing = match self.read_on(url, &range, listed, &mut got).await {
                Ok(()) => return Ok(got.bytes.freeze()),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Passing(passing)) => passing,
            };
            // A server that begins anew each time makes no progress by that.
            if got.bytes.len() > most {
                most = got.bytes.len();
                tries.progress();
            }
            tries.wait(passing).await?;
        }
    }

    /// One request for what is missing of the range.
    async fn read_on(&self, url: &Url, range: &Range<u64>, listed: Listed<'_>, got: &mut Got) -> Result<(), Failure> {
        let size = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
        let missing = range.start + got.bytes.len() as u64..range.end;
        let mut response = self.send(url, Some(missing.clone()), Some(listed)).await?;
        let headers = response.headers();
        match response.status() {
            StatusCode::PARTIAL_CONTENT => check_part(url, headers, &missing, listed)?,
            // The whole file, as a server without ranges gives it, is right where all of it is wanted.
            StatusCode::OK if *range == (0..listed.size_bytes) => {
                if number(headers, CONTENT_LENGTH.as_str()).is_some_and(|total| total != listed.size_bytes) {
                    return Err(changed(url, "has another size by now").into());
                }
                *got = Got::default();
            }
            _ => {
                let message = format!("`{}` is not given in parts: its server has to know `Range`", shown(url));
                return Err(SourceError::Refused(message).into());
            }
        }
        match (&got.etag, strong_etag(headers)) {
            (Some(before), Some(now)) if *before != now => {
                return Err(changed(url, "was changed while it was read").into());
            }
            (None, now) => got.etag = now,
            _ => {}
        }
        let room = size.min(MAX_ROOM_BYTES).saturating_sub(got.bytes.len());
        got.bytes.reserve(room);
        while got.bytes.len() < size {
            let part = response.chunk().await.map_err(|error| cut(url, error))?;
            let part = part.ok_or_else(|| passing(format!("`{}` ended before all of it came", shown(url))))?;
            if got.bytes.len() + part.len() > size {
                return Err(changed(url, "answers with more bytes than those asked for").into());
            }
            got.bytes.extend_from_slice(&part);
        }
        Ok(())
    }

    /// The answer at the end of all redirects, when it is one.
    async fn send(
        &self,
        url: &Url,
        range: Option<Range<u64>>,
        listed: Option<Listed<'_>>,
    ) -> Result<Response, Failure> {
        let mut at = url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let client = self.guard.client(&at).map_err(SourceError::from)?;
            let mut request = client.get(at.clone()).header(ACCEPT_ENCODING, "identity");
            let is_home = at.origin() == self.endpoint.origin();
            if let Some(authorization) = self.authorization.as_ref().filter(|_| is_home) {
                request = request.header(AUTHORIZATION, authorization);
            }
            if let Some(range) = &range {
                request = request.header(RANGE, format!("bytes={}-{}", range.start, range.end - 1));
            }
            let response = request.send().await.map_err(|error| unreachable(&at, error))?;
            if let Some(listed) = listed.filter(|_| is_home) {
                listed.check(url, response.headers())?;
            }
            match next_hop(&at, &response)? {
                Some(next) => at = next,
                None if response.status().is_success() => return Ok(response),
                None => return Err(self.failed(url, is_home, &response)),
            }
        }
        let message = format!("`{}` sends on more than {MAX_REDIRECTS} times", shown(url));
        Err(SourceError::Refused(message).into())
    }

    /// What an answer means that is none.
    fn failed(&self, url: &Url, is_home: bool, response: &Response) -> Failure {
        let (status, headers) = (response.status(), response.headers());
        let (shown, code) = (shown(url), status.as_u16());
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let reason = text("x-error-code").unwrap_or_default();
        let said = text("x-error-message").map_or_else(String::new, |text| format!(" (`{}`)", told(text)));
        let is_missing = matches!(reason, "RepoNotFound" | "RevisionNotFound" | "EntryNotFound");
        let asked = wait::asked(status, headers, Utc::now());
        let passing = |message| Failure::Passing(Passing { message, asked });
        Failure::Final(match code {
            404 | 410 => SourceError::NotFound(format!(
                "`{shown}` is not there{said}: look at its spelling, and whether the secret is for it"
            )),
            401 | 403 if is_missing => SourceError::NotFound(format!(
                "`{shown}` is not there{said}: look at its spelling, and whether the secret is for it"
            )),
            401 | 403 if !is_home => return passing(format!("the server to which `{shown}` sends on answers {code}")),
            401 | 403 if self.authorization.is_some() => SourceError::Denied(format!(
                "the secret does not open `{shown}`{said}: give one that does, or agree to its terms"
            )),
            401 | 403 => SourceError::Denied(format!("`{shown}` is not public{said}: give the source a secret")),
            408 | 429 | 500 | 502 | 503 | 504 => return passing(format!("`{shown}` answers {code}{said}")),
            416 => SourceError::Changed(format!("`{shown}` is shorter than it was: list the source again")),
            500.. => SourceError::unavailable(format!("`{shown}` answers {code}{said}")),
            _ => SourceError::Refused(format!("`{shown}` answers {code}{said}: this source can't be read so")),
        })
    }
}

impl Listed<'_> {
    /// Holds what the Hub says beside an answer or a redirect against what it said before.
    fn check(&self, url: &Url, headers: &HeaderMap) -> Result<(), SourceError> {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let commit = text("x-repo-commit").is_none_or(|commit| commit == self.commit);
        // Of another length it is another kind of digest.
        let etag = text("x-linked-etag").map(bare_etag);
        let etag = etag.is_none_or(|etag| etag.len() != self.etag.len() || etag == self.etag);
        let size = number(headers, "x-linked-size").is_none_or(|size| size == self.size_bytes);
        if commit && etag && size {
            return Ok(());
        }
        Err(changed(url, "is another than the one that was listed"))
    }
}

/// Where an answer sends on to.
fn next_hop(at: &Url, response: &Response) -> Result<Option<Url>, SourceError> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let Some(location) = response.headers().get(LOCATION) else {
        return Ok(None);
    };
    let next = location.to_str().ok().and_then(|location| at.join(location).ok());
    let shown = shown(at);
    match next {
        None => Err(SourceError::Refused(format!("`{shown}` sends on to what is no URL"))),
        Some(next) if at.scheme() == "https" && next.scheme() != "https" => Err(SourceError::Refused(format!(
            "`{shown}` sends on from `https` to `{}`, which anybody could read and change: it is not followed",
            told(next.scheme())
        ))),
        next => Ok(next),
    }
}

/// Whether an answer is what was asked for, of the file that was listed.
fn check_part(url: &Url, headers: &HeaderMap, asked: &Range<u64>, listed: Listed<'_>) -> Result<(), Failure> {
    let unsaid = || passing(format!("`{}` does not say which of its bytes it sends", shown(url)));
    let (first, last, total) = content_range(headers).ok_or_else(unsaid)?;
    if total != listed.size_bytes {
        let what = format!("has {total} bytes by now, not {}", listed.size_bytes);
        return Err(changed(url, &what).into());
    }
    if (first, last) != (asked.start, asked.end - 1) {
        return Err(changed(url, "answers with other bytes than those asked for").into());
    }
    Ok(())
}

fn changed(url: &Url, what: &str) -> SourceError {
    SourceError::Changed(format!("`{}` {what}: list the source again", shown(url)))
}

/// First and last byte, and the size of the whole.
fn content_range(headers: &HeaderMap) -> Option<(u64, u64, u64)> {
    let text = headers.get(CONTENT_RANGE)?.to_str().ok()?;
    let (range, total) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.trim().split_once('-')?;
    Some((first.parse().ok()?, last.parse().ok()?, total.trim().parse().ok()?))
}

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.trim().parse().ok()
}

fn strong_etag(headers: &HeaderMap) -> Option<String> {
    let etag = headers.get(ETAG)?.to_str().ok()?.trim();
    etag.starts_with('"').then(|| etag.to_owned())
}

fn bare_etag(etag: &str) -> &str {
    etag.trim().trim_start_matches("W/").trim_matches('"')
}

/// A URL as messages have it: a query may be a signature.
fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    told(url.as_str())
}

fn unreachable(url: &Url, error: reqwest::Error) -> Failure {
    if let Some(refusal) = Refusal::behind(&error) {
        return SourceError::from(refusal.clone()).into();
    }
    let host = told(url.host_str().unwrap_or_default());
    passing(format!("`{host}` can't be reached: {}", cause(error))).into()
}

fn cut(url: &Url, error: reqwest::Error) -> Failure {
    passing(format!("`{}` was cut off: {}", shown(url), cause(error))).into()
}

fn passing(message: String) -> Passing {
    Passing { message, asked: None }
}

/// The innermost cause: what stands around it says next to nothing.
fn cause(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut inner: &dyn Error = &error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    told(&inner.to_string())
}
