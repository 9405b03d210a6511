//! The services against a store in memory and a database in a temporary folder; what needs HTTP stands in the
//! workspace's own tests.

mod content;
mod damage;
#[path = "../../../tests/harness/database.rs"]
#[expect(unreachable_pub, reason = "the integration tests share it")]
mod database;
mod delete;
mod direct;
pub(crate) mod fixture;
mod keep;
mod lease;
mod lease_again;
mod model;
mod possession;
mod push;
mod readiness;
mod refused;
mod schedule;
mod token_use;
mod tokenizer;
mod web_session;
