//! The Fineline registry: a content-addressed store for pretraining checkpoints with their scores by step.
//!
//! Data flows one way: `routes` (extract, one call, respond) → `service` (the rules that join database and store) →
//! `db` (all SQL) and `store` (frames over object_store).
//!
//! **Invariant:** no handler touches SQL, no entity leaves `db`, no status code is known outside of `error`.

mod app;
mod auth;
mod error;
mod extract;
mod middleware;
mod recipe;
mod router;

mod db;
mod routes;
mod service;
mod store;
mod web;

pub mod cli;
mod commands;
#[cfg(feature = "embedded-evaluator")]
mod embedded;
pub mod serve;

pub use router::openapi;

#[cfg(test)]
mod tests;
