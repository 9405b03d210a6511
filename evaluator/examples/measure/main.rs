//! What a checkpoint's engine says and how long it takes for it, on the CPU or on a card: for comparisons with lm-eval (tests/full),
//! for docs/benchmarks (tests/bench), and for whether a card computes as it should (tests/gpu.sh). One program, since that is what
//! is carried to a card. `measure help COMMAND` says what each prints: JSON, a document or a document a line.

#![expect(clippy::print_stdout, reason = "a program whose answer is its output")]

mod answers;
mod checkpoint;
mod loads;
mod products;
mod tasks;

use std::path::Path;

use anyhow::Result;
use candle_core::Device;
use clap::{Args, Parser};
use fineline_evaluator::candle::engine::CandleEngine;
use fineline_evaluator::device::{self, Wanted};
use fineline_evaluator::engine::EngineOptions;
use fineline_format::suite::EvalDtype;

#[derive(Debug, Parser)]
enum Command {
    Answers(answers::Answers),
    Gaps(answers::Gaps),
    Tasks(tasks::Tasks),
    Products(products::Products),
    Copies(products::Copies),
    Generate(checkpoint::Generate),
    Loads(loads::Loads),
}

/// How an engine is made.
#[derive(Debug, Args)]
struct HowComputed {
    /// `cpu`, or `cuda:N`.
    #[arg(long, default_value_t = Wanted::Cpu)]
    device: Wanted,
    /// The dtype of the weights.
    #[arg(long, default_value_t = EvalDtype::Float32, value_parser = dtype)]
    dtype: EvalDtype,
    /// Tokens of a batch at most; when absent as many as a worker takes.
    #[arg(long)]
    batch_tokens: Option<usize>,
    /// Computes on the CPU as a card does.
    #[arg(long)]
    by_tables: bool,
}

impl HowComputed {
    fn open(&self) -> Result<Device> {
        device::open(self.device)
    }

    fn load(&self, dir: &Path, device: &Device) -> Result<CandleEngine> {
        let options = EngineOptions {
            dtype: self.dtype,
            max_batch_tokens: self.batch_tokens.unwrap_or(self.device.batch_tokens()),
            by_tables: self.by_tables,
            ..EngineOptions::default()
        };
        CandleEngine::load(dir, device, options)
    }
}

fn dtype(name: &str) -> Result<EvalDtype, String> {
    name.parse()
}

/// Bytes that are taken of a device, by whichever process.
fn taken_bytes(device: &Device) -> Option<u64> {
    device::memory(device).map(|memory| memory.total_bytes - memory.free_bytes)
}

fn main() -> Result<()> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    match Command::parse() {
        Command::Answers(command) => command.run(),
        Command::Gaps(command) => command.run(),
        Command::Tasks(command) => command.run(),
        Command::Products(command) => command.run(),
        Command::Copies(command) => command.run(),
        Command::Generate(command) => command.run(),
        Command::Loads(command) => command.run(),
    }
}
