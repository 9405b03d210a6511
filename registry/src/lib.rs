//! The Fineline registry: a content-addressed store for pretraining checkpoints with their scores by step.
//!
//! Data flows one way: `routes` (extract, one call, respond) → `service` (the rules that join database and store) →
//! `db` (all SQL) and `store` (frames over object_store).
//!
//! **Invariant:** no handler touches SQL, no entity leaves `db`, no status code is known outside of `error`.

/// A named point at which a test may kill the process; nothing at all in a build without the feature `fail-points`.
macro_rules! fail_point {
    ($name:literal) => {
        #[cfg(feature = "fail-points")]
        fail::fail_point!($name);
    };
}

mod app;
mod auth;
mod decoders;
mod error;
mod extract;
mod measure;
mod middleware;
mod public_url;
mod reached;
mod recipe;
mod router;
mod telemetry;

mod db;
mod routes;
mod service;
mod source;
mod store;
mod web;

pub mod cli;
mod commands;
#[cfg(feature = "embedded-evaluator")]
mod embedded;
pub mod serve;

pub use router::openapi;
pub use source::{AllowedHost, Reach};
pub use web::form_paths;

#[cfg(test)]
mod tests;
