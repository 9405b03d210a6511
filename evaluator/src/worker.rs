//! The worker: claims an evaluation over HTTP, has it done ([`crate::evaluation`]) and says how it ended. The embedded
//! evaluator and `fineline-evaluator` are this same code.
//!
//! Shortly before an evaluation is done the next one is claimed, and its checkpoint fetched beside the computing. Not earlier: what
//! one worker holds another can't take (docs/adr/0014).
//!
//! **Invariant:** a lease is renewed beside the work, and work whose lease is lost is dropped without a word to the
//! server. No wall clock is asked: how long a lease holds is the server's to know. A worker that is told to end leaves no lease behind
//! ([`crate::stop`]), unless it is told twice.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;
use fineline_api::{CompleteEvaluation, FailEvaluation};
use fineline_client::{Client, Error};
use fineline_format::Digest;
use uuid::Uuid;

use crate::candle::engine::CandleEngine;
use crate::claims::Claims;
use crate::device::{self, Wanted};
use crate::engine::{Engine, EngineOptions};
use crate::evaluation::{Came, evaluate};
use crate::fetch::{Fetched, fetch};
use crate::held_lease::HeldLease;
use crate::loader::Loader;
use crate::scratch;
use crate::stop::Stop;
use crate::telemetry::{Activity, DeviceMemory, Listener, Metrics};

/// What a worker is told.
#[derive(Debug, Clone, Args)]
pub struct WorkerOptions {
    /// The registry's address.
    #[arg(long = "server", env = "FINELINE_URL")]
    pub server: String,
    /// A token with the scope `evaluate`.
    #[arg(long, env = "FINELINE_TOKEN", hide_env_values = true)]
    pub token: String,
    /// Where models are computed: `cpu`, `cuda:N` for the card of that number, `cuda:auto` for a process a card.
    #[arg(long, env = "FINELINE_DEVICE", default_value_t = Wanted::Cpu, overrides_with = "device")]
    pub device: Wanted,
    /// What the worker is called in lists; the host's name and the process when absent. With a process a card its number stands behind.
    #[arg(long, overrides_with = "name")]
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
    /// Tokens of a batch at most; when absent 2048 on the CPU and 8192 on a card.
    #[arg(long)]
    pub batch_tokens: Option<usize>,
    /// End when there is no work.
    #[arg(long)]
    pub once: bool,
    /// Seconds that the task at hand has to end when the worker is told to (SIGTERM, ctrl-c); 0 drops it at once. What is left goes
    /// to another worker at once.
    #[arg(long = "drain-timeout", value_name = "SECONDS", default_value_t = 30)]
    pub drain_timeout_s: u64,
    /// Serve metrics at `http://ADDR/metrics` (`127.0.0.1:9464`) and `ok` at `/healthz`, to everybody who reaches the address; not at
    /// all when absent. With a process a card, each adds its number to the port.
    #[arg(long, env = "FINELINE_METRICS", value_name = "ADDR", overrides_with = "metrics")]
    pub metrics: Option<SocketAddr>,
}

impl WorkerOptions {
    /// The folder for the checkpoint at hand.
    pub(crate) fn scratch_dir(&self) -> PathBuf {
        self.scratch.clone().unwrap_or_else(std::env::temp_dir)
    }

    /// Tokens of a batch at most.
    pub(crate) fn batch_tokens(&self) -> usize {
        self.batch_tokens.unwrap_or(self.device.batch_tokens())
    }
}

/// Makes the engine of the checkpoint in a folder.
pub type LoadEngine = Arc<dyn Fn(&Path, EngineOptions) -> Result<Box<dyn Engine>> + Send + Sync>;

/// What all work of a worker shares.
pub(crate) struct Worker {
    pub(crate) options: WorkerOptions,
    pub(crate) loader: Loader,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) stop: Stop,
    /// The device computes nothing any more.
    has_failed: AtomicBool,
}

/// Works until it is told to end, or with `once` until there is no work. What is not done then is given back, or goes to another
/// worker when its lease runs out.
///
/// # Errors
/// When the device is none that this build computes on, or fails, or the token is refused.
pub async fn run(options: WorkerOptions, stop: Stop) -> Result<()> {
    let device = device::open(options.device)?;
    let of_device = device.clone();
    let memory = move || device::memory(&of_device);
    let load = move |dir: &Path, options| Ok(Box::new(CandleEngine::load(dir, &device, options)?) as Box<dyn Engine>);
    run_on(options, Arc::new(load), Box::new(memory), stop).await
}

/// The same with engines of another making.
///
/// # Errors
/// When the token is refused, or the device of an engine fails.
pub async fn run_with(options: WorkerOptions, load: LoadEngine, stop: Stop) -> Result<()> {
    run_on(options, load, Box::new(|| None), stop).await
}

async fn run_on(options: WorkerOptions, load: LoadEngine, memory: DeviceMemory, stop: Stop) -> Result<()> {
    let client = Client::new(&options.server, Some(&options.token))?;
    let name = options.name.clone();
    let name = name.unwrap_or_else(|| format!("{}-{}", host(), std::process::id()));
    let metrics = Arc::new(match options.metrics {
        Some(_) => Metrics::new(memory),
        None => Metrics::off(),
    });
    let _listener = match options.metrics {
        Some(address) => Some(Listener::start(address, Arc::clone(&metrics)).await?),
        None => None,
    };
    tracing::info!(
        worker = name,
        server = client.url(),
        device = %options.device,
        "the worker asks for work"
    );
    let dir = options.scratch_dir();
    // Beside the work: what a killed worker left may be large.
    tokio::task::spawn_blocking(move || scratch::sweep(&dir));
    let worker = Worker {
        options,
        loader: Loader::new(load),
        metrics,
        stop,
        has_failed: AtomicBool::new(false),
    };
    tokio::select! {
        () = worker.stop.forced() => Ok(()),
        ended = work(&worker, &client, &name) => ended,
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

async fn work(worker: &Worker, client: &Client, name: &str) -> Result<()> {
    let mut claims = Claims::new(client, &worker.options, name);
    let mut next: Option<Next> = None;
    loop {
        if worker.has_failed.load(Ordering::Relaxed) {
            if let Some(next) = next {
                next.held.give_back().await;
            }
            bail!(
                "device `{}` has failed: a new process may have it again",
                worker.options.device
            );
        }
        let work = match next.take() {
            Some(next) => next,
            None => match wait(worker, &mut claims).await? {
                Some(held) => Next { held, fetched: None },
                None => return Ok(()),
            },
        };
        if worker.stop.is_asked() {
            work.held.give_back().await;
            return Ok(());
        }
        let status = work.held.status.clone();
        let mut current = pin!(handle(worker, work));
        next = loop {
            let held = tokio::select! {
                () = &mut current => break None,
                held = claims.ahead(&status) => held,
                () = worker.stop.asked() => {
                    tokio::join!(&mut current, claims.give_back_unheard());
                    return Ok(());
                }
            };
            let mut fetching = pin!(fetch_ahead(worker, held));
            let fetched = tokio::select! {
                () = &mut current => break fetching.await,
                fetched = &mut fetching => fetched,
            };
            let Some(mut ahead) = fetched else { continue };
            tokio::select! {
                () = &mut current => break Some(ahead),
                lost = ahead.held.lost() => ahead.held.tell_lost(&lost),
                () = worker.stop.asked() => {
                    tokio::join!(&mut current, ahead.held.give_back());
                    return Ok(());
                }
            }
        };
    }
}

/// Waits for work; `None` when there is none for this worker any more.
async fn wait(worker: &Worker, claims: &mut Claims<'_>) -> Result<Option<HeldLease>> {
    worker.metrics.turn_to(Activity::Waiting);
    tokio::select! {
        held = claims.wait() => return held,
        () = worker.stop.asked() => {}
    }
    claims.give_back_unheard().await;
    Ok(None)
}

/// What is done next, and what is here of it already.
struct Next {
    held: HeldLease,
    fetched: Option<Fetched>,
}

/// Fetches the checkpoint of the next work; what can't be had is tried again when its turn comes. `None` when its lease is lost
/// meanwhile, or is given back since the worker ends.
async fn fetch_ahead(worker: &Worker, mut held: HeldLease) -> Option<Next> {
    let client = held.client.clone();
    let lease = held.lease.clone();
    let fetched = tokio::select! {
        fetched = fetch(&client, &worker.options, &lease) => fetched,
        lost = held.lost() => {
            held.tell_lost(&lost);
            return None;
        }
        () = worker.stop.asked() => {
            held.give_back().await;
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
async fn handle(worker: &Worker, work: Next) {
    let Next { mut held, fetched } = work;
    held.begin();
    worker.metrics.turn_to(Activity::Loading);
    let (id, client) = (held.id(), held.client.clone());
    let (lease, status) = (held.lease.clone(), held.status.clone());
    let patience = Duration::from_secs(worker.options.drain_timeout_s);
    let outcome = tokio::select! {
        outcome = evaluate(worker, &client, &lease, fetched, &status) => outcome,
        () = worker.stop.overdue(patience) => Ok(Came::Stopped),
        lost = held.lost() => {
            worker.metrics.lost.increment(1);
            held.tell_lost(&lost);
            return;
        }
    };
    held.let_go();
    let outcome = match outcome {
        Ok(Came::Done(result_digest)) => complete(&client, id, result_digest).await,
        Ok(Came::Stopped) => {
            held.give_back().await;
            return;
        }
        Err(error) => Err(error),
    };
    let Err(error) = outcome else {
        fail_point!("worker.completed");
        worker.metrics.done.increment(1);
        tracing::info!(evaluation = %id, "evaluated");
        return;
    };
    if error
        .downcast_ref::<Error>()
        .is_some_and(|error| matches!(error, Error::LeaseLost(_)))
    {
        worker.metrics.lost.increment(1);
        held.tell_lost(&error);
        return;
    }
    worker.metrics.failed.increment(1);
    let reason = format!("{error:#}");
    tracing::error!(evaluation = %id, reason, "the evaluation failed");
    let is_of_device = device::has_failed(&error);
    worker.has_failed.store(is_of_device, Ordering::Relaxed);
    let retryable = is_of_device || device::is_out_of_memory(&error) || error.chain().any(may_pass);
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
