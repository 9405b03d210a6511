//! The command line of `fineline-evaluator`.

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use crate::worker::{self, WorkerOptions};

/// Takes evaluations from a Fineline registry and scores them.
#[derive(Debug, Parser)]
#[command(name = "fineline-evaluator", version)]
pub struct Cli {
    #[command(flatten)]
    options: WorkerOptions,
}

impl Cli {
    /// Works as the process's arguments say, until ctrl-c or SIGTERM, and gives the code to end with.
    pub fn run_from_arguments() -> ExitCode {
        let cli = Self::parse();
        init_tracing();
        let ended = tokio::runtime::Builder::new_multi_thread().enable_all().build();
        let ended = ended.map_err(anyhow::Error::from).and_then(|runtime| {
            let ended = runtime.block_on(worker::run(cli.options, stopped()));
            // Not waited for: what still computes has nobody left to tell.
            runtime.shutdown_background();
            ended
        });
        match ended {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                tracing::error!("{error:#}");
                ExitCode::FAILURE
            }
        }
    }
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

/// Resolves at ctrl-c or SIGTERM.
async fn stopped() {
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        },
        Err(_) => drop(tokio::signal::ctrl_c().await),
    }
}
