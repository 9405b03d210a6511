//! The only file that names the evaluator: its worker, run by a hidden command.

use std::process::ExitCode;

use clap::Args;
use fineline_evaluator::worker::{self, WorkerOptions};

use crate::commands::stdin_closed;

/// What the embedded evaluator is told; the server and the token come by the environment.
#[derive(Debug, Args)]
pub(crate) struct WorkerArgs {
    #[command(flatten)]
    options: WorkerOptions,
}

/// Works until the parent closes the pipe.
pub(crate) async fn worker(args: WorkerArgs) -> anyhow::Result<ExitCode> {
    worker::run(args.options, stdin_closed()).await?;
    Ok(ExitCode::SUCCESS)
}
