//! Trying again: how often, and when.

use std::time::Duration;

use chrono::{DateTime, Utc};
use rand::RngExt;
use reqwest::StatusCode;
use reqwest::header::{HeaderMap, RETRY_AFTER};

use super::SourceError;

/// The tries that may bring nothing, one after the other.
const N_TRIES: u32 = 6;

/// The wait after the first of them; each further one is twice as long.
pub(super) const FIRST_WAIT: Duration = Duration::from_millis(500);

/// The longest wait that a server may ask for while its caller stands there.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// The longest that a server is believed to want at all.
const MAX_ASKED_S: u64 = 24 * 60 * 60;

/// Something that may go well a moment later.
#[derive(Debug)]
pub(super) struct Passing {
    pub(super) message: String,
    /// How long the server wants to be left alone.
    pub(super) asked: Option<Duration>,
}

/// How often something was tried.
#[derive(Debug)]
pub(super) struct Tries {
    first_wait: Duration,
    n_vain: u32,
}

impl Tries {
    pub(super) fn new(first_wait: Duration) -> Self {
        Self { first_wait, n_vain: 0 }
    }

    /// The last try brought something: what comes is counted anew.
    pub(super) fn progress(&mut self) {
        self.n_vain = 0;
    }

    /// Waits for the next try.
    ///
    /// # Errors
    /// [`SourceError::Unavailable`] when there is none, or the server wants a longer wait.
    pub(super) async fn wait(&mut self, passing: Passing) -> Result<(), SourceError> {
        self.n_vain += 1;
        let Passing { message, asked } = passing;
        if self.n_vain >= N_TRIES || asked.is_some_and(|asked| asked > MAX_WAIT) {
            return Err(SourceError::Unavailable {
                message,
                retry_after: asked,
            });
        }
        let full = self.first_wait * 2u32.pow(self.n_vain - 1);
        // Many readers that were cut off together do not come back together.
        let wait = full.mul_f64(rand::rng().random_range(0.5..1.0));
        tracing::debug!(message, "a source is asked again");
        tokio::time::sleep(wait.max(asked.unwrap_or_default())).await;
        Ok(())
    }
}

/// How long a server wants to be left alone: `Retry-After`, in seconds or as a date, or else a `RateLimit` that is used up.
pub(super) fn asked(status: StatusCode, headers: &HeaderMap, now: DateTime<Utc>) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let after = text(RETRY_AFTER.as_str()).and_then(|text| seconds(text.trim(), now));
    let limit = || {
        let limits = text("ratelimit").filter(|_| status == StatusCode::TOO_MANY_REQUESTS)?;
        limits.split(',').filter_map(until_reset).max()
    };
    let asked = after.or_else(limit)?;
    Some(Duration::from_secs(asked.min(MAX_ASKED_S)))
}

fn seconds(text: &str, now: DateTime<Utc>) -> Option<u64> {
    if let Ok(seconds) = text.parse() {
        return Some(seconds);
    }
    let date = DateTime::parse_from_rfc2822(text).ok()?;
    Some(u64::try_from((date.with_timezone(&Utc) - now).num_seconds()).unwrap_or(0))
}

/// The seconds of a limit `"NAME";r=REMAINING;t=SECONDS` of which nothing remains.
fn until_reset(limit: &str) -> Option<u64> {
    let number = |name: &str| {
        let mut values = limit.split(';').filter_map(|part| part.trim().strip_prefix(name));
        values.next_back()?.parse::<u64>().ok()
    };
    (number("r=")? == 0).then(|| number("t="))?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked_by(name: &'static str, value: &str) -> Option<u64> {
        let now = "2026-08-20T12:00:00Z".parse().unwrap();
        let headers = HeaderMap::from_iter([(name.parse().unwrap(), value.parse().unwrap())]);
        asked(StatusCode::TOO_MANY_REQUESTS, &headers, now).map(|asked| asked.as_secs())
    }

    #[test]
    fn a_server_says_how_long_in_each_of_its_ways() {
        assert_eq!(asked_by("retry-after", "7"), Some(7));
        assert_eq!(asked_by("retry-after", "Thu, 20 Aug 2026 12:01:30 GMT"), Some(90));
        assert_eq!(asked_by("retry-after", "Thu, 20 Aug 2026 11:00:00 GMT"), Some(0));
        assert_eq!(asked_by("retry-after", "99999999999999"), Some(MAX_ASKED_S));
        assert_eq!(asked_by("retry-after", "soon"), None);
        assert_eq!(asked_by("ratelimit", r#""api";r=0;t=55"#), Some(55));
        assert_eq!(asked_by("ratelimit", r#""pages";r=9;t=80, "api"; r=0; t=55"#), Some(55));
        assert_eq!(asked_by("ratelimit", r#""api";r=3;t=55"#), None);
    }

    #[tokio::test]
    async fn tries_without_progress_end_and_a_long_wait_is_the_callers() {
        let passing = |asked| Passing {
            message: "cut".to_owned(),
            asked,
        };
        let mut tries = Tries::new(Duration::ZERO);
        for _ in 0..3 {
            for _ in 1..N_TRIES {
                tries.wait(passing(None)).await.unwrap();
            }
            tries.progress();
        }
        let long = Duration::from_secs(61);
        let error = tries.wait(passing(Some(long))).await.unwrap_err();
        let expected = |retry_after| SourceError::Unavailable {
            message: "cut".to_owned(),
            retry_after,
        };
        assert_eq!(error, expected(Some(long)));
        for _ in 2..N_TRIES {
            tries.wait(passing(None)).await.unwrap();
        }
        assert_eq!(tries.wait(passing(None)).await, Err(expected(None)));
    }
}
