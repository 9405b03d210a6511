//! A checkpoint comes to this machine: into the worker's cache where it has one and there is room, else into a folder that goes
//! again; with the tokenizer that its run lends it.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use fineline_api::{Evaluation, Lease, Reference};
use fineline_client::{Client, PullOptions, pull};
use fineline_format::Digest;
use fineline_format::evaluable::TOKENIZER_FILES;

use crate::cache::{Cache, Held, Hold};
use crate::scratch::Scratch;
use crate::worker::WorkerOptions;

/// How long a checkpoint's folder in the cache is waited for, which another worker may keep until its turn comes.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often it is looked whether the folder is free.
const LOOK: Duration = Duration::from_millis(500);

/// A checkpoint on this machine. Its folder goes when this does, or is free in the cache.
pub(crate) struct Fetched {
    scratch: Scratch,
    _held: Option<Held>,
    /// How long it took, but for waiting for the cache.
    pub(crate) took: Duration,
}

impl Fetched {
    /// The folder with its files.
    pub(crate) fn path(&self) -> &Path {
        self.scratch.path()
    }
}

/// Pulls the checkpoint.
///
/// # Errors
/// What the server or the disk stood in the way with.
pub(crate) async fn fetch(client: &Client, options: &WorkerOptions, lease: &Lease) -> Result<Fetched> {
    let evaluation = &lease.evaluation;
    let scratch = Scratch::new(&options.scratch_dir())?;
    let held = held(client, options, evaluation).await?;
    let begun = Instant::now();
    let pull_options = PullOptions {
        // What is in the cache with other bytes is damage.
        overwrite: held.is_some(),
        ..PullOptions::default()
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
    Ok(Fetched {
        scratch,
        _held: held,
        took: begun.elapsed(),
    })
}

/// The checkpoint's folder in the worker's cache, if it has one and there is room.
async fn held(client: &Client, options: &WorkerOptions, evaluation: &Evaluation) -> Result<Option<Held>> {
    let Some(dir) = &options.cache else {
        return Ok(None);
    };
    let (reference, digest) = (Reference::Digest(evaluation.checkpoint), evaluation.checkpoint);
    let size_bytes = client.get_checkpoint(&evaluation.run, &reference).await?.size_bytes;
    let max_bytes = options.cache_gib.saturating_mul(1 << 30);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let dir = dir.clone();
        let hold = move || Cache::open(&dir, max_bytes)?.hold(digest, size_bytes);
        match tokio::task::spawn_blocking(hold)
            .await
            .context("the cache panicked")??
        {
            Hold::Held(held) => return Ok(Some(held)),
            Hold::InUse if Instant::now() < deadline => tokio::time::sleep(LOOK).await,
            Hold::InUse => {
                tracing::warn!(checkpoint = %digest, "another worker uses it in the cache, so it is fetched once more");
                return Ok(None);
            }
            Hold::NoRoom => {
                tracing::warn!(checkpoint = %digest, size_bytes, max_bytes, "the cache has no room, so it is not kept");
                return Ok(None);
            }
        }
    }
}

/// Puts the tokenizer that the lease lends beside the checkpoint's files in `dir`, in place of what is there of one.
/// Nothing happens when the checkpoint has its own.
async fn fetch_tokenizer(client: &Client, lease: &Lease, dir: &Path) -> Result<()> {
    if lease.tokenizer.is_empty() {
        return Ok(());
    }
    // Half a tokenizer of the checkpoint's own is no part of the model that the lease names.
    for name in TOKENIZER_FILES {
        if dir.join(name).exists() {
            std::fs::remove_file(dir.join(name)).with_context(|| format!("can't take `{name}` away"))?;
        }
    }
    for file in &lease.tokenizer {
        let path = file.path.as_str();
        ensure!(TOKENIZER_FILES.contains(&path), "`{path}` is no file of a tokenizer");
        let bytes = client.get_tokenizer_file(lease.evaluation.id, path).await?;
        ensure!(
            Digest::of(&bytes) == file.digest,
            "tokenizer file `{path}` came with other bytes"
        );
        std::fs::write(dir.join(path), bytes).with_context(|| format!("can't write `{path}`"))?;
    }
    Ok(())
}
