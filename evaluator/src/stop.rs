//! How a worker is told to end: the first time it drains, the second time it ends at once.
//!
//! A worker that drains claims no more, gives back what it holds for later, and ends behind the task at hand.

use std::future::pending;
use std::time::Duration;

use tokio::sync::watch;

/// Hears how often a worker was told to end.
#[derive(Debug, Clone)]
pub struct Stop(watch::Receiver<usize>);

impl Stop {
    /// Goes by a count of what the worker is told.
    pub fn by(told: watch::Receiver<usize>) -> Self {
        Self(told)
    }

    /// Never comes.
    pub fn never() -> Self {
        Self(watch::channel(0).1)
    }

    /// Ends the worker at once when that resolves, as if it had been told twice.
    pub fn at_once(when: impl Future<Output = ()> + Send + 'static) -> Self {
        let (told, stop) = watch::channel(0);
        tokio::spawn(async move {
            when.await;
            told.send_replace(2);
        });
        Self(stop)
    }

    /// Whether the worker is to drain, or to end at once.
    pub(crate) fn is_asked(&self) -> bool {
        *self.0.borrow() > 0
    }

    /// Waits until it is.
    pub(crate) async fn asked(&self) {
        self.told(1).await;
    }

    /// Waits until the worker is to end at once.
    pub(crate) async fn forced(&self) {
        self.told(2).await;
    }

    /// Waits until it has drained for so long.
    pub(crate) async fn overdue(&self, patience: Duration) {
        self.asked().await;
        tokio::time::sleep(patience).await;
    }

    async fn told(&self, times: usize) {
        let mut told = self.0.clone();
        if told.wait_for(|&n| n >= times).await.is_err() {
            // Nobody is left to tell it.
            pending::<()>().await;
        }
    }
}
