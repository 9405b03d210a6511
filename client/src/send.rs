//! Sending what the registry lacks: batches of chunks as they come from the pass, then the files.
//!
//! **Invariant:** at most [`SENDING_BYTES`] of frames are made or on the wire, whatever the chunks' sizes.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use fineline_api::{CheckpointFile, RunName};
use fineline_format::frame::Encoder;
use fineline_format::{Buffers, Digest};
use futures::{StreamExt as _, TryStreamExt as _};
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use uuid::Uuid;

use crate::blocking::Tools;
use crate::direct::DirectPush;
use crate::error::Result;
use crate::http::Client;
use crate::pass::{Batch, Piece};
use crate::progress::Meter;

/// Calls in flight at once.
const N_IN_FLIGHT: usize = 16;
/// Raw bytes of the chunks whose frames are being made or on their way: what an interruption can cost. Three of the largest.
const SENDING_BYTES: u32 = 48 << 20;
/// Well under the time after which a silent session expires.
const HEARTBEAT_EVERY: Duration = Duration::from_secs(20);

/// Sends to one push session; clones share its bounds and counts.
#[derive(Clone)]
pub(crate) struct Sender {
    client: Client,
    run: RunName,
    session: Uuid,
    encoders: Tools<Encoder>,
    buffers: Buffers,
    calls: Arc<Semaphore>,
    sending: Arc<Semaphore>,
    /// Chunks that this push has met: the second one needs nothing.
    met: Arc<Mutex<HashSet<Digest>>>,
    n_chunks: Arc<AtomicU64>,
    raw_bytes: Arc<AtomicU64>,
    frame_bytes: Arc<AtomicU64>,
    direct: Arc<DirectPush>,
}

/// What was sent.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    pub(crate) n_chunks: u64,
    pub(crate) raw_bytes: u64,
    pub(crate) frame_bytes: u64,
    /// Those of them that went straight to the bucket.
    pub(crate) direct_bytes: u64,
}

impl Sender {
    pub(crate) fn new(client: &Client, run: &RunName, session: Uuid) -> Self {
        Self {
            client: client.clone(),
            run: run.clone(),
            session,
            encoders: Tools::new(),
            buffers: client.buffers().clone(),
            calls: Arc::new(Semaphore::new(N_IN_FLIGHT)),
            sending: Arc::new(Semaphore::new(SENDING_BYTES as usize)),
            met: Arc::default(),
            n_chunks: Arc::default(),
            raw_bytes: Arc::default(),
            frame_bytes: Arc::default(),
            direct: DirectPush::new(client, run, session),
        }
    }

    /// Sends what is missing of a batch.
    pub(crate) async fn offer(self, batch: Batch, meter: Meter) -> Result<()> {
        let Batch { pieces, permit } = batch;
        let new = |piece: &Piece| {
            let mut met = self.met.lock().unwrap_or_else(PoisonError::into_inner);
            met.insert(piece.chunk.digest)
        };
        let (new, known): (Vec<_>, Vec<_>) = pieces.into_iter().partition(new);
        let digests: Vec<Digest> = new.iter().map(|piece| piece.chunk.digest).collect();
        let missing: HashSet<Digest> = match digests.is_empty() {
            true => HashSet::new(),
            false => self
                .client
                .missing_chunks(&self.run, digests)
                .await?
                .into_iter()
                .collect(),
        };
        let (missing, held): (Vec<_>, Vec<_>) =
            new.into_iter().partition(|piece| missing.contains(&piece.chunk.digest));
        for piece in known.into_iter().chain(held) {
            meter.add(piece.chunk.size_bytes);
        }
        let puts = missing
            .into_iter()
            .map(|piece| self.clone().send_chunk(piece, meter.clone()));
        let sent = futures::stream::iter(puts)
            .buffer_unordered(N_IN_FLIGHT)
            .try_for_each(|()| async { Ok(()) })
            .await;
        drop(permit);
        sent
    }

    async fn send_chunk(self, piece: Piece, meter: Meter) -> Result<()> {
        let (chunk, element) = (piece.chunk, piece.element);
        let raw_bytes = u32::try_from(chunk.size_bytes).expect("a chunk has at most 16 MiB");
        let closed = "the semaphores are never closed";
        let _sending = self.sending.acquire_many(raw_bytes).await.expect(closed);
        let mut frame = self.buffers.empty(raw_bytes as usize);
        let encode = move |encoder: &mut Encoder| {
            encoder.encode(piece.raw.as_ref(), element, &mut frame);
            frame
        };
        let frame = Bytes::from_owner(self.encoders.work(encode).await);
        let frame_bytes = frame.len() as u64;
        let _call = self.calls.acquire().await.expect(closed);
        self.put_chunk(chunk.digest, frame).await?;
        fail_point!("push.chunk_sent");
        self.n_chunks.fetch_add(1, Ordering::Relaxed);
        self.raw_bytes.fetch_add(chunk.size_bytes, Ordering::Relaxed);
        self.frame_bytes.fetch_add(frame_bytes, Ordering::Relaxed);
        meter.add(chunk.size_bytes);
        Ok(())
    }

    /// By way of the bucket where that works, else through the registry.
    async fn put_chunk(&self, digest: Digest, frame: Bytes) -> Result<()> {
        if self.direct.put(digest, frame.clone()).await? {
            return Ok(());
        }
        self.client.put_chunk(&self.run, digest, self.session, frame).await
    }

    /// Names all files, whose chunks are there by now.
    pub(crate) async fn add_files(&self, files: &[CheckpointFile]) -> Result<()> {
        let files: Vec<_> = files.iter().cloned().map(|file| self.clone().add_file(file)).collect();
        futures::stream::iter(files)
            .buffer_unordered(N_IN_FLIGHT)
            .try_for_each(|()| async { Ok(()) })
            .await
    }

    async fn add_file(self, file: CheckpointFile) -> Result<()> {
        self.client
            .add_push_session_file(&self.run, self.session, &file)
            .await?;
        fail_point!("push.file_added");
        Ok(())
    }

    /// What was sent by now.
    pub(crate) fn sent(&self) -> Sent {
        Sent {
            n_chunks: self.n_chunks.load(Ordering::Relaxed),
            raw_bytes: self.raw_bytes.load(Ordering::Relaxed),
            frame_bytes: self.frame_bytes.load(Ordering::Relaxed),
            direct_bytes: self.direct.moved_bytes(),
        }
    }

    /// Speaks to the session now and then, until the guard is dropped.
    pub(crate) fn heartbeat(&self) -> HeartbeatGuard {
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

/// Ends the heartbeat when it is dropped.
pub(crate) struct HeartbeatGuard(AbortHandle);

impl Drop for HeartbeatGuard {
    fn drop(&mut self) {
        self.0.abort();
    }
}
