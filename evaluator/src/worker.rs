//! The worker: claims an evaluation over HTTP, pulls the checkpoint under its lease, scores it task by task and posts
//! what came of it. The embedded evaluator and `fineline-evaluator` are this same code.
//!
//! **Invariant:** the lease is renewed beside the work, and work whose lease is lost is dropped without a word to the
//! server.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use candle_core::Device;
use clap::Args;
use fineline_api::{ClaimEvaluation, CompleteEvaluation, FailEvaluation, Lease, Progress, Reference, TaskScore};
use fineline_client::{Client, Error, PullOptions, pull};
use fineline_format::Digest;
use fineline_format::suite::{EvalDtype, SuiteTask};

use crate::config::ARCHITECTURE;
use crate::engine::{CandleEngine, Engine, EngineOptions};
use crate::lent::fetch_tokenizer;
use crate::task::{Overrides, PreparedTask};

/// How long the server is asked to wait for work to appear.
const CLAIM_WAIT_S: u64 = 25;

/// How long a worker rests after the server could not be asked.
const REST: Duration = Duration::from_secs(5);

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
    /// Tokens of a batch, padding included.
    #[arg(long, default_value_t = 4096)]
    pub batch_tokens: usize,
    /// End when there is no work.
    #[arg(long)]
    pub once: bool,
}

/// Makes the engine of the checkpoint in a folder.
pub type LoadEngine = Arc<dyn Fn(&Path, EngineOptions) -> Result<Box<dyn Engine>> + Send + Sync>;

/// Works until `stop` resolves, or with `once` until there is no work. What is at hand when it stops is given back.
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
    let claim = ClaimEvaluation {
        worker: name.to_owned(),
        device: options.device.clone(),
        memory_bytes: memory_bytes(),
        dtypes: [EvalDtype::Float32, EvalDtype::Bfloat16, EvalDtype::Float16]
            .map(|d| d.to_string())
            .to_vec(),
        architectures: vec![ARCHITECTURE.to_owned()],
        wait_s: if options.once { 0 } else { CLAIM_WAIT_S },
    };
    loop {
        match client.claim_evaluation(&claim).await {
            Ok(Some(lease)) => {
                fail_point!("worker.claimed");
                handle(client, options, load, lease).await;
            }
            Ok(None) if options.once => return Ok(()),
            Ok(None) => {}
            Err(error @ (Error::Unauthorized(_) | Error::Forbidden(_))) => return Err(error.into()),
            Err(error) => {
                tracing::warn!(%error, "can't ask for work");
                tokio::time::sleep(REST).await;
            }
        }
    }
}

/// What the machine has, by the kernel's word; 0 when it does not say.
fn memory_bytes() -> u64 {
    let info = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = info.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib: Option<u64> = total.and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse().ok());
    kib.unwrap_or(0) * 1024
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
    let Err(error) = outcome else {
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
    // What the network or the disk did may pass; what the model or the task is does not.
    let retryable = error
        .chain()
        .any(|cause| cause.is::<Error>() || cause.is::<std::io::Error>());
    if let Err(error) = client.fail_evaluation(id, &FailEvaluation { reason, retryable }).await {
        tracing::warn!(evaluation = %id, %error, "the failure could not be told");
    }
}

/// Renews the lease until it is lost.
async fn keep(client: &Client, lease: &Lease, progress: &Mutex<Progress>) -> Error {
    let every = Duration::from_secs((lease.ttl_s / 4).max(1));
    loop {
        tokio::time::sleep(every).await;
        let said = progress.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match client.heartbeat_evaluation(lease.evaluation.id, &said).await {
            Err(error @ Error::LeaseLost(_)) => return error,
            Err(error) => tracing::warn!(%error, "the lease could not be renewed"),
            Ok(_) => {}
        }
    }
}

async fn evaluate(
    client: &Client,
    options: &WorkerOptions,
    load: &LoadEngine,
    lease: &Lease,
    progress: &Arc<Mutex<Progress>>,
) -> Result<()> {
    let evaluation = &lease.evaluation;
    let scratch = match &options.scratch {
        Some(dir) => tempfile::tempdir_in(dir),
        None => tempfile::tempdir(),
    };
    let scratch = scratch.context("a folder for the checkpoint")?;
    let reference = Reference::Digest(evaluation.checkpoint);
    pull(
        client,
        &evaluation.run,
        &reference,
        scratch.path(),
        &PullOptions::default(),
        |_| {},
    )
    .await?;
    fetch_tokenizer(client, lease, scratch.path()).await?;
    let tasks = prepare(client, lease).await?;
    let n_total = tasks.iter().map(PreparedTask::n_requests).sum();
    let dtype: EvalDtype = evaluation.dtype.parse().map_err(anyhow::Error::msg)?;
    let engine_options = EngineOptions {
        dtype,
        max_batch_tokens: options.batch_tokens,
    };
    let (load, dir) = (Arc::clone(load), scratch.path().to_owned());
    let loading = tokio::task::spawn_blocking(move || load(&dir, engine_options));
    let mut engine = loading.await.context("the engine panicked")??;
    let mut posted: Vec<(String, Vec<TaskScore>)> = Vec::new();
    let mut n_before = 0;
    for task in tasks {
        let (name, n_requests) = (task.name().to_owned(), task.n_requests());
        let (said, of) = (Arc::clone(progress), name.clone());
        let tell = move |n_done: u64| {
            let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
            *said = Progress {
                task: Some(of.clone()),
                n_done: n_before + n_done,
                n_total,
            };
        };
        let run = move || {
            let mut tell = tell;
            let result = task.run(&mut *engine, &mut tell);
            (engine, result)
        };
        let (back, result) = tokio::task::spawn_blocking(run).await.context("the engine panicked")?;
        engine = back;
        let result = result?;
        client
            .put_samples(evaluation.id, &name, Bytes::from(result.samples_jsonl))
            .await?;
        client.post_task_scores(evaluation.id, &name, &result.scores).await?;
        posted.push((name, result.scores));
        n_before += n_requests;
    }
    let result_digest = Digest::of(&serde_json::to_vec(&posted)?);
    client
        .complete_evaluation(evaluation.id, &CompleteEvaluation { result_digest })
        .await?;
    Ok(())
}

/// Fetches the suite's files and makes the requests of its tasks.
async fn prepare(client: &Client, lease: &Lease) -> Result<Vec<PreparedTask>> {
    let overrides = Overrides {
        limit: lease.suite.limit,
        num_fewshot: lease.suite.num_fewshot,
    };
    let mut tasks = Vec::with_capacity(lease.suite.tasks.len());
    for task in &lease.suite.tasks {
        let (yaml, data) = fetch(client, lease.evaluation.suite_digest, task).await?;
        let prepare = move || PreparedTask::new(&yaml, &data, overrides);
        tasks.push(
            tokio::task::spawn_blocking(prepare)
                .await
                .context("a task's preparation panicked")??,
        );
    }
    Ok(tasks)
}

type TaskFiles = (String, BTreeMap<String, Vec<Vec<u8>>>);

async fn fetch(client: &Client, suite: Digest, task: &SuiteTask) -> Result<TaskFiles> {
    let blob = async |digest: Digest| -> Result<Vec<u8>> {
        let bytes = client.get_suite_blob(suite, digest).await?;
        anyhow::ensure!(
            Digest::of(&bytes) == digest,
            "file `{digest}` of the suite came with other bytes"
        );
        Ok(bytes.to_vec())
    };
    let yaml = String::from_utf8(blob(task.yaml.digest).await?).context("a task's YAML is no UTF-8")?;
    let mut data = BTreeMap::new();
    for (split, files) in &task.data {
        let mut contents = Vec::with_capacity(files.len());
        for file in files {
            contents.push(blob(file.digest).await?);
        }
        data.insert(split.clone(), contents);
    }
    Ok((yaml, data))
}
