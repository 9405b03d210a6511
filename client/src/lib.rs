//! The client of a Fineline registry: push the steps of a training run, pull them back, read their scores.
//!
//! [`Client`] has one method for each operation of the REST API, named as there. Above them stand the verbs that take
//! several calls: [`push`], [`pull`], [`wait`], [`apply_suite`], [`export_results`], and [`Pusher`] for training loops. [`compare_results`] compares
//! two sets of lm-eval's output and needs no registry.
//!
//! ```no_run
//! use fineline_client::{Client, PushOptions, Pusher, PusherError, PusherOptions};
//!
//! # fn train() -> f64 { 0.0 }
//! # fn save(_: &std::path::Path) {}
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::new("http://127.0.0.1:8080", std::env::var("FINELINE_TOKEN").ok().as_deref())?;
//! let pusher = Pusher::new(client, "lab/tiny-llama".parse()?, &PusherOptions::default());
//! for step in 1..=1000 {
//!     let loss = train();
//!     if step % 100 == 0 {
//!         let dir = std::path::PathBuf::from(format!("checkpoints/step-{step}"));
//!         save(&dir);
//!         let options = PushOptions { tokens: Some(step * 2048), loss: Some(loss), ..PushOptions::default() };
//!         // Returns at once. A step that is not taken is still on disk, and can be pushed at any time.
//!         match pusher.push(step, &dir, options) {
//!             Ok(()) => {}
//!             Err(error @ (PusherError::Full { .. } | PusherError::Failed { .. })) => eprintln!("{error}"),
//!             Err(error) => return Err(error.into()),
//!         }
//!     }
//! }
//! for pushed in pusher.finish().await? {
//!     println!("step {} is {}, {} bytes were sent", pushed.step, pushed.digest, pushed.sent_bytes);
//! }
//! # Ok(()) }
//! ```
//!
//! The command line `fineline` is the same crate's binary and uses nothing but what is public here.
//!
//! **Invariant:** nothing of the server's own crates is needed to speak to it.

extern crate self as fineline_client;

/// A named point at which a test may kill the process; nothing at all in a build without the feature `fail-points`.
macro_rules! fail_point {
    ($name:literal) => {
        #[cfg(feature = "fail-points")]
        fail::fail_point!($name);
    };
}

mod http;

#[doc(hidden)]
pub mod cli;

mod checkpoint;
mod chunk;
mod deletion;
mod evaluation;
mod event;
mod push_session;
mod run;
mod score;
mod source;
mod suite;
mod tag;
mod token;

mod data_source;
mod lm_eval;
mod parquet_file;
mod pull;
mod push;
mod pusher;
mod ranks;
mod suite_file;
mod task_files;
mod wait;

mod blocking;
mod call;
mod convert;
mod direct;
mod error;
mod folder;
mod page;
mod partial;
mod pass;
mod plan;
mod progress;
mod pulse;
mod receive;
mod remote_file;
mod send;
mod trainer_state;

pub use checkpoint::{CheckpointQuery, FileBytes, StateFilter};
pub use data_source::{DataOrigin, DataSource, HubOptions};
pub use deletion::DeleteOptions;
pub use direct::Direct;
pub use error::{Error, Refusal, Result};
pub use evaluation::EvaluationQuery;
pub use http::{Client, ClientOptions};
pub use lm_eval::{
    CompareError, CompareOptions, Comparison, DEFAULT_TOLERANCE, Differences, ExportOptions, ExportOutcome,
    MetricComparison, OWN_KEY, ScoreComparison, TaskComparison, compare_results, export_results,
};
pub use page::all_pages;
pub use progress::{Phase, Progress};
pub use pull::{PullOptions, PullOutcome, WeightsForm, pull};
pub use push::{PushOptions, PushOutcome, push};
pub use pusher::{Pusher, PusherError, PusherOptions};
pub use ranks::{PartOutcome, abort_parts, commit_parts, push_part};
pub use score::ScoreQuery;
pub use suite_file::{BindOptions, LoadedSuite, SuiteOptions, apply_suite, plan_suite};
pub use wait::{WaitOutcome, wait};
