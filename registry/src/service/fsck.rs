//! Checking that what the database says is true: structure, and where asked every byte.

use std::collections::HashMap;

use fineline_api::{CheckpointState, ChunkRef, RunPattern};
use fineline_format::{Digest, Manifest};
use serde::Serialize;

use crate::app::App;
use crate::db;
use crate::db::frame::FrameState;
use crate::db::revision::RevisionFilter;
use crate::error::ApiResult;
use crate::service::content;

const BATCH: u64 = 500;

/// What was looked at, and what is wrong.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    pub(crate) n_chunks: u64,
    pub(crate) n_files: u64,
    pub(crate) n_checkpoints: u64,
    pub(crate) read_bytes: u64,
    /// A sentence each.
    pub(crate) problems: Vec<String>,
}

/// Checks frames and chunks, then files, then what runs point to; with `read_data` every byte too.
///
/// # Errors
/// When the database is down; what is wrong with its content is in the report.
pub(crate) async fn check(app: &App, read_data: bool) -> ApiResult<Report> {
    let mut report = Report::default();
    let sizes = check_chunks(app, read_data, &mut report).await?;
    check_files(app, read_data, &sizes, &mut report).await?;
    check_runs(app, &mut report).await?;
    Ok(report)
}

async fn check_chunks(app: &App, read_data: bool, report: &mut Report) -> ApiResult<HashMap<Digest, u64>> {
    let mut sizes = HashMap::new();
    let mut after = None;
    loop {
        let rows = db::frame::list_chunks(app.db.reader(), after.as_ref(), BATCH).await?;
        let Some((last, _)) = rows.last() else { return Ok(sizes) };
        after = Some(last.digest);
        for (chunk, state) in rows {
            let digest = chunk.digest;
            report.n_chunks += 1;
            sizes.insert(digest, chunk.size_bytes);
            if state.as_deref() != Some(FrameState::Live.as_str()) {
                let state = state.unwrap_or_else(|| "missing".to_owned());
                report.problems.push(format!(
                    "chunk {digest} points to frame {} which is {state}",
                    chunk.frame_id
                ));
            }
            if read_data {
                let size_bytes = chunk.size_bytes;
                match content::read_chunk(app, ChunkRef { digest, size_bytes }).await {
                    Ok(_) => report.read_bytes += size_bytes,
                    Err(error) => report.problems.push(error.to_string()),
                }
            } else if !app.store.has_frame(chunk.frame_id).await {
                report.problems.push(format!(
                    "object of frame {} (chunk {digest}) is missing",
                    chunk.frame_id
                ));
            }
        }
    }
}

async fn check_files(app: &App, read_data: bool, sizes: &HashMap<Digest, u64>, report: &mut Report) -> ApiResult<()> {
    let mut after = None;
    loop {
        let rows = db::file::list(app.db.reader(), after.as_ref(), BATCH).await?;
        let Some(last) = rows.last() else { return Ok(()) };
        after = Some(last.digest);
        for file in rows {
            report.n_files += 1;
            let wrong = |chunk: &&ChunkRef| sizes.get(&chunk.digest) != Some(&chunk.size_bytes);
            if let Some(chunk) = file.chunks.iter().find(wrong) {
                report.problems.push(format!(
                    "file {} needs chunk {}, which is not held",
                    file.digest, chunk.digest
                ));
                continue;
            }
            if file.chunks.iter().map(|chunk| chunk.size_bytes).sum::<u64>() != file.size_bytes {
                report.problems.push(format!(
                    "the recipe of file {} does not add up to its size",
                    file.digest
                ));
            } else if read_data
                && !content::hash_stored(app, &file.chunks)
                    .await
                    .is_ok_and(|d| d == file.digest)
            {
                report
                    .problems
                    .push(format!("file {} reads back with another digest", file.digest));
            }
        }
    }
}

async fn check_runs(app: &App, report: &mut Report) -> ApiResult<()> {
    let conn = app.db.reader();
    let mut after_run = None;
    while let Some(run) = db::run::list(conn, &[], after_run.as_ref(), 1).await?.pop() {
        let filter = RevisionFilter {
            state: Some(CheckpointState::Ready),
            all_revisions: true,
            ..RevisionFilter::default()
        };
        let mut after = None;
        loop {
            let rows = db::revision::list(conn, run.id, filter, after, BATCH).await?;
            let Some(last) = rows.last() else { break };
            after = Some((last.step, last.id));
            for revision in rows {
                report.n_checkpoints += 1;
                let name = format!("{}@{}", run.name, revision.step);
                if let Err(problem) = check_revision(app, &run.name, revision.checkpoint).await? {
                    report.problems.push(format!("{name}: {problem}"));
                }
                if db::revision::current(conn, run.id, revision.step).await?.is_none() {
                    report
                        .problems
                        .push(format!("{name}: is ready and the step points to nothing"));
                }
            }
        }
        after_run = Some(run.name);
    }
    Ok(())
}

async fn check_revision(
    app: &App,
    run: &fineline_api::RunName,
    checkpoint: Option<Digest>,
) -> ApiResult<Result<(), String>> {
    let conn = app.db.reader();
    let Some(digest) = checkpoint else {
        return Ok(Err("is ready and has no checkpoint".to_owned()));
    };
    let rows = db::checkpoint::find_many(conn, &[digest]).await?;
    let Some(row) = rows.get(&digest) else {
        return Ok(Err(format!("checkpoint {digest} has no row")));
    };
    let manifest = match Manifest::from_json(&row.manifest) {
        Ok(manifest) if manifest.digest() == digest => manifest,
        _ => return Ok(Err(format!("the manifest of checkpoint {digest} has another digest"))),
    };
    let digests: Vec<Digest> = manifest.files().iter().map(|file| file.digest).collect();
    let files = db::file::find_many(conn, &digests).await?;
    let mut named = vec![digest];
    for file in manifest.files() {
        match files.get(&file.digest) {
            Some(row) if row.size_bytes == file.size_bytes => {
                named.push(file.digest);
                named.extend(row.chunks.iter().map(|chunk| chunk.digest));
            }
            Some(_) => return Ok(Err(format!("file `{}` has another size in its row", file.path))),
            None => return Ok(Err(format!("file `{}` ({}) has no row", file.path, file.digest))),
        }
    }
    let held = db::possession::held(conn, &RunPattern::One(run.clone()), false, &named).await?;
    Ok(match named.iter().find(|digest| !held.contains(*digest)) {
        Some(digest) => Err(format!("the run does not possess {digest}")),
        None => Ok(()),
    })
}
