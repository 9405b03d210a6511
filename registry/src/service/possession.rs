//! The possession rule: a digest may be named only by who can read it through a checkpoint, or who writes to a run into
//! which its bytes were put. Every door that takes or answers a digest asks here; for everyone else a held digest is an
//! unknown one.

use std::collections::{HashMap, HashSet};

use fineline_api::Scope;
use fineline_format::{Digest, Manifest};
use futures::{StreamExt, TryStreamExt, stream};
use sea_orm::ConnectionTrait;

use crate::app::App;
use crate::auth::Caller;
use crate::db;
use crate::db::possession::NamedChunk;
use crate::db::revision::RevisionRow;
use crate::error::{ApiError, ApiResult};

/// Statements that one question asks at the same time.
const BATCHES_AT_ONCE: usize = 4;

/// The raw sizes of those of these chunks that are stored and that the caller may name.
pub(crate) async fn held_chunks(app: &App, caller: &Caller, digests: &[Digest]) -> ApiResult<HashMap<Digest, u64>> {
    let held = held(app, caller, digests).await?;
    let asked: Vec<Digest> = digests
        .iter()
        .filter(|digest| held.contains(*digest))
        .copied()
        .collect();
    Ok(db::frame::stored(app.db.reader(), &asked).await?)
}

/// The same for a writer who goes on to rely on the answer: what is named stays for a grace from now on, also where its
/// last checkpoint was just deleted.
pub(crate) async fn name_chunks(app: &App, caller: &Caller, digests: &[Digest]) -> ApiResult<HashMap<Digest, u64>> {
    let unpublished = caller.has(Scope::Write);
    // Each answer is of one statement, so the batches need no moment in common and may be asked beside each other.
    let ask = |batch: Vec<Digest>| async move {
        db::possession::named_chunks(app.db.reader(), caller.holders(), unpublished, &batch).await
    };
    // In the order of the key, so that the rows of a batch lie side by side in its tree, however many others there are.
    let mut sorted = digests.to_vec();
    sorted.sort_unstable();
    let batches: Vec<Vec<Digest>> = sorted.chunks(db::BATCH).map(<[Digest]>::to_vec).collect();
    let answers: Vec<HashMap<Digest, NamedChunk>> = stream::iter(batches)
        .map(ask)
        .buffer_unordered(BATCHES_AT_ONCE)
        .try_collect()
        .await?;
    let named: HashMap<Digest, NamedChunk> = answers.into_iter().flatten().collect();
    if named.values().all(|chunk| !chunk.is_going) {
        let sizes = named.into_iter().map(|(digest, chunk)| (digest, chunk.size_bytes));
        return Ok(sizes.collect());
    }
    let txn = db::write_txn(&app.db).await?;
    // Some of it may have gone since: what is still there is taken back, and that is the answer.
    let held = writable_chunks(&txn, caller, digests).await?;
    let named: Vec<Digest> = held.keys().copied().collect();
    db::possession::revive(&txn, caller.holders(), &named).await?;
    let held = db::frame::revive_many(&txn, &named).await?;
    txn.commit().await?;
    Ok(held)
}

async fn writable_chunks(
    conn: &impl ConnectionTrait,
    caller: &Caller,
    digests: &[Digest],
) -> ApiResult<HashMap<Digest, u64>> {
    let unpublished = caller.has(Scope::Write);
    let held = db::possession::held(conn, caller.holders(), unpublished, digests).await?;
    let held: Vec<Digest> = held.into_iter().collect();
    Ok(db::frame::stored(conn, &held).await?)
}

async fn held(app: &App, caller: &Caller, digests: &[Digest]) -> ApiResult<HashSet<Digest>> {
    if caller.has(Scope::Read) {
        let unpublished = caller.has(Scope::Write);
        return Ok(db::possession::held(app.db.reader(), caller.holders(), unpublished, digests).await?);
    }
    let mut held = HashSet::new();
    for revision_id in leased_revisions(app, caller).await? {
        let revision = db::revision::get(app.db.reader(), revision_id).await?;
        let chunks = chunks_of(app, &revision).await?;
        held.extend(digests.iter().filter(|digest| chunks.contains(*digest)));
    }
    Ok(held)
}

/// Whether the caller may read a revision of a run that its pattern matches: a caller that reads by lease only what it
/// holds a live lease for.
pub(crate) async fn readable(app: &App, caller: &Caller, revision: &RevisionRow) -> ApiResult<bool> {
    Ok(caller.has(Scope::Read) || leased_revisions(app, caller).await?.contains(&revision.id))
}

async fn leased_revisions(app: &App, caller: &Caller) -> ApiResult<Vec<i64>> {
    match caller.token_id {
        Some(token_id) if caller.has(Scope::Evaluate) => {
            Ok(db::lease::leased_revisions(app.db.reader(), token_id).await?)
        }
        _ => Ok(Vec::new()),
    }
}

/// All chunks of a ready revision.
async fn chunks_of(app: &App, revision: &RevisionRow) -> ApiResult<HashSet<Digest>> {
    let manifest = manifest(app, revision).await?;
    let digests: Vec<Digest> = manifest.files().iter().map(|file| file.digest).collect();
    let files = db::file::find_many(app.db.reader(), &digests).await?;
    Ok(files
        .values()
        .flat_map(|file| &file.chunks)
        .map(|chunk| chunk.digest)
        .collect())
}

/// The manifest of a ready revision.
pub(crate) async fn manifest(app: &App, revision: &RevisionRow) -> ApiResult<Manifest> {
    let digest = revision
        .checkpoint
        .ok_or_else(|| ApiError::internal("a ready revision has no checkpoint"))?;
    let rows = db::checkpoint::find_many(app.db.reader(), &[digest]).await?;
    let row = rows
        .get(&digest)
        .ok_or_else(|| ApiError::internal(format!("checkpoint {digest} has no row")))?;
    Manifest::from_json(&row.manifest).map_err(|error| ApiError::internal(format!("checkpoint {digest}: {error}")))
}
