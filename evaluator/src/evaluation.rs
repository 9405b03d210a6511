//! What one lease asks for: pull the checkpoint, make the requests, load the model, score and post task by task.
//!
//! **Invariant:** a task's sample log is stored before its scores, so a scored task is a whole one, and the next lease
//! goes on behind it. When the lease is lost the engine stops at its next layer.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use fineline_api::{Evaluation, Lease, Progress, Reference, result_digest, scores_digest};
use fineline_client::{Client, PullOptions, pull};
use fineline_format::Digest;
use fineline_format::suite::{EvalDtype, SuiteTask};
use tempfile::TempDir;

use crate::cache::{Cache, Held};
use crate::engine::{Done, Engine, EngineOptions};
use crate::lent::fetch_tokenizer;
use crate::task::{Overrides, PreparedTask, TaskResult};
use crate::worker::{LoadEngine, WorkerOptions};

/// A checkpoint on this machine. Its folder goes when this does, or is free in the cache.
pub(crate) struct Fetched {
    dir: TempDir,
    held: Option<Held>,
}

/// Does what the lease asks for, all but what is scored already, and returns what its completion has to name. `fetched` is what
/// [`fetch`] gave, where the checkpoint was fetched before.
///
/// # Errors
/// What the server, the disk, the tasks' files or the model stood in the way with.
pub(crate) async fn evaluate(
    client: &Client,
    options: &WorkerOptions,
    load: &LoadEngine,
    lease: &Lease,
    fetched: Option<Result<Fetched>>,
    progress: &Arc<Mutex<Progress>>,
) -> Result<Digest> {
    let id = lease.evaluation.id;
    let scored = lease.scored.iter().map(|task| (task.task.clone(), task.scores_digest));
    let mut scored: BTreeMap<String, Digest> = scored.collect();
    let tasks = prepare(client, lease).await?;
    fail_point!("worker.prepared");
    let n_total = tasks.iter().map(PreparedTask::n_requests).sum();
    let (done, tasks): (Vec<_>, Vec<_>) = tasks.into_iter().partition(|task| scored.contains_key(task.name()));
    let n_scored = done.iter().map(PreparedTask::n_requests).sum();
    let mut told = Told {
        progress: Arc::clone(progress),
        task: None,
        begun: Instant::now(),
        n_scored,
        n_before: n_scored,
        n_tokens_before: 0,
        n_total,
    };
    told.say(Done::default());
    if !tasks.is_empty() {
        let fetched = match fetched {
            Some(fetched) => fetched?,
            None => fetch(client, options, lease).await?,
        };
        let mut engine = engine(options, load, &lease.evaluation, fetched).await?;
        for task in tasks {
            let (name, n_requests) = (task.name().to_owned(), task.n_requests());
            told.task = Some(name.clone());
            let (back, n_tokens, result) = run(engine, task, told.clone()).await?;
            engine = back;
            fail_point!("worker.measured");
            client.put_samples(id, &name, Bytes::from(result.samples_jsonl)).await?;
            fail_point!("worker.samples_put");
            client.post_task_scores(id, &name, &result.scores).await?;
            fail_point!("worker.scores_posted");
            scored.insert(name, scores_digest(&result.scores));
            told.n_before += n_requests;
            told.n_tokens_before += n_tokens;
        }
    }
    Ok(result_digest(&scored))
}

/// Pulls the checkpoint.
///
/// # Errors
/// What the server or the disk stood in the way with.
pub(crate) async fn fetch(client: &Client, options: &WorkerOptions, lease: &Lease) -> Result<Fetched> {
    let evaluation = &lease.evaluation;
    let scratch = match &options.scratch {
        Some(dir) => tempfile::tempdir_in(dir),
        None => tempfile::tempdir(),
    };
    let scratch = scratch.context("a folder for the checkpoint")?;
    let held = held(client, options, evaluation).await?;
    let pull_options = PullOptions {
        // What is in the cache with other bytes is damage.
        overwrite: held.is_some(),
    };
    pull(
        client,
        &evaluation.run,
        &Reference::Digest(evaluation.checkpoint),
        held.as_ref().map_or(scratch.path(), |held| &held.dir),
        &pull_options,
        |_| {},
    )
    .await?;
    if let Some(held) = &held {
        held.show_in(scratch.path())?;
    }
    fetch_tokenizer(client, lease, scratch.path()).await?;
    fail_point!("worker.pulled");
    Ok(Fetched { dir: scratch, held })
}

/// Loads it. The engine holds the model in memory.
async fn engine(
    options: &WorkerOptions,
    load: &LoadEngine,
    evaluation: &Evaluation,
    fetched: Fetched,
) -> Result<Box<dyn Engine>> {
    let dtype: EvalDtype = evaluation.dtype.parse().map_err(anyhow::Error::msg)?;
    let engine_options = EngineOptions {
        dtype,
        max_batch_tokens: options.batch_tokens,
        ..EngineOptions::default()
    };
    let load = Arc::clone(load);
    let loading = tokio::task::spawn_blocking(move || {
        let Fetched { dir, held } = fetched;
        let engine = load(dir.path(), engine_options);
        drop(held);
        engine
    });
    let engine = loading.await.context("the engine panicked")??;
    fail_point!("worker.loaded");
    Ok(engine)
}

/// The checkpoint's folder in the worker's cache, if it has one and there is room.
async fn held(client: &Client, options: &WorkerOptions, evaluation: &Evaluation) -> Result<Option<Held>> {
    let Some(dir) = options.cache.clone() else {
        return Ok(None);
    };
    let (reference, digest) = (Reference::Digest(evaluation.checkpoint), evaluation.checkpoint);
    let size_bytes = client.get_checkpoint(&evaluation.run, &reference).await?.size_bytes;
    let max_bytes = options.cache_gib.saturating_mul(1 << 30);
    let hold = move || Cache::open(&dir, max_bytes)?.hold(digest, size_bytes);
    let held = tokio::task::spawn_blocking(hold)
        .await
        .context("the cache panicked")??;
    if held.is_none() {
        tracing::warn!(checkpoint = %digest, size_bytes, max_bytes, "the cache has no room, so the checkpoint is not kept");
    }
    Ok(held)
}

/// Where the progress of a task is told.
#[derive(Clone)]
struct Told {
    progress: Arc<Mutex<Progress>>,
    task: Option<String>,
    begun: Instant,
    /// Requests of the tasks that an earlier lease did.
    n_scored: u64,
    /// Requests of the tasks before this one, whoever did them.
    n_before: u64,
    /// Tokens computed for the tasks before this one.
    n_tokens_before: u64,
    n_total: u64,
}

impl Told {
    fn say(&self, done: Done) {
        let n_done = self.n_before + done.n_requests;
        let (n_mine, n_tokens) = (n_done - self.n_scored, self.n_tokens_before + done.n_tokens);
        let seconds = self.begun.elapsed().as_secs_f64();
        let left_s = (self.n_total - n_done) as f64 * seconds / n_mine as f64;
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        *progress = Progress {
            task: self.task.clone(),
            n_done,
            n_total: self.n_total,
            tokens_per_s: (n_tokens > 0).then(|| n_tokens as f64 / seconds),
            eta_s: (n_mine > 0).then_some(left_s as u64),
        };
    }
}

/// Says so when it is dropped.
struct Unwanted(Arc<AtomicBool>);

impl Drop for Unwanted {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs a task on a thread that may block, and gives the engine back with the tokens that it computed; dropping this ends it at
/// its next layer.
async fn run(
    mut engine: Box<dyn Engine>,
    task: PreparedTask,
    told: Told,
) -> Result<(Box<dyn Engine>, u64, TaskResult)> {
    let unwanted = Arc::new(AtomicBool::new(false));
    let _unwanted_when_dropped = Unwanted(Arc::clone(&unwanted));
    let run = move || {
        fail_point!("worker.measuring");
        let mut n_tokens = 0;
        let mut tell = |done: Done| {
            ensure!(!unwanted.load(Ordering::Relaxed), "the work is dropped");
            n_tokens = done.n_tokens;
            told.say(done);
            Ok(())
        };
        let result = task.run(&mut *engine, &mut tell);
        (engine, n_tokens, result)
    };
    let (engine, n_tokens, result) = tokio::task::spawn_blocking(run).await.context("the engine panicked")?;
    Ok((engine, n_tokens, result?))
}

/// Fetches the suite's files and makes the requests of its tasks.
async fn prepare(client: &Client, lease: &Lease) -> Result<Vec<PreparedTask>> {
    let overrides = Overrides {
        limit: lease.suite.limit,
        num_fewshot: lease.suite.num_fewshot,
    };
    let mut tasks = Vec::with_capacity(lease.suite.tasks.len());
    for task in &lease.suite.tasks {
        let (yaml, data) = task_files(client, lease.evaluation.suite_digest, task).await?;
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

async fn task_files(client: &Client, suite: Digest, task: &SuiteTask) -> Result<TaskFiles> {
    let blob = async |digest: Digest| -> Result<Vec<u8>> {
        let bytes = client.get_suite_blob(suite, digest).await?;
        ensure!(
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
