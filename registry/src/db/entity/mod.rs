//! One module a table; nothing outside of `db` sees a row.

pub(crate) mod binding;
pub(crate) mod checkpoint;
pub(crate) mod chunk;
pub(crate) mod evaluation;
pub(crate) mod event;
pub(crate) mod file;
pub(crate) mod frame;
pub(crate) mod kept_chunk;
pub(crate) mod possession;
pub(crate) mod push_session;
pub(crate) mod push_session_file;
pub(crate) mod release;
pub(crate) mod revision;
pub(crate) mod revision_evaluation;
pub(crate) mod run;
pub(crate) mod sample_log;
pub(crate) mod score;
pub(crate) mod staging;
pub(crate) mod suite;
pub(crate) mod suite_pattern;
pub(crate) mod tag;
pub(crate) mod token;
pub(crate) mod tokenizer;
pub(crate) mod web_session;
pub(crate) mod worker;
