//! Chunks: which are missing, taking one in, handing one out.

use std::collections::HashSet;

use bytes::Bytes;
use fineline_api::chunk::MAX_MISSING_DIGESTS;
use fineline_api::error::ErrorCode;
use fineline_api::{ChunkRef, Scope};
use fineline_format::{Digest, frame};
use metrics::counter;
use sea_orm::DatabaseTransaction;
use uuid::Uuid;

use crate::app::App;
use crate::auth::Caller;
use crate::db;
use crate::db::frame::Attached;
use crate::db::run::RunRow;
use crate::error::{ApiError, ApiResult};
use crate::service::{content, possession, push_session};
use crate::store::StoreError;

/// The chunks that the caller has to send, in the order asked.
///
/// # Errors
/// 413 for more than 10,000 digests.
pub(crate) async fn missing(app: &App, caller: &Caller, digests: Vec<Digest>) -> ApiResult<Vec<Digest>> {
    if digests.len() > MAX_MISSING_DIGESTS {
        let message = format!(
            "{} digests were asked for, at most {MAX_MISSING_DIGESTS} at once",
            digests.len()
        );
        return Err(ApiError::new(ErrorCode::TooLarge, message).hint("ask in several parts"));
    }
    let held = possession::name_chunks(app, caller, &digests).await?;
    let mut seen = HashSet::new();
    Ok(digests
        .into_iter()
        .filter(|digest| !held.contains_key(digest) && seen.insert(*digest))
        .collect())
}

/// Takes a chunk in: its frame is decoded and hashed, kept when no other holds the chunk, and the run possesses it.
///
/// # Errors
/// 404 for an unknown session, 409 for one that is not open, 422 for a frame that is refused or holds other bytes,
/// 507 when the store is full.
pub(crate) async fn put(app: &App, run: &RunRow, session: Uuid, digest: Digest, body: Bytes) -> ApiResult<()> {
    push_session::find_open(app, run, session).await?;
    let wire_bytes = body.len() as u64;
    take_in(app, run, session, digest, body).await?;
    counter!("fineline_chunk_wire_bytes_total").increment(wire_bytes);
    Ok(())
}

/// The same for a frame that came on whatever way to an open session.
///
/// # Errors
/// As [`put`].
pub(crate) async fn take_in(app: &App, run: &RunRow, session: Uuid, digest: Digest, body: Bytes) -> ApiResult<()> {
    let size_bytes = verify(app, digest, body.clone()).await?;
    let chunk = ChunkRef { digest, size_bytes };
    let frame = put_object(app, digest, body).await?;

    let txn = db::write_txn(&app.db).await?;
    let Some(superfluous) = attach(&txn, chunk, frame).await? else {
        drop(txn);
        return Err(swept(app, digest, frame).await);
    };
    if !db::push_session::touch(&txn, session, 1, size_bytes).await? {
        return Err(push_session::not_open(session));
    }
    db::possession::insert(&txn, run.id, &[digest], false).await?;
    fail_point!("chunk.attached");
    txn.commit().await?;
    if let Some(id) = superfluous {
        discard(app, id).await?;
    }
    counter!("fineline_chunks_received_total").increment(1);
    counter!("fineline_chunk_received_bytes_total").increment(size_bytes);
    Ok(())
}

/// Decodes and hashes a frame off the async threads, a bounded number at a time; gives the chunk's bytes.
async fn verify(app: &App, digest: Digest, body: Bytes) -> ApiResult<u64> {
    let _permit = app.verifications.acquire().await.map_err(ApiError::internal)?;
    let decode = move || frame::decode(&body).map(|raw| (raw.len() as u64, Digest::of(&raw)));
    let decoded = tokio::task::spawn_blocking(decode).await.map_err(ApiError::internal)?;
    let (size_bytes, found) = decoded.map_err(|error| ApiError::unprocessable(format!("chunk `{digest}`: {error}")))?;
    if found != digest {
        let message = format!("the bytes sent as chunk `{digest}` have the digest `{found}`");
        return Err(ApiError::new(ErrorCode::DigestMismatch, message).hint("read the file again and repeat the push"));
    }
    Ok(size_bytes)
}

/// Keeps a chunk that the server itself framed; nobody possesses it, and until its file is adopted nothing needs it.
///
/// # Errors
/// 507 when the store is full.
pub(crate) async fn keep(app: &App, chunk: ChunkRef, body: Bytes) -> ApiResult<()> {
    let frame = put_object(app, chunk.digest, body).await?;
    let txn = db::write_txn(&app.db).await?;
    let Some(superfluous) = attach(&txn, chunk, frame).await? else {
        drop(txn);
        return Err(swept(app, chunk.digest, frame).await);
    };
    txn.commit().await?;
    match superfluous {
        Some(id) => discard(app, id).await,
        None => Ok(()),
    }
}

/// Writes the intent, then the object, of a chunk that no sound frame holds yet; the frame's id, which is to be attached.
async fn put_object(app: &App, digest: Digest, body: Bytes) -> ApiResult<Option<Uuid>> {
    // First, so that a full store answers alike for what is held and what is not.
    app.store.check_room(body.len() as u64).map_err(store_error)?;
    if db::frame::is_held(app.db.reader(), &digest).await? {
        return Ok(None);
    }
    let id = Uuid::now_v7();
    let txn = db::write_txn(&app.db).await?;
    db::frame::intend(&txn, id, &digest, body.len()).await?;
    txn.commit().await?;
    fail_point!("chunk.intended");
    app.store.put_frame(id, body).await.map_err(store_error)?;
    fail_point!("chunk.stored");
    Ok(Some(id))
}

/// Makes sure that a live frame holds the chunk. Gives a new frame back when another was faster: it is to be discarded
/// after the commit. `None` when neither is there any more.
async fn attach(txn: &DatabaseTransaction, chunk: ChunkRef, frame: Option<Uuid>) -> ApiResult<Option<Option<Uuid>>> {
    Ok(
        match db::frame::attach(txn, frame, &chunk.digest, chunk.size_bytes).await? {
            Attached::New => Some(None),
            Attached::Held => Some(frame),
            Attached::Gone => None,
        },
    )
}

/// The answer when a sweep was faster than a put; the object that was put is taken away, since no row names it any more.
async fn swept(app: &App, digest: Digest, frame: Option<Uuid>) -> ApiError {
    if let Some(id) = frame
        && let Err(error) = discard(app, id).await
    {
        tracing::error!(%error, frame = %id, "an object without a row could not be taken away");
    }
    unavailable(format!("the frame of chunk {digest} was swept while it was put"))
}

/// Takes away a frame to which no chunk points, object first; a live one stays.
pub(crate) async fn discard(app: &App, id: Uuid) -> ApiResult<()> {
    let txn = db::write_txn(&app.db).await?;
    let dead = db::frame::begin_delete(&txn, id).await?;
    txn.commit().await?;
    if !dead {
        return Ok(());
    }
    app.store.delete_frame(id).await.map_err(store_error)?;
    let txn = db::write_txn(&app.db).await?;
    db::frame::forget(&txn, id).await?;
    Ok(txn.commit().await?)
}

/// What can be done where there is no room.
pub(crate) const NO_ROOM: &str =
    "ask the operator for room, or delete steps: reading goes on, and the same push continues later";

/// A failure of the store as the caller sees it.
pub(crate) fn store_error(error: StoreError) -> ApiError {
    count_store_error(&error);
    match error {
        StoreError::Full(_) => ApiError::new(ErrorCode::StoreFull, error.to_string()).hint(NO_ROOM),
        StoreError::Missing(_) => ApiError::internal(error),
        StoreError::Other(_) => unavailable(error),
    }
}

/// Counts a failure of the store.
pub(crate) fn count_store_error(error: &StoreError) {
    let kind = match error {
        StoreError::Missing(_) => "missing",
        StoreError::Full(_) => "full",
        StoreError::Other(_) => "other",
    };
    counter!("fineline_store_errors_total", "kind" => kind).increment(1);
}

/// 503 for what may pass; why goes to the log.
pub(crate) fn unavailable(error: impl std::fmt::Display) -> ApiError {
    tracing::error!(%error, "the store is unavailable");
    ApiError::new(ErrorCode::Unavailable, "the store is unavailable").hint("try again in a few seconds")
}

/// The frame of a chunk that the caller may name.
///
/// # Errors
/// 404 for every other.
pub(crate) async fn get(app: &App, caller: &Caller, digest: Digest) -> ApiResult<Bytes> {
    let unknown = || ApiError::not_found(format!("chunk `{digest}`"));
    if !(caller.has(Scope::Read) || caller.reads_by_lease()) {
        return Err(unknown());
    }
    if !possession::held_chunks(app, caller, &[digest])
        .await?
        .contains_key(&digest)
    {
        return Err(unknown());
    }
    // Decoded and hashed here too: a frame that does not hold its chunk is no answer, and is known as damaged from now on.
    let frame = content::read_frame(app, digest).await?.frame;
    counter!("fineline_chunk_sent_bytes_total").increment(frame.len() as u64);
    Ok(frame)
}
