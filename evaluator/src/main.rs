//! The binary `fineline-evaluator`: a worker that takes evaluations from a registry.

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use fineline_evaluator::worker::{self, WorkerOptions};

/// Takes evaluations from a Fineline registry and scores them.
#[derive(Debug, Parser)]
#[command(name = "fineline-evaluator", version)]
struct Cli {
    #[command(flatten)]
    options: WorkerOptions,
}

/// Lines for people on a terminal, JSON for a log collector; `FINELINE_LOG` filters.
fn init_tracing() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("FINELINE_LOG");
    let filter = filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    if std::io::stderr().is_terminal() {
        builder.init();
    } else {
        builder.json().init();
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    init_tracing();
    let stop = async { drop(tokio::signal::ctrl_c().await) };
    match worker::run(cli.options, stop).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
