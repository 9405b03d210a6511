//! Chunks: which are missing, taking one in, handing one out.

use std::collections::HashSet;

use bytes::Bytes;
use fineline_api::chunk::MAX_MISSING_DIGESTS;
use fineline_api::error::ErrorCode;
use fineline_api::{ChunkRef, Scope};
use fineline_format::{Digest, Element, frame};
use metrics::counter;
use uuid::Uuid;

use crate::app::App;
use crate::auth::Caller;
use crate::db;
use crate::db::frame::Attached;
use crate::db::run::RunRow;
use crate::error::{ApiError, ApiResult};
use crate::service::intake::{self, Row};
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
    take_frame(app, run, session, digest, body).await?;
    counter!("fineline_chunk_wire_bytes_total").increment(wire_bytes);
    Ok(())
}

/// The same for a frame that came on whatever way to an open session.
///
/// # Errors
/// As [`put`].
pub(crate) async fn take_frame(app: &App, run: &RunRow, session: Uuid, digest: Digest, body: Bytes) -> ApiResult<()> {
    let size_bytes = verify(app, digest, body.clone()).await?;
    let chunk = ChunkRef { digest, size_bytes };
    take_in(app, chunk, Body::Frame(body), Some((run.id, session))).await?;
    counter!("fineline_chunks_received_total").increment(1);
    counter!("fineline_chunk_received_bytes_total").increment(size_bytes);
    Ok(())
}

/// Decodes and hashes a frame; gives the chunk's bytes.
async fn verify(app: &App, digest: Digest, body: Bytes) -> ApiResult<u64> {
    let decoded = app.decoders.run(move |decoder| decoder.digest(&body)).await;
    let decoded = decoded.map_err(ApiError::internal)?;
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
    take_in(app, chunk, Body::Frame(body), None).await
}

/// Takes in a chunk that the server itself read and hashed for an open session of a run.
///
/// # Errors
/// 409 when the session is not open any more, 507 when the store is full.
pub(crate) async fn take_raw(
    app: &App,
    run_id: i64,
    session: Uuid,
    chunk: ChunkRef,
    raw: Bytes,
    element: Element,
) -> ApiResult<()> {
    take_in(app, chunk, Body::Raw(raw, element), Some((run_id, session))).await
}

/// What is to be kept of a chunk.
enum Body {
    /// Its frame.
    Frame(Bytes),
    /// Its bytes, which are framed only where no frame holds them yet.
    Raw(Bytes, Element),
}

impl Body {
    /// Its bytes, as they are or framed.
    fn len(&self) -> usize {
        match self {
            Self::Frame(bytes) | Self::Raw(bytes, _) => bytes.len(),
        }
    }

    async fn framed(self) -> ApiResult<Bytes> {
        match self {
            Self::Frame(frame) => Ok(frame),
            Self::Raw(raw, element) => {
                let encode = move || Bytes::from(frame::encode(&raw, element));
                tokio::task::spawn_blocking(encode).await.map_err(ApiError::internal)
            }
        }
    }
}

/// Makes sure that a live frame holds the chunk: intent, object, live row; and that its pusher's run possesses it.
async fn take_in(app: &App, chunk: ChunkRef, body: Body, pusher: Option<(i64, Uuid)>) -> ApiResult<()> {
    let digest = chunk.digest;
    let frame = put_object(app, digest, body).await?;
    match intake::write(app, Row::Arrival { chunk, frame, pusher }).await? {
        Attached::New => Ok(()),
        Attached::Held => match frame {
            // Another put was faster.
            Some(superfluous) => discard(app, superfluous).await,
            None => Ok(()),
        },
        Attached::Gone => Err(swept(app, digest, frame).await),
    }
}

/// Writes the intent, then the object, of a chunk that no sound frame holds yet; the frame's id, which is to be attached.
async fn put_object(app: &App, digest: Digest, body: Body) -> ApiResult<Option<Uuid>> {
    // First, so that a full store answers alike for what is held and what is not.
    app.store.check_room(body.len() as u64).map_err(store_error)?;
    if db::frame::is_held(app.db.reader(), &digest).await? {
        return Ok(None);
    }
    let body = body.framed().await?;
    let (id, stored_bytes) = (Uuid::now_v7(), body.len());
    let intent = Row::Intent {
        id,
        chunk: digest,
        stored_bytes,
    };
    intake::write(app, intent).await?;
    fail_point!("chunk.intended");
    app.store.put_frame(id, body).await.map_err(store_error)?;
    fail_point!("chunk.stored");
    Ok(Some(id))
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

/// The frame of a chunk that the caller may name, as it is stored: its reader decodes and hashes it. With `verify` that is
/// done here first, and a frame that does not hold its chunk is no answer and is known as damaged from now on: for a reader
/// who found it so.
///
/// # Errors
/// 404 for a chunk that the caller may not name, 500 for one that is damaged.
pub(crate) async fn get(app: &App, caller: &Caller, digest: Digest, verify: bool) -> ApiResult<Bytes> {
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
    let frame = match verify {
        true => content::read_frame(app, digest).await?.frame,
        false => content::stored_frame(app, digest).await?.1,
    };
    counter!("fineline_chunk_sent_bytes_total").increment(frame.len() as u64);
    Ok(frame)
}
