//! The services against a store in memory and a database in a temporary folder; what needs HTTP stands in the
//! workspace's own tests.

mod content;
mod damage;
mod delete;
mod direct;
mod fixture;
mod lease;
mod lease_again;
mod model;
mod possession;
mod push;
mod refused;
mod tokenizer;
mod web_session;
