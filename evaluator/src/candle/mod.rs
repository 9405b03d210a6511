//! Models on candle: `encode` makes rows of texts, `plan` says what is to be computed of them, `batch` what goes through the model
//! together, `llama` computes it. On the CPU with `attention` and `host`, which `numbers` lets at tensors where they lie; on a device
//! with `operations`, which are kernels of our own (`cuda`) on what `table` says of a batch and `pool` keeps.

mod attention;
pub mod batch;
#[cfg(feature = "cuda")]
mod cuda;
mod encode;
pub mod engine;
mod generate;
mod host;
pub mod llama;
mod numbers;
mod operations;
pub(crate) mod plan;
mod pool;
mod table;
#[cfg(feature = "cuda")]
pub(crate) use cuda::upload;
