//! The door from async code to work that keeps a core or a disk busy.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;

/// Runs `work` on a thread where it may block; a panic in it goes on in the caller.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// Tools with memory of their own that is used again, one for each core; clones share them.
pub(crate) struct Tools<T> {
    idle: Arc<Mutex<Vec<T>>>,
    permits: Arc<Semaphore>,
}

impl<T> Clone for Tools<T> {
    fn clone(&self) -> Self {
        Self {
            idle: Arc::clone(&self.idle),
            permits: Arc::clone(&self.permits),
        }
    }
}

impl<T> fmt::Debug for Tools<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tools")
    }
}

impl<T: Default + Send + 'static> Tools<T> {
    pub(crate) fn new() -> Self {
        let n_cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            idle: Arc::default(),
            permits: Arc::new(Semaphore::new(n_cores)),
        }
    }

    /// Does `work` with a tool as soon as one is free.
    pub(crate) async fn work<R: Send + 'static>(&self, work: impl FnOnce(&mut T) -> R + Send + 'static) -> R {
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        let permit = permit.expect("the semaphore is never closed");
        let idle = Arc::clone(&self.idle);
        blocking(move || {
            let taken = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let mut tool = taken.unwrap_or_default();
            let result = work(&mut tool);
            idle.lock().unwrap_or_else(PoisonError::into_inner).push(tool);
            // Kept by the work itself: who waited for it may have gone away.
            drop(permit);
            result
        })
        .await
    }
}
