//! Fineline's evaluator: a worker that scores checkpoints with candle, by lm-eval's rules.
//!
//! Data flows one way: `worker` (HTTP, through the client) → `task` (documents to requests, answers to metrics) →
//! `engine` (texts to log-likelihoods) → `candle` (tensors).

pub mod candle;
pub mod config;
pub mod demo;
pub mod engine;
pub mod task;
pub mod tokenizer;
pub mod weights;
pub mod worker;
