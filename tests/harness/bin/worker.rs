//! `fineline-evaluator` that dies, stops or waits at the fail points that its environment names.

use clap::Parser;
use fineline_evaluator::worker::{self, WorkerOptions};

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    options: WorkerOptions,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    harness::arm_fail_points();
    worker::run(Cli::parse().options, std::future::pending()).await
}
