//! How far a push or a pull is, told to whoever asks.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What a push or a pull is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Reading and hashing local files.
    Hashing,
    /// Sending chunks that the registry lacks.
    Sending,
    /// The registry reads the files back; no bytes are counted.
    Verifying,
    /// Receiving chunks.
    Receiving,
}

/// How far a phase is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// The phase; they follow one another.
    pub phase: Phase,
    /// Raw bytes done in this phase.
    pub done_bytes: u64,
    /// Raw bytes of this phase.
    pub total_bytes: u64,
}

/// Counts the bytes of one phase; clones count together.
#[derive(Clone)]
pub(crate) struct Meter {
    report: Arc<dyn Fn(&Progress) + Send + Sync>,
    phase: Phase,
    total_bytes: u64,
    done_bytes: Arc<AtomicU64>,
}

impl Meter {
    /// Begins with a first phase.
    pub(crate) fn new(report: impl Fn(&Progress) + Send + Sync + 'static, phase: Phase, total_bytes: u64) -> Self {
        let meter = Self {
            report: Arc::new(report),
            phase,
            total_bytes,
            done_bytes: Arc::default(),
        };
        meter.add(0);
        meter
    }

    /// Goes on to the next phase.
    pub(crate) fn next(&self, phase: Phase, total_bytes: u64) -> Self {
        let meter = Self {
            report: Arc::clone(&self.report),
            phase,
            total_bytes,
            done_bytes: Arc::default(),
        };
        meter.add(0);
        meter
    }

    /// Counts bytes.
    pub(crate) fn add(&self, n_bytes: u64) {
        let before = self.done_bytes.fetch_add(n_bytes, Ordering::Relaxed);
        (self.report)(&Progress {
            phase: self.phase,
            done_bytes: before + n_bytes,
            total_bytes: self.total_bytes,
        });
    }
}

impl fmt::Debug for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Meter")
            .field("phase", &self.phase)
            .field("total_bytes", &self.total_bytes)
            .field("done_bytes", &self.done_bytes)
            .finish_non_exhaustive()
    }
}
