//! Decoding and hashing frames off the async threads, as many at once as there are cores, whatever the number of requests.
//!
//! **Invariant:** a decoder's memory belongs to one piece of work at a time, and there are no more decoders than
//! permits. A request that goes away meanwhile gives its permit back only when its work has ended.

use std::sync::{Arc, Mutex, PoisonError};

use fineline_format::frame::Decoder;
use tokio::sync::Semaphore;
use tokio::task::JoinError;

/// Fewer than this and a slow disk under one of them would hold up all others.
const MIN_DECODERS: usize = 2;

/// The decoders of a server; clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Decoders {
    permits: Arc<Semaphore>,
    idle: Arc<Mutex<Vec<Decoder>>>,
}

impl Decoders {
    /// As many as there are cores.
    pub(crate) fn new() -> Self {
        let n_cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            permits: Arc::new(Semaphore::new(n_cores.max(MIN_DECODERS))),
            idle: Arc::default(),
        }
    }

    /// Does `work` with a decoder as soon as one is free.
    ///
    /// # Errors
    /// When the work panicked, or the runtime shuts down.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Decoder) -> T + Send + 'static,
    ) -> Result<T, JoinError> {
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        let idle = Arc::clone(&self.idle);
        let work = move || {
            let taken = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let mut decoder = taken.unwrap_or_default();
            let result = work(&mut decoder);
            idle.lock().unwrap_or_else(PoisonError::into_inner).push(decoder);
            drop(permit);
            result
        };
        tokio::task::spawn_blocking(work).await
    }
}
