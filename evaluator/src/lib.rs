//! Fineline's evaluator: a worker that scores checkpoints with candle, by lm-eval's rules.
//!
//! Data flows one way: `worker` (HTTP, through the client) → `task` (documents to requests, answers to metrics) →
//! `engine` (texts to log-likelihoods) → `candle` (tensors).

/// A named point at which a test may kill the process; nothing at all in a build without the feature `fail-points`.
macro_rules! fail_point {
    ($name:literal) => {
        #[cfg(feature = "fail-points")]
        fail::fail_point!($name);
    };
}

mod cache;
pub mod candle;
mod claims;
pub mod cli;
pub mod config;
pub mod demo;
pub mod device;
pub mod engine;
mod evaluation;
mod fetch;
mod fleet;
mod held_lease;
mod loader;
pub mod memory;
mod python;
mod scratch;
mod status;
pub mod stop;
pub mod task;
mod telemetry;
pub mod tokenizer;
pub mod weights;
pub mod worker;
