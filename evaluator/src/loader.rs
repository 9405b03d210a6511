//! Engines, one at a time.
//!
//! **Invariant:** no two models are in memory at once. Work that nobody waits for any more goes on until its engine looks up,
//! or until it is loaded: whoever is next waits for that, and only then is it asked how much memory there is.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use fineline_format::suite::EvalDtype;
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::engine::{Engine, EngineOptions};
use crate::fetch::Fetched;
use crate::worker::{LoadEngine, WorkerOptions};

/// Makes a worker's engines.
pub(crate) struct Loader {
    load: LoadEngine,
    alone: Arc<Mutex<()>>,
}

/// An engine, and the right to be the only one.
pub(crate) struct Loaded {
    // Dropped first.
    pub(crate) engine: Box<dyn Engine>,
    /// How long it took to fetch and load, but for waiting.
    pub(crate) preparation: Duration,
    _alone: OwnedMutexGuard<()>,
}

impl Loader {
    pub(crate) fn new(load: LoadEngine) -> Self {
        let alone = Arc::default();
        Self { load, alone }
    }

    /// Loads a checkpoint, which its engine holds in memory, once there is no other.
    ///
    /// # Errors
    /// What the model stood in the way with.
    pub(crate) async fn load(&self, options: &WorkerOptions, dtype: EvalDtype, fetched: Fetched) -> Result<Loaded> {
        let options = EngineOptions {
            dtype,
            max_batch_tokens: options.batch_tokens(),
            ..EngineOptions::default()
        };
        let alone = Arc::clone(&self.alone).lock_owned().await;
        let load = Arc::clone(&self.load);
        let load = move || {
            let begun = Instant::now();
            let engine = load(fetched.path(), options)?;
            Ok(Loaded {
                engine,
                preparation: fetched.took + begun.elapsed(),
                _alone: alone,
            })
        };
        tokio::task::spawn_blocking(load).await.context("the engine panicked")?
    }
}
