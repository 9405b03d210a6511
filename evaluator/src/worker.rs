//! The worker: claims an evaluation over HTTP, has it done ([`crate::evaluation`]) and says how it ended. The embedded
//! evaluator and `fineline-evaluator` are this same code.
//!
//! Shortly before an evaluation is done the next one is claimed, and its checkpoint fetched beside the computing. Not earlier: what
//! one worker holds another can't take (docs/adr/0014).
//!
//! **Invariant:** a lease is renewed beside the work, and work whose lease is lost is dropped without a word to the
//! server. No wall clock is asked: how long a lease holds is the server's to know.

use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;

use anyhow::{Result, bail};
use candle_core::Device;
use clap::Args;
use fineline_api::{CompleteEvaluation, FailEvaluation};
use fineline_client::{Client, Error};
use fineline_format::Digest;
use uuid::Uuid;

use crate::candle::engine::CandleEngine;
use crate::claims::Claims;
use crate::engine::{Engine, EngineOptions};
use crate::evaluation::evaluate;
use crate::fetch::{Fetched, fetch};
use crate::held_lease::HeldLease;
use crate::loader::Loader;
use crate::scratch;

/// What a worker is told.
#[derive(Debug, Clone, Args)]
pub struct WorkerOptions {
    /// The registry's address.
    #[arg(long = "server", env = "FINELINE_URL")]
    pub server: String,
    /// A token with the scope `evaluate`.
    #[arg(long, env = "FINELINE_TOKEN", hide_env_values = true)]
    pub token: String,
    /// Where models are computed: `cpu`.
    #[arg(long, default_value = "cpu")]
    pub device: String,
    /// What the worker is called in lists; the host's name and the process when absent.
    #[arg(long)]
    pub name: Option<String>,
    /// Folder for the checkpoint at hand; the system's temporary one when absent.
    #[arg(long)]
    pub scratch: Option<PathBuf>,
    /// Folder where checkpoints are kept for the next evaluation of the same one; workers of one machine may share it. Nothing is
    /// kept when absent.
    #[arg(long, value_name = "DIR")]
    pub cache: Option<PathBuf>,
    /// What the cache may take, in GiB: those that were not used for the longest make room.
    #[arg(long, value_name = "GIB", default_value_t = 100, requires = "cache")]
    pub cache_gib: u64,
    /// Tokens of a batch at most.
    #[arg(long, default_value_t = 2048)]
    pub batch_tokens: usize,
    /// End when there is no work.
    #[arg(long)]
    pub once: bool,
}

impl WorkerOptions {
    /// The folder for the checkpoint at hand.
    pub(crate) fn scratch_dir(&self) -> PathBuf {
        self.scratch.clone().unwrap_or_else(std::env::temp_dir)
    }
}

/// Makes the engine of the checkpoint in a folder.
pub type LoadEngine = Arc<dyn Fn(&Path, EngineOptions) -> Result<Box<dyn Engine>> + Send + Sync>;

/// Works until `stop` resolves, or with `once` until there is no work. What is at hand when it stops goes to another
/// worker when the lease runs out.
///
/// # Errors
/// When the device is none that this build computes on, or the token is refused.
pub async fn run(options: WorkerOptions, stop: impl Future<Output = ()>) -> Result<()> {
    let device = device(&options.device)?;
    let load = move |dir: &Path, options| Ok(Box::new(CandleEngine::load(dir, &device, options)?) as Box<dyn Engine>);
    run_with(options, Arc::new(load), stop).await
}

/// The same with engines of another making.
///
/// # Errors
/// When the token is refused.
pub async fn run_with(options: WorkerOptions, load: LoadEngine, stop: impl Future<Output = ()>) -> Result<()> {
    let client = Client::new(&options.server, Some(&options.token))?;
    let name = options.name.clone();
    let name = name.unwrap_or_else(|| format!("{}-{}", host(), std::process::id()));
    tracing::info!(
        worker = name,
        server = client.url(),
        device = options.device,
        "the worker asks for work"
    );
    let (loader, dir) = (Loader::new(load), options.scratch_dir());
    // Beside the work: what a killed worker left may be large.
    tokio::task::spawn_blocking(move || scratch::sweep(&dir));
    tokio::select! {
        () = stop => Ok(()),
        ended = work(&client, &options, &name, &loader) => ended,
    }
}

/// The device of that name.
///
/// # Errors
/// When this build does not compute on it.
pub fn device(name: &str) -> Result<Device> {
    match name {
        "cpu" => Ok(Device::Cpu),
        other => bail!("device `{other}` is not supported by this build: use `cpu`"),
    }
}

/// This machine's name.
pub(crate) fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" => "worker".to_owned(),
        name => name.to_owned(),
    }
}

async fn work(client: &Client, options: &WorkerOptions, name: &str, loader: &Loader) -> Result<()> {
    let mut claims = Claims::new(client, options, name);
    let mut next: Option<Next> = None;
    loop {
        let work = match next.take() {
            Some(next) => next,
            None => match claims.wait().await? {
                Some(held) => Next { held, fetched: None },
                None => return Ok(()),
            },
        };
        let status = work.held.status.clone();
        let mut current = pin!(handle(options, loader, work));
        next = loop {
            let held = tokio::select! {
                () = &mut current => break None,
                held = claims.ahead(&status) => held,
            };
            let mut fetching = pin!(fetch_ahead(options, held));
            let fetched = tokio::select! {
                () = &mut current => break fetching.await,
                fetched = &mut fetching => fetched,
            };
            let Some(mut ahead) = fetched else { continue };
            tokio::select! {
                () = &mut current => break Some(ahead),
                lost = ahead.held.lost() => ahead.held.tell_lost(&lost),
            }
        };
    }
}

/// What is done next, and what is here of it already.
struct Next {
    held: HeldLease,
    fetched: Option<Fetched>,
}

/// Fetches the checkpoint of the next work; what can't be had is tried again when its turn comes. `None` when its lease is lost
/// meanwhile.
async fn fetch_ahead(options: &WorkerOptions, mut held: HeldLease) -> Option<Next> {
    let client = held.client.clone();
    let lease = held.lease.clone();
    let fetched = tokio::select! {
        fetched = fetch(&client, options, &lease) => fetched,
        lost = held.lost() => {
            held.tell_lost(&lost);
            return None;
        }
    };
    let fetched = fetched.map_err(|error| {
        let reason = format!("{error:#}");
        tracing::warn!(evaluation = %held.id(), reason, "the next checkpoint could not be fetched yet");
    });
    let fetched = fetched.ok();
    Some(Next { held, fetched })
}

/// Does the work of a lease and says how it ended.
async fn handle(options: &WorkerOptions, loader: &Loader, work: Next) {
    let Next { mut held, fetched } = work;
    held.begin();
    let (id, client) = (held.id(), held.client.clone());
    let (lease, status) = (held.lease.clone(), held.status.clone());
    let outcome = tokio::select! {
        outcome = evaluate(&client, options, loader, &lease, fetched, &status) => outcome,
        lost = held.lost() => {
            held.tell_lost(&lost);
            return;
        }
    };
    held.let_go();
    let outcome = match outcome {
        Ok(result_digest) => complete(&client, id, result_digest).await,
        Err(error) => Err(error),
    };
    let Err(error) = outcome else {
        fail_point!("worker.completed");
        tracing::info!(evaluation = %id, "evaluated");
        return;
    };
    if error
        .downcast_ref::<Error>()
        .is_some_and(|error| matches!(error, Error::LeaseLost(_)))
    {
        held.tell_lost(&error);
        return;
    }
    let reason = format!("{error:#}");
    tracing::error!(evaluation = %id, reason, "the evaluation failed");
    let retryable = error.chain().any(may_pass);
    fail_point!("worker.failing");
    if let Err(error) = client.fail_evaluation(id, &FailEvaluation { reason, retryable }).await {
        tracing::warn!(evaluation = %id, %error, "the failure could not be told");
    }
    fail_point!("worker.failed");
}

async fn complete(client: &Client, id: Uuid, result_digest: Digest) -> Result<()> {
    fail_point!("worker.completing");
    client
        .complete_evaluation(id, &CompleteEvaluation { result_digest })
        .await?;
    Ok(())
}

/// What the network, the registry or the disk did may pass; what the model, the task or its scores are does not.
fn may_pass(cause: &(dyn std::error::Error + 'static)) -> bool {
    use Error::{
        Changed, Configuration, Conflict, DigestMismatch, Forbidden, Format, NotReady, Protocol, Refused, StepExists,
        Unauthorized,
    };
    match cause.downcast_ref::<Error>() {
        Some(
            Changed(_)
            | Configuration(_)
            | Conflict(_)
            | DigestMismatch(_)
            | Forbidden(_)
            | Format(_)
            | NotReady { .. }
            | Protocol { .. }
            | Refused(_)
            | StepExists(_)
            | Unauthorized(_),
        ) => false,
        Some(_) => true,
        None => cause.is::<std::io::Error>(),
    }
}
