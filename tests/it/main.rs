//! Everything with HTTP, driven through the client library against a real server on a free port.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking and says why it skips")]

mod backfill;
mod bad_input;
mod convert;
mod coverage;
mod crash;
mod direct;
mod evaluation;
mod export;
mod lease_faults;
mod library;
mod moving;
mod old_schema;
mod openapi;
mod operator;
mod possession;
mod push;
mod ranks;
mod revision;
mod run;
mod schedule;
mod score;
mod source;
mod stored_only;
mod token;
mod tokenizer;
mod web;
mod worker;
