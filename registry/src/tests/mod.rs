//! The services against a store in memory and a database in a temporary folder; what needs HTTP stands in the
//! workspace's own tests.

mod content;
mod fixture;
mod lease;
mod possession;
mod push;
mod refused;
mod tokenizer;
