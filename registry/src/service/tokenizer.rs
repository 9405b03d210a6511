//! A run's default tokenizer: lent to the steps that have none of their own, which makes them models to evaluate.
//!
//! **Invariant:** a revision's model digest and the tokenizer that it was made with are written together, and an
//! evaluation keeps the tokenizer that it was queued with, whatever the run's default becomes later.

use bytes::Bytes;
use fineline_api::{CheckpointState, DefaultTokenizer, EventKind, Scope, SetTokenizer, TokenizerFile};
use fineline_format::{Digest, Manifest};
use sea_orm::{ConnectionTrait, DatabaseTransaction};
use serde_json::json;
use uuid::Uuid;

use crate::app::App;
use crate::auth::Caller;
use crate::db;
use crate::db::file::FileRow;
use crate::db::revision::RevisionRow;
use crate::db::run::RunRow;
use crate::db::tokenizer::TokenizerFiles;
use crate::error::{ApiError, ApiResult};
use crate::service::backfill::coarse_to_fine;
use crate::service::{checkpoint, content, enqueue, model, possession};

/// Revisions that one transaction looks at.
const BATCH: usize = 100;

/// The most bytes of a tokenizer's file.
pub(crate) const MAX_FILE_BYTES: u64 = 64 << 20;

/// Makes the tokenizer of a checkpoint that the caller reads the run's default, and every step that only lacked one
/// evaluable. Steps that were given another default before follow when `backfill` is said.
///
/// # Errors
/// 404 for a checkpoint that the caller may not read, 422 for one without a tokenizer.
pub(crate) async fn set(app: &App, caller: &Caller, run: &RunRow, new: SetTokenizer) -> ApiResult<DefaultTokenizer> {
    let source = caller.run(app, &new.run, Scope::Read).await?;
    let revision = checkpoint::resolve(app, caller, &source, &new.reference).await?;
    let manifest = possession::manifest(app, &revision).await?;
    let files = model::own_tokenizer(&manifest).ok_or_else(|| {
        let message = format!(
            "checkpoint `{}@{}` has neither tokenizer.json nor tokenizer.model",
            new.run, new.reference
        );
        ApiError::unprocessable(message).hint("push the tokenizer's files as a step of a run, and name that")
    })?;
    if let Some(large) = manifest
        .files()
        .iter()
        .find(|file| files.contains_key(&file.path) && file.size_bytes > MAX_FILE_BYTES)
    {
        let (path, size) = (&large.path, large.size_bytes);
        return Err(ApiError::unprocessable(format!(
            "file `{path}` has {size} bytes and may have {MAX_FILE_BYTES}"
        )));
    }
    let rows = db::file::find_many(app.db.reader(), &files.values().copied().collect::<Vec<_>>()).await?;
    make_default(app, run, files, rows.values(), new.backfill).await
}

/// Makes a tokenizer whose files are stored the run's default.
///
/// # Errors
/// 503 when a chunk of a file was collected meanwhile.
pub(crate) async fn make_default(
    app: &App,
    run: &RunRow,
    files: TokenizerFiles,
    rows: impl Iterator<Item = &FileRow>,
    backfill: bool,
) -> ApiResult<DefaultTokenizer> {
    let digest = model::tokenizer_digest(&files);
    let txn = db::write_txn(&app.db).await?;
    db::tokenizer::insert(&txn, &digest, &files).await?;
    // Kept by the server itself: what they come from may go.
    for row in rows {
        content::adopt(&txn, row).await?;
    }
    db::run::set_tokenizer(&txn, run.id, &digest).await?;
    txn.commit().await?;
    let mut told = lend_to_all(app, run.id, backfill).await?;
    told.files = files.into_keys().collect();
    Ok(told)
}

/// Lends every run's default to the steps that still lack one: what a crash between the two halves of [`set`] left.
pub(crate) async fn catch_up(app: &App) -> ApiResult<()> {
    for run_id in db::run::with_tokenizer(app.db.reader()).await? {
        lend_to_all(app, run_id, false).await?;
    }
    Ok(())
}

/// Lends the run's default to its steps, coarse to fine, a batch a transaction.
async fn lend_to_all(app: &App, run_id: i64, backfill: bool) -> ApiResult<DefaultTokenizer> {
    let conn = app.db.reader();
    let run = db::run::get(conn, run_id).await?;
    let digest = run
        .tokenizer
        .ok_or_else(|| ApiError::internal("a run that lends has no tokenizer"))?;
    let mut told = DefaultTokenizer {
        digest,
        files: Vec::new(),
        n_evaluable: 0,
        n_changed: 0,
        n_left: 0,
        n_queued: 0,
    };
    let mut rows = lack_only_a_tokenizer(app, db::revision::to_lend(conn, run_id, &digest).await?).await?;
    if !backfill {
        let n = rows.len();
        rows.retain(|row| row.model_digest.is_none());
        told.n_left = (n - rows.len()) as u64;
    }
    let order: Vec<_> = (1..).zip(coarse_to_fine(rows.len())).collect();
    for batch in order.chunks(BATCH) {
        let txn = db::write_txn(&app.db).await?;
        for &(place, at) in batch {
            lend_late(&txn, &run, rows[at].id, place, &mut told).await?;
        }
        txn.commit().await?;
    }
    if told.n_evaluable + told.n_changed > 0 {
        app.changed.notify_waiters();
    }
    Ok(told)
}

/// Those that a tokenizer would make models: nothing is written for the others.
async fn lack_only_a_tokenizer(app: &App, rows: Vec<RevisionRow>) -> ApiResult<Vec<RevisionRow>> {
    let digests: Vec<Digest> = rows.iter().filter_map(|row| row.checkpoint).collect();
    let contents = db::checkpoint::find_many(app.db.reader(), &digests).await?;
    let lacks = |row: &RevisionRow| {
        let content = row.checkpoint.and_then(|digest| contents.get(&digest));
        let manifest = content.and_then(|content| Manifest::from_json(&content.manifest).ok());
        manifest
            .is_some_and(|manifest| manifest.get("config.json").is_some() && model::own_tokenizer(&manifest).is_none())
    };
    Ok(rows.into_iter().filter(lacks).collect())
}

/// Lends to one ready revision and queues what the run's suites ask of the model that it becomes.
async fn lend_late(
    txn: &DatabaseTransaction,
    run: &RunRow,
    revision_id: i64,
    place: i64,
    told: &mut DefaultTokenizer,
) -> ApiResult<()> {
    let mut row = db::revision::get(txn, revision_id).await?;
    let was_evaluable = row.model_digest.is_some();
    if !row.current || row.state != CheckpointState::Ready {
        return Ok(());
    }
    let manifest = manifest(txn, &row).await?;
    if !lend(txn, run.id, &mut row, &manifest).await? {
        return Ok(());
    }
    db::revision::set_model(txn, &row).await?;
    let data = json!({ "model_digest": row.model_digest, "tokenizer": row.tokenizer });
    db::event::insert(txn, run.id, row.step, EventKind::CheckpointEvaluable, data).await?;
    told.n_queued += enqueue::for_revision_at(txn, run, &row, place).await?;
    if was_evaluable {
        told.n_changed += 1;
    } else {
        told.n_evaluable += 1;
    }
    Ok(())
}

async fn manifest(txn: &DatabaseTransaction, row: &RevisionRow) -> ApiResult<Manifest> {
    let digests: Vec<Digest> = row.checkpoint.into_iter().collect();
    let found = db::checkpoint::find_many(txn, &digests).await?.into_values().next();
    let found = found.ok_or_else(|| ApiError::internal("a ready revision has no checkpoint"))?;
    Manifest::from_json(&found.manifest).map_err(ApiError::internal)
}

/// Gives a revision without a tokenizer of its own the model digest that it has by its run's default. Whether that is
/// another than it had; the caller writes it.
pub(crate) async fn lend(
    txn: &DatabaseTransaction,
    run_id: i64,
    revision: &mut RevisionRow,
    manifest: &Manifest,
) -> ApiResult<bool> {
    // Read in this transaction: it may have been set since the run was looked up.
    let Some(digest) = db::run::get(txn, run_id).await?.tokenizer else {
        return Ok(false);
    };
    if model::own_tokenizer(manifest).is_some() {
        return Ok(false);
    }
    let files = db::tokenizer::find(txn, &digest).await?;
    let model = model::model_digest(manifest, &files, revision.weights_digest);
    if model.is_none() || model == revision.model_digest {
        return Ok(false);
    }
    revision.model_digest = model;
    revision.tokenizer = Some(digest);
    Ok(true)
}

/// The files of the tokenizer that an evaluation was queued with; none when the checkpoint has its own.
pub(crate) async fn lent(conn: &impl ConnectionTrait, tokenizer: Option<Digest>) -> ApiResult<Vec<TokenizerFile>> {
    let Some(digest) = tokenizer else { return Ok(Vec::new()) };
    let files = db::tokenizer::find(conn, &digest).await?.into_iter();
    Ok(files.map(|(path, digest)| TokenizerFile { path, digest }).collect())
}

/// A file of the tokenizer that an evaluation was queued with, for the worker that holds its lease.
///
/// # Errors
/// 404 when the caller holds no lease for it, or it has no such file.
pub(crate) async fn file(app: &App, caller: &Caller, evaluation: Uuid, path: &str) -> ApiResult<Bytes> {
    let conn = app.db.reader();
    let unknown = || ApiError::not_found(format!("tokenizer file `{path}` of evaluation `{evaluation}`"));
    let token_id = caller.token_id.ok_or_else(unknown)?;
    let leased = db::lease::leased_tokenizer(conn, token_id, evaluation).await?;
    let files = lent(conn, leased).await?;
    let file = files.iter().find(|file| file.path == path).ok_or_else(unknown)?;
    content::read_content(app, &file.digest).await
}
