//! Reading checkpoints: resolving references, describing, listing.

use std::collections::HashMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use fineline_api::reference::LATEST;
use fineline_api::{Checkpoint, CheckpointFile, CheckpointState, Event, Page, Reference, Scope, Tensor};
use fineline_format::{Digest, FileEntry, Manifest, evaluable, weights};

use crate::app::App;
use crate::auth::Caller;
use crate::db;
use crate::db::checkpoint::CheckpointRow;
use crate::db::file::FileRow;
use crate::db::revision::{Of, RevisionFilter, RevisionRow};
use crate::db::run::RunRow;
use crate::error::{ApiError, ApiResult};
use crate::service::{content, possession};

/// The ready revision that a reference means: a step's current one, any with that digest, what a release, a tag or
/// `latest` points to, or the one that was pushed under that spelling.
///
/// # Errors
/// 404 when there is none, or the caller reads by lease and holds none for it.
pub(crate) async fn resolve(app: &App, caller: &Caller, run: &RunRow, reference: &Reference) -> ApiResult<RevisionRow> {
    let conn = app.db.reader();
    let found = match reference {
        Reference::Step(step) => match db::revision::current(conn, run.id, *step).await? {
            None => by_name(app, run, &reference.to_string()).await?,
            found => found,
        },
        Reference::Digest(digest) => by_digest(app, caller, run, digest).await?,
        Reference::Name(name) => by_name(app, run, name).await?,
    };
    let unknown = || {
        ApiError::not_found(format!("checkpoint `{reference}` in run `{}`", run.name))
            .hint(format!("`fineline ls {}` lists them", run.name))
    };
    let revision = found
        .filter(|row| row.state == CheckpointState::Ready)
        .ok_or_else(unknown)?;
    if possession::readable(app, caller, &revision).await? {
        Ok(revision)
    } else {
        Err(unknown())
    }
}

/// Of the revisions that hold a checkpoint the first that the caller may read: a lease is for one of them.
async fn by_digest(app: &App, caller: &Caller, run: &RunRow, digest: &Digest) -> ApiResult<Option<RevisionRow>> {
    for revision in db::revision::ready_ones(app.db.reader(), run.id, Of::Checkpoint(digest)).await? {
        if possession::readable(app, caller, &revision).await? {
            return Ok(Some(revision));
        }
    }
    Ok(None)
}

async fn by_name(app: &App, run: &RunRow, name: &str) -> ApiResult<Option<RevisionRow>> {
    let conn = app.db.reader();
    if let Some(id) = db::tag::resolve(conn, run.id, name).await? {
        return Ok(Some(db::revision::get(conn, id).await?));
    }
    if name == LATEST {
        return Ok(db::revision::latest(conn, run.id, None).await?);
    }
    Ok(db::revision::by_label(conn, run.id, name).await?)
}

/// Whether a checkpoint is known and everything that it needs is stored, as far as is known.
pub(crate) async fn is_whole(app: &App, checkpoint: &Digest) -> ApiResult<bool> {
    let conn = app.db.reader();
    let rows = db::checkpoint::find_many(conn, &[*checkpoint]).await?;
    let Some(row) = rows.get(checkpoint) else {
        return Ok(false);
    };
    let manifest = Manifest::from_json(&row.manifest).map_err(ApiError::internal)?;
    for entry in manifest.files() {
        let file = db::file::find(conn, &entry.digest).await?;
        match file.filter(|file| file.size_bytes == entry.size_bytes) {
            Some(file) if content::is_sound(app, &file).await? => {}
            _ => return Ok(false),
        }
    }
    Ok(true)
}

/// Revisions as the API shows them.
pub(crate) async fn describe(app: &App, run: &RunRow, rows: Vec<RevisionRow>) -> ApiResult<Vec<Checkpoint>> {
    let conn = app.db.reader();
    let ids: Vec<i64> = rows.iter().map(|row| row.id).collect();
    let digests: Vec<_> = rows.iter().filter_map(|row| row.checkpoint).collect();
    let checkpoints = db::checkpoint::find_many(conn, &digests).await?;
    let mut names = db::tag::names(conn, &ids).await?;
    let counts = db::evaluation::count_by_revision(conn, &ids).await?;
    let steps: Vec<u64> = rows.iter().map(|row| row.step).collect();
    let replaced = db::revision::replaced(conn, run.id, &steps).await?;
    let models: Vec<Digest> = rows.iter().filter_map(|row| row.model_digest).collect();
    let by_model = db::revision::steps_by_model(conn, run.id, &models).await?;
    let time = |ms| DateTime::<Utc>::from_timestamp_millis(ms).unwrap_or_default();
    let describe = |row: RevisionRow| {
        let content = row.checkpoint.and_then(|digest| checkpoints.get(&digest));
        let not_evaluable = content.and_then(|content| not_evaluable(&row, content));
        let replaced = replaced.get(&row.step).filter(|_| row.current);
        let same_model = row.model_digest.and_then(|model| by_model.get(&model));
        let others = same_model.into_iter().flatten().filter(|step| **step != row.step);
        Checkpoint {
            replaced: replaced.cloned().unwrap_or_default(),
            same_model_steps: others.copied().collect(),
            run: run.name.clone(),
            step: row.step,
            label: row.label,
            state: row.state,
            current: row.current,
            evaluable: row.model_digest.is_some(),
            not_evaluable,
            digest: row.checkpoint,
            weights_digest: row.weights_digest,
            model_digest: row.model_digest,
            architecture: content.and_then(|content| content.architecture.clone()),
            tokens: row.tokens,
            loss: row.loss,
            metadata: row.metadata,
            tags: names.remove(&row.id).unwrap_or_default(),
            n_files: content.map_or(0, |content| content.n_files),
            size_bytes: content.map_or(0, |content| content.size_bytes),
            warnings: row.warnings,
            failure: row.failure,
            evaluations: counts.get(&row.id).copied().unwrap_or_default(),
            created_at: time(row.created_at_ms),
            ready_at: row.ready_at_ms.map(time),
        }
    };
    Ok(rows.into_iter().map(describe).collect())
}

/// Why a ready revision can't be evaluated.
pub(crate) fn not_evaluable(row: &RevisionRow, content: &CheckpointRow) -> Option<String> {
    if row.state != CheckpointState::Ready || row.model_digest.is_some() {
        return None;
    }
    let manifest = Manifest::from_json(&content.manifest).ok()?;
    let has_weights = content.weights_digest.is_some();
    let obstacle = evaluable::obstacle(&manifest, has_weights, evaluable::has_tokenizer(&manifest));
    // Nothing is in the way today, and its model digest was worked out by an earlier server.
    Some(obstacle.unwrap_or_else(|| {
        "it was published when tokenizer.model alone was not read: delete the step and push it again".to_owned()
    }))
}

/// A page of a run's checkpoints by step.
///
/// # Errors
/// 400 for a cursor that is none of ours.
pub(crate) async fn list(
    app: &App,
    run: &RunRow,
    filter: RevisionFilter,
    cursor: Option<&str>,
    limit: u64,
) -> ApiResult<Page<Checkpoint>> {
    let after = cursor.map(parse_cursor).transpose()?;
    let mut rows = db::revision::list(app.db.reader(), run.id, filter, after, limit + 1).await?;
    let more = rows.len() as u64 > limit;
    rows.truncate(limit as usize);
    let next_cursor = rows
        .last()
        .filter(|_| more)
        .map(|row| format!("{}.{}", row.step, row.id));
    Ok(Page {
        items: describe(app, run, rows).await?,
        next_cursor,
    })
}

fn parse_cursor(cursor: &str) -> ApiResult<(u64, i64)> {
    let parsed = cursor
        .split_once('.')
        .and_then(|(step, id)| Some((step.parse().ok()?, id.parse().ok()?)));
    parsed.ok_or_else(|| {
        ApiError::invalid(format!(
            "cursor `{cursor}` is none: take `next_cursor` of the page before"
        ))
    })
}

/// The files of a checkpoint, with their recipes when `recipes` is asked.
pub(crate) async fn files(app: &App, revision: &RevisionRow, recipes: bool) -> ApiResult<Vec<CheckpointFile>> {
    let manifest = possession::manifest(app, revision).await?;
    let digests: Vec<Digest> = manifest.files().iter().map(|entry| entry.digest).collect();
    let rows = if recipes {
        db::file::find_many(app.db.reader(), &digests).await?
    } else {
        HashMap::new()
    };
    let describe = |entry: &FileEntry| {
        let chunks = match rows.get(&entry.digest) {
            Some(row) => {
                content::check_recipe(row)?;
                row.chunks.clone()
            }
            None if recipes => return Err(no_row(&entry.digest)),
            None => Vec::new(),
        };
        Ok(CheckpointFile {
            path: entry.path.clone(),
            size_bytes: entry.size_bytes,
            digest: entry.digest,
            chunks,
        })
    };
    manifest.files().iter().map(describe).collect()
}

async fn stored(app: &App, digest: &Digest) -> ApiResult<FileRow> {
    let row = db::file::find(app.db.reader(), digest).await?;
    let row = row.ok_or_else(|| no_row(digest))?;
    content::check_recipe(&row)?;
    Ok(row)
}

fn no_row(digest: &Digest) -> ApiError {
    ApiError::internal(format!("file {digest} of a ready checkpoint has no row"))
}

/// One file of a checkpoint.
///
/// # Errors
/// 404 when the checkpoint has none at that path.
pub(crate) async fn file(app: &App, revision: &RevisionRow, path: &str) -> ApiResult<FileRow> {
    let manifest = possession::manifest(app, revision).await?;
    let entry = manifest
        .get(path)
        .ok_or_else(|| ApiError::not_found(format!("file `{path}` in this checkpoint")))?;
    stored(app, &entry.digest).await
}

/// The tensors of a checkpoint's weights, by name.
pub(crate) async fn tensors(app: &App, revision: &RevisionRow) -> ApiResult<Vec<Tensor>> {
    let manifest = possession::manifest(app, revision).await?;
    let index = match weights::index_path(&manifest).and_then(|path| manifest.get(&path)) {
        Some(entry) => Some(content::read_content(app, &entry.digest).await?),
        None => None,
    };
    let found = weights::weight_files(&manifest, index.as_deref()).map_err(ApiError::internal)?;
    let mut tensors = Vec::new();
    for path in found.map(|found| found.shards).unwrap_or_default() {
        let Some(entry) = manifest.get(&path) else { continue };
        let rows = stored(app, &entry.digest).await?.tensors.unwrap_or_default();
        tensors.extend(rows.into_iter().map(|row| Tensor {
            name: row.name,
            dtype: row.dtype,
            shape: row.shape,
            digest: row.digest,
            path: path.clone(),
        }));
    }
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(tensors)
}

/// The events of a run after `after`; waits up to `wait` for the first.
pub(crate) async fn events(app: &App, run: &RunRow, after: i64, limit: u64, wait: Duration) -> ApiResult<Vec<Event>> {
    let deadline = tokio::time::Instant::now() + wait;
    loop {
        let changed = app.changed.notified();
        let events = db::event::list(app.db.reader(), run, after, limit).await?;
        if !events.is_empty() || tokio::time::Instant::now() >= deadline {
            return Ok(events);
        }
        let look_again = (tokio::time::Instant::now() + Duration::from_secs(1)).min(deadline);
        let _ = tokio::time::timeout_at(look_again, changed).await;
    }
}

/// Demands a reader who is no worker: lists, scores and events are not a lease's.
///
/// # Errors
/// 403.
pub(crate) fn require_reader(caller: &Caller) -> ApiResult<()> {
    caller.require(Scope::Read)
}
