//! The rules that join database and store, one verb or noun a file. No axum types here.

pub(crate) mod backfill;
pub(crate) mod checkpoint;
pub(crate) mod chunk;
pub(crate) mod commit;
pub(crate) mod content;
pub(crate) mod enqueue;
pub(crate) mod evaluation;
pub(crate) mod examine;
pub(crate) mod fsck;
pub(crate) mod join;
pub(crate) mod lease;
pub(crate) mod model;
pub(crate) mod possession;
pub(crate) mod push_session;
pub(crate) mod ready;
pub(crate) mod run;
pub(crate) mod score;
pub(crate) mod stored_file;
pub(crate) mod suite;
pub(crate) mod sweep;
pub(crate) mod tag;
pub(crate) mod token;
pub(crate) mod tokenizer;
pub(crate) mod verify;
