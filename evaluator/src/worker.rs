//! The worker: claims an evaluation over HTTP, has it done ([`crate::evaluation`]) and says how it ended. The embedded
//! evaluator and `fineline-evaluator` are this same code.
//!
//! Shortly before an evaluation is done the next one is claimed, and its checkpoint fetched beside the computing. Not earlier: what
//! one worker holds another can't take.
//!
//! **Invariant:** a lease is renewed beside the work, and work whose lease is lost is dropped without a word to the
//! server. No wall clock is asked: how long a lease holds is the server's to know.

use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use candle_core::Device;
use clap::Args;
use fineline_api::{ClaimEvaluation, CompleteEvaluation, FailEvaluation, Progress};
use fineline_client::{Client, Error};
use fineline_format::Digest;
use fineline_format::suite::EvalDtype;
use uuid::Uuid;

use crate::candle::engine::CandleEngine;
use crate::config::ARCHITECTURE;
use crate::engine::{Engine, EngineOptions};
use crate::evaluation::{Fetched, evaluate, fetch};
use crate::held_lease::HeldLease;
use crate::memory;
use crate::task::VERSION;

/// How long the server is asked to wait for work to appear.
const CLAIM_WAIT_S: u64 = 25;

/// How long a worker rests after the server could not be asked.
const REST: Duration = Duration::from_secs(5);

/// How often a worker that is to end when there is no work asks a registry that does not answer.
const MAX_FAILED_CLAIMS: u32 = 5;

/// How often it is looked whether the next evaluation is to be claimed. What is done sooner needs no next.
const LOOK: Duration = Duration::from_secs(1);

/// How long before the end, at least, the next evaluation is claimed.
const LEAD: Duration = Duration::from_secs(5);

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
    let mut claims = Claims::new(client, options, name);
    let mut next: Option<Next> = None;
    // Of fetching and loading a checkpoint, the longest that was seen.
    let mut preparation = Duration::ZERO;
    loop {
        let work = match next.take() {
            Some(next) => next,
            None => match claims.wait().await? {
                Some(held) => Next { held, fetched: None },
                None => return Ok(()),
            },
        };
        let progress = Arc::clone(&work.held.progress);
        let mut current = pin!(handle(options, load, work));
        let claimed = tokio::select! {
            () = &mut current => None,
            held = claims.ahead(&progress, &mut preparation) => Some(held),
        };
        if let Some(held) = claimed {
            ((), next) = tokio::join!(current, fetch_ahead(options, held));
        }
    }
}

/// What is done next, and what is here of it already.
struct Next {
    held: HeldLease,
    fetched: Option<Result<Fetched>>,
}

/// Asks for work. A claim whose answer was lost is sent again as the same one, since it may have got a lease.
struct Claims<'a> {
    client: &'a Client,
    claim: ClaimEvaluation,
    is_once: bool,
}

impl<'a> Claims<'a> {
    fn new(client: &'a Client, options: &WorkerOptions, name: &str) -> Self {
        let claim = ClaimEvaluation {
            worker: name.to_owned(),
            device: options.device.clone(),
            memory_bytes: memory::total_bytes(),
            dtypes: [EvalDtype::Float32, EvalDtype::Bfloat16, EvalDtype::Float16]
                .map(|d| d.to_string())
                .to_vec(),
            architectures: vec![ARCHITECTURE.to_owned()],
            wait_s: 0,
            claim_id: Some(new_claim_id()),
            harness_version: Some(VERSION.to_owned()),
        };
        Self {
            client,
            claim,
            is_once: options.once,
        }
    }

    /// Asks until there is work; `None` when there is none and the worker is to end then.
    async fn wait(&mut self) -> Result<Option<HeldLease>> {
        let mut n_failed = 0;
        loop {
            match self.ask(if self.is_once { 0 } else { CLAIM_WAIT_S }).await {
                Ok(Some(held)) => return Ok(Some(held)),
                Ok(None) if self.is_once => return Ok(None),
                Ok(None) => {}
                // Asking again would get the same answer.
                Err(
                    error @ (Error::Unauthorized(_)
                    | Error::Forbidden(_)
                    | Error::NotFound(_)
                    | Error::Refused(_)
                    | Error::Protocol { .. }),
                ) => return Err(error.into()),
                Err(error) if self.is_once && n_failed == MAX_FAILED_CLAIMS => return Err(error.into()),
                Err(error) => {
                    n_failed += 1;
                    tracing::warn!(%error, "can't ask for work");
                    tokio::time::sleep(REST).await;
                }
            }
        }
    }

    /// Asks when the work that `progress` tells of is almost done: in twice the time that a checkpoint takes until it
    /// computes. Until then, and where nothing waits, this does not end.
    async fn ahead(&mut self, progress: &Mutex<Progress>, preparation: &mut Duration) -> HeldLease {
        let begun = Instant::now();
        let mut computes = false;
        loop {
            tokio::time::sleep(LOOK).await;
            let eta_s = progress.lock().unwrap_or_else(PoisonError::into_inner).eta_s;
            let Some(eta_s) = eta_s else { continue };
            if !computes {
                computes = true;
                *preparation = begun.elapsed().max(*preparation);
            }
            if Duration::from_secs(eta_s) > 2 * *preparation + LEAD {
                continue;
            }
            match self.ask(0).await {
                Ok(Some(held)) => return held,
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, "can't ask for the next work"),
            }
            tokio::time::sleep(REST).await;
        }
    }

    async fn ask(&mut self, wait_s: u64) -> Result<Option<HeldLease>, Error> {
        self.claim.wait_s = wait_s;
        let lease = self.client.claim_evaluation(&self.claim).await?;
        self.claim.claim_id = Some(new_claim_id());
        let Some(lease) = lease else { return Ok(None) };
        fail_point!("worker.claimed");
        Ok(Some(HeldLease::keep(self.client, lease)?))
    }
}

/// Random throughout: a lease's token follows from it.
fn new_claim_id() -> Uuid {
    uuid::Builder::from_random_bytes(rand::random()).into_uuid()
}

/// Fetches the checkpoint of the next work; `None` when its lease is lost meanwhile.
async fn fetch_ahead(options: &WorkerOptions, mut held: HeldLease) -> Option<Next> {
    let client = held.client.clone();
    let lease = held.lease.clone();
    tokio::select! {
        fetched = fetch(&client, options, &lease) => Some(Next { held, fetched: Some(fetched) }),
        _ = held.lost() => {
            tracing::warn!(evaluation = %lease.evaluation.id, "the lease on the next work is lost");
            None
        }
    }
}

/// Does the work of a lease and says how it ended.
async fn handle(options: &WorkerOptions, load: &LoadEngine, work: Next) {
    let Next { mut held, fetched } = work;
    let (id, client) = (held.id(), held.client.clone());
    let (lease, progress) = (held.lease.clone(), Arc::clone(&held.progress));
    let outcome = tokio::select! {
        outcome = evaluate(&client, options, load, &lease, fetched, &progress) => outcome,
        lost = held.lost() => Err(lost.into()),
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
