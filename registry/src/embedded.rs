//! The only file that names the evaluator: its worker and the demo's training job, each run by a hidden command.

use std::process::ExitCode;

use clap::Args;
use fineline_evaluator::demo::{self, DemoOptions};
use fineline_evaluator::stop::Stop;
use fineline_evaluator::worker::{self, WorkerOptions};

use crate::commands::stdin_closed;

/// What the embedded evaluator is told; the server and the token come by the environment.
#[derive(Debug, Args)]
pub(crate) struct WorkerArgs {
    #[command(flatten)]
    options: WorkerOptions,
}

/// What the training job is told; the server and the token come by the environment.
#[derive(Debug, Args)]
pub(crate) struct TrainArgs {
    #[command(flatten)]
    options: DemoOptions,
}

/// Where the training job's run is shown.
pub(crate) const DEMO_RUN: &str = demo::RUN;

/// Works until the parent closes the pipe.
pub(crate) async fn worker(args: WorkerArgs) -> anyhow::Result<ExitCode> {
    worker::run(args.options, Stop::at_once(stdin_closed())).await?;
    Ok(ExitCode::SUCCESS)
}

/// Trains to its end, or until the parent closes the pipe.
pub(crate) async fn train(args: TrainArgs) -> anyhow::Result<ExitCode> {
    tokio::select! {
        trained = demo::run(args.options) => trained.map(|()| ExitCode::SUCCESS),
        // The training's own thread can't be stopped: the process ends with its parent.
        () = stdin_closed() => std::process::exit(1),
    }
}
