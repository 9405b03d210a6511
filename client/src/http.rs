//! The connection to a registry: who is asked, with which token, and the one [`Client::send`] that everything goes
//! through, with retry and the decoding of errors.
//!
//! The calls themselves stand in one file per noun; each is named as the server's operation.
//!
//! **Invariant:** a call is sent again only where that is safe ([`Repeat`]), and never for longer than
//! [`ClientOptions::retry_for`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fineline_api::evaluation::LEASE_HEADER;
use fineline_format::{Buffers, MAX_CHUNK_BYTES};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, LOCATION, RETRY_AFTER};
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};
use serde::de::DeserializeOwned;

use crate::call::{Call, Repeat};
use crate::direct::Direct;
use crate::error::{Error, Refusal, Result};
use crate::pulse::Pulse;

/// Frames and chunks of the largest size whose memory is kept for the next ones, those in use among them.
const N_BUFFERS: usize = 6;
/// The largest answer that is read into memory: a suite's file, a long recipe.
const MAX_ANSWER_BYTES: usize = 256 << 20;
/// The first wait before a retry; each further one doubles it.
const FIRST_BACK_OFF: Duration = Duration::from_millis(100);
const MAX_BACK_OFF: Duration = Duration::from_secs(10);
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

/// How patient a client is.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// Until a connection stands.
    pub connect_timeout: Duration,
    /// Until a transfer in which no byte moves is given up. There is no limit on the whole of a request.
    pub stall_timeout: Duration,
    /// For how long a call that fails in passing is sent again.
    pub retry_for: Duration,
    /// Whether frames go straight to and from the registry's bucket, where it offers that.
    pub direct: Direct,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            stall_timeout: Duration::from_secs(60),
            retry_for: Duration::from_secs(30),
            direct: Direct::default(),
        }
    }
}

/// A client of one registry. Cheap to clone; clones share the connections.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    base: Arc<Url>,
    options: Arc<ClientOptions>,
    /// The memory of frames and chunks.
    buffers: Buffers,
    // The values are marked sensitive, so that `Debug` does not show them.
    authorization: Option<HeaderValue>,
    lease: Option<HeaderValue>,
}

/// A whole answer that is no error.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) url: String,
}

/// A try that failed, and whether the server can have acted on it.
struct Failure {
    error: Error,
    retry: Option<Repeat>,
    after: Option<Duration>,
}

impl Client {
    /// A client of the registry at `url` (`https://registry.lab:8080`, a path before the API is kept).
    ///
    /// # Errors
    /// [`Error::Configuration`] when the URL or the token can't be one.
    pub fn new(url: &str, token: Option<&str>) -> Result<Self> {
        Self::with_options(url, token, ClientOptions::default())
    }

    /// As [`Client::new`], with its own patience.
    ///
    /// # Errors
    /// [`Error::Configuration`] when the URL or the token can't be one.
    pub fn with_options(url: &str, token: Option<&str>, options: ClientOptions) -> Result<Self> {
        let base = check_url(url)?;
        let http = reqwest::Client::builder()
            .connect_timeout(options.connect_timeout)
            .redirect(reqwest::redirect::Policy::none())
            // A connection for each transfer: what a slow one holds up is itself.
            .http1_only()
            .user_agent(concat!("fineline/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| Error::Configuration(format!("can't make an HTTP client: {error}")))?;
        let authorization = token
            .map(|token| secret(&format!("Bearer {token}"), "token"))
            .transpose()?;
        Ok(Self {
            http,
            base: Arc::new(base),
            options: Arc::new(options),
            buffers: Buffers::new(N_BUFFERS),
            authorization,
            lease: None,
        })
    }

    /// The same client under a worker's lease: its calls carry the lease's token.
    ///
    /// # Errors
    /// [`Error::Configuration`] when the token can't be one.
    pub fn with_lease(&self, lease_token: &str) -> Result<Self> {
        Ok(Self {
            lease: Some(secret(lease_token, "lease")?),
            ..self.clone()
        })
    }

    /// The registry's URL.
    pub fn url(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    pub(crate) fn options(&self) -> &ClientOptions {
        &self.options
    }

    /// A request to another host than the registry: it has neither token nor lease.
    pub(crate) fn foreign(&self, method: Method, url: Url) -> RequestBuilder {
        self.http.request(method, url)
    }

    pub(crate) fn buffers(&self) -> &Buffers {
        &self.buffers
    }

    /// Sends a call and reads its answer as JSON.
    pub(crate) async fn json<T: DeserializeOwned>(&self, call: Call) -> Result<T> {
        let answer = self.send(&call).await?;
        serde_json::from_slice(&answer.body).map_err(|error| Error::Protocol {
            url: answer.url,
            reason: error.to_string(),
        })
    }

    /// Sends a call whose answer says nothing more.
    pub(crate) async fn done(&self, call: Call) -> Result<()> {
        self.send(&call).await.map(drop)
    }

    /// Sends a call, again where that helps and is safe, and reads the whole answer.
    pub(crate) async fn send(&self, call: &Call) -> Result<Answer> {
        let started = Instant::now();
        let mut attempt = 0;
        loop {
            let failure = match self.attempt(call).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            let safe = failure
                .retry
                .is_some_and(|acted| acted == Repeat::Unsent || call.repeat == acted);
            let delay = failure.after.unwrap_or_else(|| back_off(attempt));
            if !safe || started.elapsed() + delay > self.options.retry_for {
                return Err(failure.error);
            }
            tracing::warn!(error = %failure.error, attempt, delay_ms = delay.as_millis(), "a call failed and is sent again");
            tokio::time::sleep(delay).await;
            attempt += 1;
        }
    }

    async fn attempt(&self, call: &Call) -> Result<Answer, Failure> {
        let mut url = Url::clone(&self.base);
        url.set_path(&format!("{}{}", self.base.path().trim_end_matches('/'), call.path));
        let shown = url.to_string();
        if !call.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&call.query);
        }
        let pulse = Pulse::new();
        let limit = self.options.stall_timeout + call.patience;
        let stalled = || Failure {
            error: Error::Stalled {
                url: shown.clone(),
                waited: limit,
            },
            retry: Some(Repeat::Always),
            after: None,
        };
        tokio::select! {
            result = self.exchange(call, url, &shown, &pulse) => result,
            () = pulse.stopped(limit) => Err(stalled()),
        }
    }

    async fn exchange(&self, call: &Call, url: Url, shown: &str, pulse: &Pulse) -> Result<Answer, Failure> {
        let mut request = call.fill(self.http.request(call.method.clone(), url), pulse);
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        if let Some(lease) = &self.lease {
            request = request.header(HeaderName::from_static(LEASE_HEADER), lease);
        }
        let broken = |error: reqwest::Error| Failure {
            retry: Some(if error.is_connect() {
                Repeat::Unsent
            } else {
                Repeat::Always
            })
            .filter(|_| !error.is_builder()),
            error: Error::Connection {
                url: shown.to_owned(),
                source: error.without_url(),
            },
            after: None,
        };
        let mut response = request.send().await.map_err(broken)?;
        pulse.beat();
        let said = response.content_length().and_then(|said| usize::try_from(said).ok());
        let mut body = self.buffers.empty(said.unwrap_or(0).min(MAX_CHUNK_BYTES));
        while let Some(part) = response.chunk().await.map_err(broken)? {
            pulse.beat();
            if body.len() + part.len() > MAX_ANSWER_BYTES {
                return Err(not_ours(shown, format!("it is longer than {MAX_ANSWER_BYTES} bytes")));
            }
            body.extend_from_slice(&part);
        }
        judge(&response, shown, Bytes::from_owner(body))
    }
}

/// Takes an answer as what was asked for, or as a failure.
fn judge(response: &Response, shown: &str, body: Bytes) -> Result<Answer, Failure> {
    let status = response.status();
    if status.is_success() {
        return Ok(Answer {
            headers: response.headers().clone(),
            body,
            url: shown.to_owned(),
        });
    }
    if status.is_redirection() {
        let to = response.headers().get(LOCATION).and_then(|to| to.to_str().ok());
        let to = to.map_or_else(String::new, |to| {
            format!(" to `{}`", to.split('?').next().unwrap_or_default())
        });
        return Err(not_ours(shown, format!("it redirects{to}: use the registry's own URL")));
    }
    let after = response
        .headers()
        .get(RETRY_AFTER)
        .and_then(|after| after.to_str().ok()?.parse().ok());
    Err(Failure {
        error: Error::refused(Refusal::read(status, shown.to_owned(), &body)),
        retry: match status {
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => Some(Repeat::Unsent),
            StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT => Some(Repeat::Always),
            _ => None,
        },
        after: after.map(|seconds| Duration::from_secs(seconds).min(MAX_RETRY_AFTER)),
    })
}

fn not_ours(shown: &str, reason: String) -> Failure {
    Failure {
        error: Error::Protocol {
            url: shown.to_owned(),
            reason,
        },
        retry: None,
        after: None,
    }
}

/// Exponential, with half of it left to chance so that many clients do not come back at once.
fn back_off(attempt: u32) -> Duration {
    let whole = FIRST_BACK_OFF
        .saturating_mul(2_u32.saturating_pow(attempt))
        .min(MAX_BACK_OFF);
    whole.mul_f64(rand::random_range(0.5..=1.0))
}

fn check_url(url: &str) -> Result<Url> {
    let refused = |reason: &str| {
        Error::Configuration(format!(
            "url `{}` is refused: {reason}",
            url.split(['?', '#']).next().unwrap_or_default()
        ))
    };
    let base = Url::parse(url).map_err(|error| refused(&format!("{error}; write it as `http://HOST:PORT`")))?;
    if !matches!(base.scheme(), "http" | "https") || base.host_str().is_none() {
        return Err(refused("write it as `http://HOST:PORT` or `https://HOST`"));
    }
    if !base.username().is_empty() || base.password().is_some() {
        // Not shown: it holds a secret.
        return Err(Error::Configuration(
            "the url holds a user or a password: give a token instead".to_owned(),
        ));
    }
    if base.query().is_some() || base.fragment().is_some() {
        return Err(refused("it has a query or a fragment: leave them out"));
    }
    Ok(base)
}

fn secret(text: &str, what: &str) -> Result<HeaderValue> {
    let mut value = HeaderValue::from_str(text).map_err(|_| {
        Error::Configuration(format!(
            "the {what} holds something that no {what} has: copy it again, without line breaks"
        ))
    })?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_that_cannot_work_is_refused_and_secrets_are_not_shown() {
        for bad in [
            "registry",
            "ftp://x",
            "http://x/?a=1",
            "http://user:pass@x",
            "localhost:8080",
        ] {
            let error = Client::new(bad, None).unwrap_err().to_string();
            assert!(!error.contains("pass@") && !error.contains("a=1"), "{error}");
        }
        assert!(Client::new("http://x", Some("two\nlines")).is_err());
        let client = Client::new("http://x:1/sub/", Some("fl_secret"))
            .unwrap()
            .with_lease("lease_secret")
            .unwrap();
        assert_eq!(client.url(), "http://x:1/sub");
        assert!(!format!("{client:?}").contains("secret"), "{client:?}");
    }

    #[test]
    fn back_off_grows_and_is_bounded() {
        assert!(back_off(0) <= FIRST_BACK_OFF);
        assert!(back_off(4) > FIRST_BACK_OFF);
        assert!(back_off(u32::MAX) <= MAX_BACK_OFF);
    }
}
