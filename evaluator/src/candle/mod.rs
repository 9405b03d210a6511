//! Models on candle: `plan` says what is to be computed, `batch` what goes through the model together, `llama` computes it
//! with `attention` and, on the CPU, `host`, which `numbers` lets at tensors where they lie.

mod attention;
pub mod batch;
pub mod engine;
mod generate;
mod host;
pub mod llama;
mod numbers;
pub(crate) mod plan;
