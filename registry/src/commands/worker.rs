//! The embedded evaluator: the remote worker's own code as a child process, so that a model that needs too much memory
//! never takes the registry down.

use std::process::Stdio;
use std::str::FromStr;
use std::time::Duration;

use anyhow::Context;
use tokio::process::{Child, Command};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::app::App;
use crate::commands::LOG_VARIABLE;
use crate::commands::failure::UserError;
use crate::serve::RunningServer;
use crate::service::lease::Gone;
use crate::service::{self, lease};

/// How long a child's token lives; a fresh child gets a fresh one before that.
const TOKEN_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

/// How long to wait before a child that ended is started again; it doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The hidden command that the child runs.
pub(crate) const COMMAND: &str = "evaluator-worker";

/// Which evaluator a server starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Evaluator {
    /// None: remote workers do the work.
    Off,
    /// One on this device.
    Device(String),
}

impl FromStr for Evaluator {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "off" => Ok(Self::Off),
            "cpu" => Ok(Self::Device(text.to_owned())),
            _ => Err(format!("`{text}` is no evaluator of this build: use `cpu` or `off`")),
        }
    }
}

/// Keeps the child running until it is stopped, or this is dropped.
#[derive(Debug)]
pub(crate) struct EvaluatorChild(Option<(oneshot::Sender<()>, JoinHandle<()>)>);

impl EvaluatorChild {
    /// Starts the evaluator of a server; `log` filters what it logs where the environment does not say.
    ///
    /// # Errors
    /// When this build has none.
    pub(crate) fn start(
        server: &RunningServer,
        evaluator: &Evaluator,
        log: Option<&'static str>,
    ) -> anyhow::Result<Self> {
        let Evaluator::Device(device) = evaluator else {
            return Ok(Self(None));
        };
        if !cfg!(feature = "embedded-evaluator") {
            let hint = "start with --evaluator off and run `fineline-evaluator` beside it";
            return Err(UserError::new("this build has no evaluator", hint).into());
        }
        let (stop, stopped) = oneshot::channel();
        let program = Program {
            url: server.url.clone(),
            device: device.clone(),
            log,
        };
        let keeper = tokio::spawn(keep_running(server.app.clone(), program, stopped));
        Ok(Self(Some((stop, keeper))))
    }

    /// Ends the child, takes its token back, and waits until both is done.
    pub(crate) async fn stop(self) {
        if let Some((stop, keeper)) = self.0 {
            drop(stop);
            let _ = keeper.await;
        }
    }
}

/// What every child is started with.
struct Program {
    url: String,
    device: String,
    log: Option<&'static str>,
}

async fn keep_running(app: App, program: Program, mut stopped: oneshot::Receiver<()>) {
    let mut pause = FIRST_PAUSE;
    loop {
        let begun = tokio::time::Instant::now();
        match run_once(&app, &program, &mut stopped).await {
            Ok(Ended::Stopped) => return,
            Ok(Ended::Renewed) => {
                tracing::info!("the embedded evaluator starts anew with a fresh token");
                continue;
            }
            Err(error) => tracing::error!("the embedded evaluator ended: {error:#}"),
        }
        if begun.elapsed() > LONGEST_PAUSE {
            pause = FIRST_PAUSE;
        }
        tokio::select! {
            _ = &mut stopped => return,
            () = tokio::time::sleep(pause) => {}
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Why a child was ended.
enum Ended {
    Stopped,
    Renewed,
}

/// Runs one child with a token of its own, which ends with it, and so do its leases.
async fn run_once(app: &App, program: &Program, stopped: &mut oneshot::Receiver<()>) -> anyhow::Result<Ended> {
    let token = service::token::create_for_worker(&app.db, TOKEN_LIFETIME.as_secs()).await;
    let token = token?;
    let ended = run_child(spawn(program, &token.secret), stopped).await;
    if let Err(error) = service::token::revoke(&app.db, &token.token.pattern, token.token.id).await {
        tracing::warn!(%error, "the embedded evaluator's token could not be revoked");
    }
    let gone = if ended.is_ok() { Gone::Stopped } else { Gone::Died };
    if let Err(error) = lease::take_back(app, token.token.id, gone).await {
        tracing::warn!(%error, "what the embedded evaluator held waits until its lease runs out");
    }
    ended
}

async fn run_child(child: anyhow::Result<Child>, stopped: &mut oneshot::Receiver<()>) -> anyhow::Result<Ended> {
    let mut child = child?;
    // The child ends when this pipe closes: with this process, however it ends.
    let _alive = child.stdin.take();
    let why = tokio::select! {
        status = child.wait() => {
            let status = status?;
            anyhow::bail!("it ended by itself with {status}");
        }
        _ = stopped => Ended::Stopped,
        () = tokio::time::sleep(TOKEN_LIFETIME / 2) => Ended::Renewed,
    };
    child.kill().await?;
    Ok(why)
}

fn spawn(program: &Program, token: &str) -> anyhow::Result<Child> {
    let Program { url, device, log } = program;
    let mut command = Command::new(std::env::current_exe().context("this program's own path")?);
    command.arg(COMMAND).args(["--device", device]);
    command.env("FINELINE_URL", url).env("FINELINE_TOKEN", token);
    // It reads checkpoints of others' making and has nothing to do with the keys of the bucket and of the database.
    const SECRET: [&str; 4] = ["AWS_", "PG", "FINELINE_DATABASE", "FINELINE_ADMIN_TOKEN_FILE"];
    for (name, _) in std::env::vars_os() {
        if SECRET.iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
            command.env_remove(name);
        }
    }
    if let Some(log) = log.filter(|_| std::env::var_os(LOG_VARIABLE).is_none()) {
        command.env(LOG_VARIABLE, log);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::null()).kill_on_drop(true);
    command.spawn().context("the embedded evaluator can't be started")
}
