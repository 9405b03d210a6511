//! The command line of `fineline-evaluator`.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::device::{self, Wanted};
use crate::fleet;
use crate::stop::Stop;
use crate::worker::{self, WorkerOptions};

/// How long a computation that nobody waits for may take to stop.
const LAST_LAYER: Duration = Duration::from_secs(2);

/// Takes evaluations from a Fineline registry and scores them.
#[derive(Debug, Parser)]
#[command(name = "fineline-evaluator", version)]
pub struct Cli {
    #[command(flatten)]
    options: WorkerOptions,
}

impl Cli {
    /// Works as the process's arguments say, until ctrl-c or SIGTERM, and gives the code to end with: 0 where it was told to end.
    pub fn run_from_arguments() -> ExitCode {
        let cli = Self::parse();
        init_tracing();
        let ended = tokio::runtime::Builder::new_multi_thread().enable_all().build();
        let ended = ended.map_err(anyhow::Error::from).and_then(|runtime| {
            let ended = runtime.block_on(run(cli.options));
            // What still computes has nobody left to tell, and stops at its next layer; a driver does not like to be left in a call.
            runtime.shutdown_timeout(LAST_LAYER);
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

/// One worker, or one a card.
async fn run(options: WorkerOptions) -> anyhow::Result<()> {
    fleet::follow_parent()?;
    if options.device == Wanted::EachCuda {
        return fleet::run(&options, device::n_cards()?, signals()?).await;
    }
    worker::run(options, Stop::by(signals()?)).await
}

/// Counts what this process is told to end by: ctrl-c or SIGTERM.
fn signals() -> anyhow::Result<watch::Receiver<usize>> {
    let (count, signals) = watch::channel(0);
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::spawn(async move {
        while let Some(()) = tokio::select! {
            told = terminate.recv() => told,
            told = interrupt.recv() => told,
        } {
            count.send_modify(|n| *n += 1);
            match *count.borrow() {
                1 => tracing::info!("told to end: the task at hand may end first, a second signal ends at once"),
                _ => tracing::info!("told to end once more"),
            }
        }
    });
    Ok(signals)
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
