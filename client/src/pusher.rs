//! Pushing from inside of a training loop: the step's call returns at once, a task behind it does the work.
//!
//! **Invariant:** a call never waits for the registry; steps are pushed one after another, in the order of the calls.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use fineline_api::RunName;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::error::Error;
use crate::http::Client;
use crate::push::{PushOptions, PushOutcome, push};

/// How a pusher holds back.
#[derive(Debug, Clone)]
pub struct PusherOptions {
    /// Steps that may wait behind the one that is being pushed. When so many wait, a further one is refused at once
    /// ([`PusherError::Full`]): the loop decides whether to skip the step or to call again later.
    pub queue: usize,
}

impl Default for PusherOptions {
    fn default() -> Self {
        Self { queue: 4 }
    }
}

/// What a training loop has to know of its pushes.
#[derive(Debug, thiserror::Error)]
pub enum PusherError {
    /// So many steps wait already that this one was not taken.
    #[error("step `{step}` was not taken: `{queue}` steps wait to be pushed")]
    Full {
        /// The step.
        step: u64,
        /// The queue's length.
        queue: usize,
    },
    /// An earlier step could not be pushed. Told once; the step of the call that tells it was not taken.
    #[error("step `{step}` could not be pushed")]
    Failed {
        /// The step that failed.
        step: u64,
        /// Why.
        source: Error,
    },
    /// The task that pushes is gone: its runtime was shut down, or it panicked.
    #[error("the task that pushes is gone: keep its runtime until `finish`")]
    Gone,
}

struct Job {
    step: u64,
    dir: PathBuf,
    options: PushOptions,
}

/// Pushes steps of one run in the background.
///
/// A folder has to stay as it is until its step was pushed; `finish` tells when all were. A pusher that is dropped
/// instead still pushes what was queued, as long as its runtime lives, and tells nobody.
#[derive(Debug)]
pub struct Pusher {
    jobs: mpsc::Sender<Job>,
    queue: usize,
    failures: Failures,
    task: JoinHandle<Vec<PushOutcome>>,
}

/// Errors that nobody was told yet, oldest first.
type Failures = Arc<Mutex<Vec<PusherError>>>;

impl Pusher {
    /// A pusher for `run`; its task lives on the runtime that this is called in.
    ///
    /// # Panics
    /// Outside of a tokio runtime, or when `options.queue` is 0.
    pub fn new(client: Client, run: RunName, options: &PusherOptions) -> Self {
        let (jobs, waiting) = mpsc::channel(options.queue);
        let failures = Failures::default();
        let task = tokio::spawn(work(client, run, waiting, Arc::clone(&failures)));
        Self {
            jobs,
            queue: options.queue,
            failures,
            task,
        }
    }

    /// Queues the push of `dir` as `step` and returns at once; needs no runtime and no `await`.
    ///
    /// # Errors
    /// [`PusherError::Failed`] when an earlier step failed, [`PusherError::Full`] when too many wait; in both cases
    /// this step was not taken, and calling again takes it.
    pub fn push(&self, step: u64, dir: impl AsRef<Path>, options: PushOptions) -> Result<(), PusherError> {
        if let Some(failure) = self.next_failure() {
            return Err(failure);
        }
        let dir = dir.as_ref().to_owned();
        self.jobs
            .try_send(Job { step, dir, options })
            .map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => PusherError::Full {
                    step,
                    queue: self.queue,
                },
                mpsc::error::TrySendError::Closed(_) => PusherError::Gone,
            })
    }

    /// Waits until all queued steps were pushed and gives what each push did, in the order of the calls.
    ///
    /// # Errors
    /// The first failure that no call of `push` has told.
    pub async fn finish(self) -> Result<Vec<PushOutcome>, PusherError> {
        let Self {
            jobs, failures, task, ..
        } = self;
        drop(jobs);
        let outcomes = task.await.map_err(|_| PusherError::Gone)?;
        match take_first(&failures) {
            Some(failure) => Err(failure),
            None => Ok(outcomes),
        }
    }

    fn next_failure(&self) -> Option<PusherError> {
        take_first(&self.failures)
    }
}

fn take_first(failures: &Failures) -> Option<PusherError> {
    let mut failures = failures.lock().unwrap_or_else(PoisonError::into_inner);
    (!failures.is_empty()).then(|| failures.remove(0))
}

async fn work(client: Client, run: RunName, mut jobs: mpsc::Receiver<Job>, failures: Failures) -> Vec<PushOutcome> {
    let mut outcomes = Vec::new();
    while let Some(Job { step, dir, options }) = jobs.recv().await {
        match push(&client, &run, step, &dir, &options, |_| {}).await {
            Ok(outcome) => outcomes.push(outcome),
            Err(source) => {
                tracing::warn!(step, error = %source, "a step could not be pushed");
                let failure = PusherError::Failed { step, source };
                failures.lock().unwrap_or_else(PoisonError::into_inner).push(failure);
            }
        }
    }
    outcomes
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use axum::Router;

    use super::*;
    use crate::http::ClientOptions;

    /// A server that takes every request and never answers.
    async fn stalling_server() -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let app = Router::new().fallback(async || std::future::pending::<()>().await);
        tokio::spawn(async move { axum::serve(listener, app).await });
        url
    }

    fn impatient(url: &str, stall_timeout: Duration) -> Client {
        let options = ClientOptions {
            stall_timeout,
            retry_for: Duration::ZERO,
            ..ClientOptions::default()
        };
        Client::with_options(url, None, options).unwrap()
    }

    fn step_folder() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.json"), "{}").unwrap();
        dir
    }

    #[tokio::test]
    async fn a_step_returns_at_once_from_a_server_that_stalls_and_a_full_queue_says_so() {
        // Given a server that never answers and a queue of two
        let (url, dir) = (stalling_server().await, step_folder());
        let client = impatient(&url, Duration::from_secs(600));
        let pusher = Pusher::new(client, "lab/a".parse().unwrap(), &PusherOptions { queue: 2 });
        // When steps are pushed
        let started = Instant::now();
        let results: Vec<_> = (0..4)
            .map(|step| pusher.push(step, dir.path(), PushOptions::default()))
            .collect();
        // Then no call waits, and what does not fit is told.
        assert!(started.elapsed() < Duration::from_millis(50), "{:?}", started.elapsed());
        assert!(results[0].is_ok() && results[1].is_ok());
        assert!(
            matches!(results[3], Err(PusherError::Full { step: 3, queue: 2 })),
            "{:?}",
            results[3]
        );
    }

    #[tokio::test]
    async fn an_error_surfaces_at_the_next_call_once_and_at_the_end() {
        let (url, dir) = (stalling_server().await, step_folder());
        let client = impatient(&url, Duration::from_millis(100));
        let pusher = Pusher::new(client, "lab/a".parse().unwrap(), &PusherOptions::default());
        pusher.push(7, dir.path(), PushOptions::default()).unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while pusher.failures.lock().unwrap().is_empty() {
            assert!(Instant::now() < deadline, "the stalled push never failed");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let told = pusher.push(8, dir.path(), PushOptions::default());
        assert!(
            matches!(
                told,
                Err(PusherError::Failed {
                    step: 7,
                    source: Error::Stalled { .. }
                })
            ),
            "{told:?}"
        );
        pusher.push(8, dir.path(), PushOptions::default()).unwrap();
        let end = pusher.finish().await;
        assert!(matches!(end, Err(PusherError::Failed { step: 8, .. })), "{end:?}");
    }
}
