//! The possession rule: a digest may be named only by who can read it through a checkpoint, or who writes to a run into
//! which its bytes were put. Every door that takes or answers a digest asks here; for everyone else a held digest is an
//! unknown one.

use std::collections::{HashMap, HashSet};

use fineline_api::Scope;
use fineline_format::{Digest, Manifest};
use sea_orm::{ConnectionTrait, DbErr};

use crate::app::App;
use crate::auth::Caller;
use crate::db;
use crate::db::possession::NamedChunk;
use crate::db::revision::RevisionRow;
use crate::error::{ApiError, ApiResult};

/// The raw sizes of those of these chunks that are stored and that the caller may name.
pub(crate) async fn held_chunks(app: &App, caller: &Caller, digests: &[Digest]) -> ApiResult<HashMap<Digest, u64>> {
    if caller.has(Scope::Read) {
        return Ok(sizes(named(app.db.reader(), caller, digests).await?));
    }
    let mut leased = HashSet::new();
    for revision_id in leased_revisions(app, caller).await? {
        let revision = db::revision::get(app.db.reader(), revision_id).await?;
        let chunks = chunks_of(app, &revision).await?;
        leased.extend(digests.iter().filter(|digest| chunks.contains(*digest)).copied());
    }
    let leased: Vec<Digest> = leased.into_iter().collect();
    Ok(db::frame::stored(app.db.reader(), &leased).await?)
}

/// The same for a writer who goes on to rely on the answer: what is named stays for a grace from now on, also where its
/// last checkpoint was just deleted.
pub(crate) async fn name_chunks(app: &App, caller: &Caller, digests: &[Digest]) -> ApiResult<HashMap<Digest, u64>> {
    let there = named(app.db.reader(), caller, digests).await?;
    if there.values().all(|chunk| !chunk.is_going) {
        return Ok(sizes(there));
    }
    let txn = db::write_txn(&app.db).await?;
    // Some of it may have gone since: what is still there is taken back, and that is the answer.
    let there: Vec<Digest> = named(&txn, caller, digests).await?.into_keys().collect();
    db::possession::revive(&txn, caller.holders(), &there).await?;
    let held = db::frame::revive_many(&txn, &there).await?;
    txn.commit().await?;
    Ok(held)
}

async fn named(
    conn: &impl ConnectionTrait,
    caller: &Caller,
    digests: &[Digest],
) -> Result<HashMap<Digest, NamedChunk>, DbErr> {
    db::possession::named_chunks(conn, caller.holders(), caller.has(Scope::Write), digests).await
}

fn sizes(named: HashMap<Digest, NamedChunk>) -> HashMap<Digest, u64> {
    let size = |(digest, chunk): (Digest, NamedChunk)| (digest, chunk.size_bytes);
    named.into_iter().map(size).collect()
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
