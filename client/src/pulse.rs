//! Tells a slow transfer from a dead one.
//!
//! A limit on the whole of a request would end a large chunk on a slow line, and the transport's own limit between
//! reads also runs while a body is still going out. So both directions move one pulse, and only its silence counts.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// When a transfer last moved; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Pulse(Arc<Mutex<Instant>>);

impl Pulse {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    /// Says that something moved.
    pub(crate) fn beat(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn last(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns once nothing has moved for `limit`.
    pub(crate) async fn stopped(&self, limit: Duration) {
        loop {
            let due = self.last() + limit;
            if due <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(due).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_silence_counts() {
        // Given something that beats for longer than the limit, and then no more
        let (pulse, limit, beats) = (Pulse::new(), Duration::from_millis(500), 12);
        let start = Instant::now();
        let beating = async {
            for _ in 0..beats {
                tokio::time::sleep(limit / 10).await;
                pulse.beat();
            }
            std::future::pending::<()>().await;
        };
        // Then it has stopped a whole limit after the last beat.
        tokio::select! { () = pulse.stopped(limit) => {}, () = beating => {} }
        assert!(start.elapsed() >= limit / 10 * beats + limit, "{:?}", start.elapsed());
    }
}
