//! `fineline-evaluator` that dies at the fail point that its environment names.

use clap::Parser;
use fineline_evaluator::worker::{self, WorkerOptions};

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    options: WorkerOptions,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    harness::die_at_fail_point();
    worker::run(Cli::parse().options, std::future::pending()).await
}
