//! `demo`: a registry of its own with its evaluator, and a real training job that pushes its steps to it.

use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};

use anyhow::Context;
use clap::Args;
use tokio::process::{Child, Command};

use crate::commands::failure::UserError;
use crate::commands::worker::{Evaluator, EvaluatorChild};
use crate::commands::{QUIET_LOG, print, stop_signal};
use crate::embedded::DEMO_RUN;
use crate::serve::{self, RunningServer, ServeOptions};

/// The hidden command of the training job.
pub(crate) const TRAIN_COMMAND: &str = "demo-train";

/// The training job takes and frees the same sizes at every step: glibc is told to keep what it has. Its two workers
/// are its parallelism.
const TRAIN_ENVIRONMENT: [(&str, &str); 4] = [
    ("MALLOC_MMAP_THRESHOLD_", "4294967296"),
    ("MALLOC_TRIM_THRESHOLD_", "17179869184"),
    ("MALLOC_TOP_PAD_", "67108864"),
    ("RAYON_NUM_THREADS", "1"),
];

/// What `demo` is told.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Folder to keep everything in, empty or not there yet; a temporary one when absent.
    #[arg(long)]
    data: Option<PathBuf>,
    /// Go on serving when all is shown, until ctrl-c.
    #[arg(long)]
    keep: bool,
    /// What the training job is told: `-- --help` shows it.
    #[arg(last = true)]
    training: Vec<String>,
}

/// Runs the demo to its end. Fails when the training job does.
pub(crate) async fn run(args: DemoArgs) -> anyhow::Result<ExitCode> {
    let temporary = tempfile::tempdir().context("a temporary folder")?;
    let data = args.data.clone().unwrap_or_else(|| temporary.path().to_owned());
    check_empty(&data)?;
    let options = ServeOptions {
        anonymous_read: true,
        ..ServeOptions::local(&data)
    };
    let server = serve::start(options).await?;
    let evaluator = EvaluatorChild::start(&server, &Evaluator::Device("cpu".to_owned()), Some(QUIET_LOG))?;
    let page = format!("{}/runs/{DEMO_RUN}", server.url);
    print(&format!("the registry serves {}; the run is at {page}", server.url));
    let mut job = spawn(&server, &args.training)?;
    // Waiting for a child closes its pipe, which would end it.
    let alive = job.stdin.take();
    let mut code = ExitCode::FAILURE;
    let until = async {
        tokio::select! {
            () = stop_signal() => {}
            ended = job.wait() => match ended {
                Ok(status) if status.success() => {
                    code = ExitCode::SUCCESS;
                    if args.keep {
                        let token = data.join("admin.token");
                        print(&format!("{page} stays until ctrl-c (token in `{}`)", token.display()));
                        stop_signal().await;
                    }
                }
                Ok(status) => tracing::error!("the training job ended with {status}"),
                Err(error) => tracing::error!("the training job: {error}"),
            },
        }
        drop((alive, job));
        evaluator.stop().await;
    };
    server.run_until(until).await?;
    Ok(code)
}

/// A demo in a folder that holds a registry would push to that registry's users.
fn check_empty(data: &Path) -> anyhow::Result<()> {
    let mut entries = match std::fs::read_dir(data) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("folder `{}`", data.display())),
    };
    if entries.next().is_none() {
        return Ok(());
    }
    let message = format!(
        "folder `{}` is not empty: the demo makes a registry of its own",
        data.display()
    );
    Err(UserError::new(message, "give another folder with --data").into())
}

fn spawn(server: &RunningServer, arguments: &[String]) -> anyhow::Result<Child> {
    let program = std::env::current_exe().context("this program's own path")?;
    let mut command = Command::new(program);
    command.arg(TRAIN_COMMAND).args(arguments);
    command
        .env("FINELINE_URL", &server.url)
        .env("FINELINE_TOKEN", &server.admin_token);
    command.envs(TRAIN_ENVIRONMENT);
    // The child ends when its standard input closes: with this process, however it ends.
    command.stdin(Stdio::piped()).kill_on_drop(true);
    command.spawn().context("the training job can't be started")
}
