//! The worker: claims an evaluation over HTTP, has it done ([`crate::evaluation`]) and says how it ended. The embedded
//! evaluator and `fineline-evaluator` are this same code.
//!
//! **Invariant:** the lease is renewed beside the work, and work whose lease is lost is dropped without a word to the
//! server. No wall clock is asked: how long a lease holds is the server's to know.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Result, bail};
use candle_core::Device;
use clap::Args;
use fineline_api::{ClaimEvaluation, CompleteEvaluation, FailEvaluation, Lease, Progress};
use fineline_client::{Client, Error};
use fineline_format::Digest;
use fineline_format::suite::EvalDtype;
use uuid::Uuid;

use crate::candle::engine::CandleEngine;
use crate::config::ARCHITECTURE;
use crate::engine::{Engine, EngineOptions};
use crate::evaluation::evaluate;
use crate::memory;
use crate::task::VERSION;

/// How long the server is asked to wait for work to appear.
const CLAIM_WAIT_S: u64 = 25;

/// How long a worker rests after the server could not be asked.
const REST: Duration = Duration::from_secs(5);

/// How often a worker that is to end when there is no work asks a registry that does not answer.
const MAX_FAILED_CLAIMS: u32 = 5;

/// How long a worker at work says nothing, at most.
const LONGEST_SILENCE: Duration = Duration::from_secs(5);

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
    let name = options.name.clone().unwrap_or_else(default_name);
    tracing::info!(
        worker = name,
        server = client.url(),
        device = options.device,
        "the worker asks for work"
    );
    tokio::select! {
        () = stop => Ok(()),
        ended = work(&client, &options, &name, &load) => ended,
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

fn default_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = if host.trim().is_empty() { "worker" } else { host.trim() };
    format!("{host}-{}", std::process::id())
}

async fn work(client: &Client, options: &WorkerOptions, name: &str, load: &LoadEngine) -> Result<()> {
    let mut claim = ClaimEvaluation {
        worker: name.to_owned(),
        device: options.device.clone(),
        memory_bytes: memory::total_bytes(),
        dtypes: [EvalDtype::Float32, EvalDtype::Bfloat16, EvalDtype::Float16]
            .map(|d| d.to_string())
            .to_vec(),
        architectures: vec![ARCHITECTURE.to_owned()],
        wait_s: if options.once { 0 } else { CLAIM_WAIT_S },
        claim_id: Some(new_claim_id()),
        harness_version: Some(VERSION.to_owned()),
    };
    let mut n_failed = 0;
    loop {
        let answer = client.claim_evaluation(&claim).await;
        if answer.is_ok() {
            // Until then it is the same claim: an answer that was lost may have held a lease.
            claim.claim_id = Some(new_claim_id());
        }
        match answer {
            Ok(Some(lease)) => {
                fail_point!("worker.claimed");
                handle(client, options, load, lease).await;
            }
            Ok(None) if options.once => return Ok(()),
            Ok(None) => {}
            // Asking again would get the same answer.
            Err(
                error @ (Error::Unauthorized(_)
                | Error::Forbidden(_)
                | Error::NotFound(_)
                | Error::Refused(_)
                | Error::Protocol { .. }),
            ) => return Err(error.into()),
            Err(error) if options.once && n_failed == MAX_FAILED_CLAIMS => return Err(error.into()),
            Err(error) => {
                n_failed += 1;
                tracing::warn!(%error, "can't ask for work");
                tokio::time::sleep(REST).await;
            }
        }
    }
}

/// Random throughout: a lease's token follows from it.
fn new_claim_id() -> Uuid {
    uuid::Builder::from_random_bytes(rand::random()).into_uuid()
}

/// Does the work of a lease and says how it ended.
async fn handle(client: &Client, options: &WorkerOptions, load: &LoadEngine, lease: Lease) {
    let id = lease.evaluation.id;
    let Ok(client) = client.with_lease(&lease.token) else {
        return;
    };
    let progress = Arc::new(Mutex::new(Progress::default()));
    let outcome = tokio::select! {
        outcome = evaluate(&client, options, load, &lease, &progress) => outcome,
        lost = keep(&client, &lease, &progress) => Err(lost.into()),
    };
    // From here on nothing renews: a renewal that waits would hear of the end as of a loss.
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
        tracing::warn!(evaluation = %id, "the lease is lost, the work is dropped");
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

/// Renews the lease until it is lost. The answer waits until the next is due, so that a loss is heard of at once.
async fn keep(client: &Client, lease: &Lease, progress: &Mutex<Progress>) -> Error {
    let every = (Duration::from_secs(lease.ttl_s.max(1)) / 4).min(LONGEST_SILENCE);
    let mut due = tokio::time::Instant::now();
    loop {
        tokio::time::sleep_until(due).await;
        due = tokio::time::Instant::now() + every;
        let said = progress.lock().unwrap_or_else(PoisonError::into_inner).clone();
        fail_point!("worker.renewing");
        // One that stalls must not keep the next from being said in time.
        let renewed = client.heartbeat_evaluation(lease.evaluation.id, &said, every.as_secs());
        let Ok(renewed) = tokio::time::timeout(2 * every, renewed).await else {
            tracing::warn!("a heartbeat was not answered in time");
            continue;
        };
        match renewed {
            Err(error @ (Error::LeaseLost(_) | Error::NotFound(_) | Error::Unauthorized(_) | Error::Forbidden(_))) => {
                return error;
            }
            Err(error) => tracing::warn!(%error, "the lease could not be renewed"),
            Ok(_) => {
                fail_point!("worker.renewed");
            }
        }
    }
}
