//! Sending the chunks of a planned push that the registry lacks, and its files.
//!
//! **Invariant:** at most [`SENDING_BYTES`] are on the wire and [`HELD_BYTES`] in memory, whatever the chunks' sizes.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use fineline_api::chunk::MAX_MISSING_DIGESTS;
use fineline_api::{CheckpointFile, RunName};
use fineline_format::{Digest, frame};
use futures::{StreamExt as _, TryStreamExt as _};
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use uuid::Uuid;

use crate::blocking::blocking;
use crate::direct::DirectPush;
use crate::error::{Error, Result};
use crate::folder::LocalFile;
use crate::http::Client;
use crate::plan::{Plan, PlannedChunk, read_chunk};
use crate::progress::{Meter, Phase, Progress};

/// Calls in flight at once.
const N_IN_FLIGHT: usize = 16;
/// Frames that are on their way: what an interruption can cost. Three of the largest chunks.
const SENDING_BYTES: u32 = 48 << 20;
/// Raw bytes of chunks that are read, encoded or on their way.
const HELD_BYTES: u32 = 96 << 20;
/// Well under the time after which a silent session expires.
const HEARTBEAT_EVERY: Duration = Duration::from_secs(20);

/// Sends to one push session; clones share its bounds and counts.
#[derive(Clone)]
pub(crate) struct Sender {
    client: Client,
    run: RunName,
    session: Uuid,
    files: Arc<Vec<LocalFile>>,
    held: Arc<Semaphore>,
    sending: Arc<Semaphore>,
    direct: Arc<DirectPush>,
    frame_bytes: Arc<AtomicU64>,
}

/// What was sent.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) n_chunks: u64,
    pub(crate) raw_bytes: u64,
    pub(crate) frame_bytes: u64,
    /// Those of them that went straight to the bucket.
    pub(crate) direct_bytes: u64,
}

impl Sender {
    pub(crate) fn new(client: &Client, run: &RunName, session: Uuid, files: &[LocalFile]) -> Self {
        Self {
            client: client.clone(),
            run: run.clone(),
            session,
            files: Arc::new(files.to_vec()),
            held: Arc::new(Semaphore::new(HELD_BYTES as usize)),
            sending: Arc::new(Semaphore::new(SENDING_BYTES as usize)),
            direct: DirectPush::new(client, run, session),
            frame_bytes: Arc::default(),
        }
    }

    /// Sends what is missing of the chunks, then all files; keeps the session alive meanwhile.
    pub(crate) async fn send(&self, plan: &Plan, progress: impl Fn(&Progress) + Send + Sync + 'static) -> Result<Sent> {
        let _heartbeat = self.heartbeat();
        let missing = self.missing(&plan.chunks).await?;
        let raw_bytes = missing.iter().map(|chunk| chunk.size_bytes).sum();
        let n_chunks = missing.len() as u64;
        let meter = Meter::new(progress, Phase::Sending, raw_bytes);
        let (sender, counter) = (self.clone(), meter.clone());
        let chunks = missing
            .into_iter()
            .map(move |chunk| sender.clone().send_chunk(chunk, counter.clone()));
        futures::stream::iter(chunks)
            .buffer_unordered(N_IN_FLIGHT)
            .try_for_each(|()| async { Ok(()) })
            .await?;
        let sender = self.clone();
        let files = plan
            .files
            .clone()
            .into_iter()
            .map(move |file| sender.clone().add_file(file));
        futures::stream::iter(files)
            .buffer_unordered(N_IN_FLIGHT)
            .try_for_each(|()| async { Ok(()) })
            .await?;
        meter.next(Phase::Verifying, 0);
        Ok(Sent {
            n_chunks,
            raw_bytes,
            frame_bytes: self.frame_bytes.load(Ordering::Relaxed),
            direct_bytes: self.direct.moved_bytes(),
        })
    }

    async fn missing(&self, chunks: &[PlannedChunk]) -> Result<Vec<PlannedChunk>> {
        let mut missing = Vec::new();
        for batch in chunks.chunks(MAX_MISSING_DIGESTS) {
            let digests = batch.iter().map(|chunk| chunk.digest).collect();
            let lacking: HashSet<_> = self
                .client
                .missing_chunks(&self.run, digests)
                .await?
                .into_iter()
                .collect();
            missing.extend(batch.iter().filter(|chunk| lacking.contains(&chunk.digest)).cloned());
        }
        Ok(missing)
    }

    async fn send_chunk(self, chunk: PlannedChunk, meter: Meter) -> Result<()> {
        let size_bytes = chunk.size_bytes;
        let _held = acquire(&self.held, size_bytes).await;
        let (files, digest, file) = (Arc::clone(&self.files), chunk.digest, chunk.file);
        let frame = blocking(move || -> Result<_> {
            let raw = read_chunk(&files[chunk.file], &chunk)?;
            Ok(frame::encode(&raw, chunk.element))
        });
        let frame = frame.await?;
        let frame_bytes = frame.len() as u64;
        let _sending = acquire(&self.sending, frame_bytes).await;
        match self.put_chunk(digest, frame.into()).await {
            // The server hashed what came: the file is not what it was when it was hashed here.
            Err(Error::DigestMismatch(_)) => return Err(Error::Changed(self.files[file].location.clone())),
            result => result?,
        }
        fail_point!("push.chunk_sent");
        self.frame_bytes.fetch_add(frame_bytes, Ordering::Relaxed);
        meter.add(size_bytes);
        Ok(())
    }

    /// By way of the bucket where that works, else through the registry.
    async fn put_chunk(&self, digest: Digest, frame: Bytes) -> Result<()> {
        if self.direct.put(digest, frame.clone()).await? {
            return Ok(());
        }
        self.client.put_chunk(&self.run, digest, self.session, frame).await
    }

    async fn add_file(self, file: CheckpointFile) -> Result<()> {
        self.client
            .add_push_session_file(&self.run, self.session, &file)
            .await?;
        fail_point!("push.file_added");
        Ok(())
    }

    /// Speaks to the session now and then, until the guard is dropped.
    fn heartbeat(&self) -> HeartbeatGuard {
        let sender = self.clone();
        let task = tokio::spawn(async move {
            loop {
                tokio::time::sleep(HEARTBEAT_EVERY).await;
                // If the session is gone, the next chunk or the commit says so.
                if let Err(error) = sender.client.heartbeat_push_session(&sender.run, sender.session).await {
                    tracing::debug!(%error, "a heartbeat of a push session failed");
                }
            }
        });
        HeartbeatGuard(task.abort_handle())
    }
}

struct HeartbeatGuard(AbortHandle);

impl Drop for HeartbeatGuard {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn acquire(semaphore: &Semaphore, n_bytes: u64) -> tokio::sync::SemaphorePermit<'_> {
    let permits = u32::try_from(n_bytes).expect("a chunk has at most 16 MiB, and its frame little more");
    semaphore
        .acquire_many(permits)
        .await
        .expect("the semaphore is never closed")
}
