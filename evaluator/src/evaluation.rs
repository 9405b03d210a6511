//! What one lease asks for: pull the checkpoint, make the requests, load the model, score and post task by task.
//!
//! **Invariant:** a task's sample log is stored before its scores, so a scored task is a whole one, and the next lease
//! goes on behind it. When the lease is lost the engine stops at its next layer. A worker that is told to end begins no task.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use fineline_api::{Lease, result_digest, scores_digest};
use fineline_client::Client;
use fineline_format::Digest;
use fineline_format::suite::{EvalDtype, SuiteTask};

use crate::engine::Done;
use crate::fetch::{Fetched, fetch};
use crate::loader::Loaded;
use crate::status::{Meter, SharedStatus};
use crate::task::{Overrides, PreparedTask, TaskResult};
use crate::telemetry::Activity;
use crate::worker::Worker;

/// How far an evaluation came.
#[derive(Debug)]
pub(crate) enum Came {
    /// To its end, with what its completion has to name.
    Done(Digest),
    /// Behind a task, since the worker is to end.
    Stopped,
}

/// Does what the lease asks for, all but what is scored already, until the worker is to end. `fetched` is what [`fetch`] gave,
/// where the checkpoint was fetched before.
///
/// # Errors
/// What the server, the disk, the tasks' files or the model stood in the way with.
pub(crate) async fn evaluate(
    worker: &Worker,
    client: &Client,
    lease: &Lease,
    fetched: Option<Fetched>,
    status: &SharedStatus,
) -> Result<Came> {
    let id = lease.evaluation.id;
    let scored = lease.scored.iter().map(|task| (task.task.clone(), task.scores_digest));
    let mut scored: BTreeMap<String, Digest> = scored.collect();
    let ready = tokio::select! {
        ready = get_ready(worker, client, lease, fetched, status) => ready?,
        () = worker.stop.asked() => return Ok(Came::Stopped),
    };
    if let Some((mut loaded, tasks, mut meter)) = ready {
        worker.metrics.turn_to(Activity::Computing);
        let mut tasks = tasks.into_iter().peekable();
        while let Some(task) = tasks.next() {
            if worker.stop.is_asked() {
                return Ok(Came::Stopped);
            }
            let name = task.name().to_owned();
            meter.begin(&task);
            if let Some(next) = tasks.peek() {
                loaded.engine.expect(&|| next.asked());
            }
            let (back, n_tokens, result) = run(worker, loaded, task, meter.clone()).await?;
            loaded = back;
            fail_point!("worker.measured");
            client.put_samples(id, &name, Bytes::from(result.samples_jsonl)).await?;
            fail_point!("worker.samples_put");
            client.post_task_scores(id, &name, &result.scores).await?;
            fail_point!("worker.scores_posted");
            scored.insert(name, scores_digest(&result.scores));
            meter.end(n_tokens);
        }
    }
    Ok(Came::Done(result_digest(&scored)))
}

/// Makes the requests of the tasks that are not scored yet and loads the model; `None` when all are.
async fn get_ready(
    worker: &Worker,
    client: &Client,
    lease: &Lease,
    fetched: Option<Fetched>,
    status: &SharedStatus,
) -> Result<Option<(Loaded, Vec<PreparedTask>, Meter)>> {
    let is_scored = |task: &PreparedTask| lease.scored.iter().any(|scored| scored.task == task.name());
    let tasks = prepare(client, lease).await?;
    fail_point!("worker.prepared");
    let (done, tasks): (Vec<_>, Vec<_>) = tasks.into_iter().partition(is_scored);
    let mut meter = Meter::new(status.clone(), &done, &tasks);
    if tasks.is_empty() {
        return Ok(None);
    }
    let fetched = match fetched {
        Some(fetched) => fetched,
        None => fetch(client, &worker.options, lease).await?,
    };
    let dtype: EvalDtype = lease.evaluation.dtype.parse().map_err(anyhow::Error::msg)?;
    let loaded = worker.loader.load(&worker.options, dtype, fetched).await?;
    fail_point!("worker.loaded");
    meter.loaded(loaded.preparation);
    Ok(Some((loaded, tasks, meter)))
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
    worker: &Worker,
    mut loaded: Loaded,
    task: PreparedTask,
    meter: Meter,
) -> Result<(Loaded, u64, TaskResult)> {
    let (metrics, batch_tokens) = (Arc::clone(&worker.metrics), worker.options.batch_tokens());
    let unwanted = Arc::new(AtomicBool::new(false));
    let _unwanted_when_dropped = Unwanted(Arc::clone(&unwanted));
    let run = move || {
        fail_point!("worker.measuring");
        let (mut n_tokens, mut counted) = (0, Done::default());
        let mut tell = |done: Done| {
            ensure!(!unwanted.load(Ordering::Relaxed), "the work is dropped");
            n_tokens = done.n_tokens;
            metrics.count(&mut counted, done, batch_tokens);
            meter.say(done);
            Ok(())
        };
        let result = task.run(&mut *loaded.engine, &mut tell);
        (loaded, n_tokens, result)
    };
    let (loaded, n_tokens, result) = tokio::task::spawn_blocking(run).await.context("the engine panicked")?;
    Ok((loaded, n_tokens, result?))
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
