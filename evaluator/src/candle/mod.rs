//! Models on candle.

pub mod llama;
