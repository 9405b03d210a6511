//! Models on candle: `plan` says what is to be computed, `batch` what goes through the model together, `llama` computes it
//! with `attention` and, on the CPU, `host`.

mod attention;
pub mod batch;
pub mod engine;
mod generate;
mod host;
pub mod llama;
pub(crate) mod plan;
