//! Checking that what the database says is true: `fsck` its structure, `scrub` every stored byte too. What is found is
//! named with the steps that it concerns; a chunk found damaged counts as missing from then on, so that the next push
//! that has it repairs it, and one found sound again counts as held.

use std::collections::{HashMap, HashSet};

use fineline_api::{CheckpointState, ChunkRef};
use fineline_format::{Digest, Manifest};
use serde::Serialize;

use crate::app::App;
use crate::db;
use crate::db::file::FileRow;
use crate::db::frame::{ChunkRow, FrameRow, FrameState};
use crate::db::revision::{RevisionFilter, RevisionRow};
use crate::db::run::RunRow;
use crate::error::ApiResult;
use crate::service::content::{self, ReadError};
use crate::store::StoreError;

const BATCH: u64 = 500;

/// What was looked at, and what is wrong.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    pub(crate) n_chunks: u64,
    pub(crate) n_files: u64,
    pub(crate) n_checkpoints: u64,
    /// Raw bytes of the chunks that were read and hashed; 0 for `fsck`.
    pub(crate) read_bytes: u64,
    pub(crate) problems: Vec<Problem>,
}

/// One thing that is wrong.
#[derive(Debug, Serialize)]
pub(crate) struct Problem {
    pub(crate) kind: ProblemKind,
    /// What it is about: a chunk, a file, a checkpoint.
    pub(crate) digest: Option<Digest>,
    /// A sentence.
    pub(crate) message: String,
    /// The checkpoints that it concerns, as `NAMESPACE/NAME@STEP`.
    pub(crate) checkpoints: Vec<String>,
}

/// What can be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ProblemKind {
    /// The object of a frame is not in the store.
    ObjectMissing,
    /// The object of a frame has another size than was put.
    ObjectSize,
    /// A frame does not decode to its chunk.
    FrameDamaged,
    /// A chunk points to no frame, to one of another chunk, or to one that is no live one.
    ChunkFrame,
    /// A chunk that is needed lies in a condemned frame.
    CondemnedNeeded,
    /// A file needs a chunk that is not held.
    ChunkMissing,
    /// A file's recipe does not add up to its size.
    RecipeSize,
    /// A file's chunks together are not the file.
    FileDigest,
    /// A row that a checkpoint needs is missing or says something else.
    CheckpointRow,
    /// A run does not possess what its checkpoint holds.
    Possession,
}

/// Checks frames and chunks, then files, then what runs point to; with `read_data` every byte too.
///
/// # Errors
/// When database or store are down; what is wrong with their content is in the report.
pub(crate) async fn check(app: &App, read_data: bool) -> ApiResult<Report> {
    // A bucket that is gone or another one says of every object that it is missing.
    match app.store.probe().await {
        // One without room is still good to read from.
        Ok(()) | Err(StoreError::Full(_)) => {}
        Err(error) => return Err(content::store_down(error)),
    }
    let mut report = Report::default();
    let sizes = check_chunks(app, read_data, &mut report).await?;
    check_files(app, read_data, &sizes, &mut report).await?;
    check_runs(app, &mut report).await?;
    Ok(report)
}

impl Report {
    fn add(&mut self, kind: ProblemKind, digest: impl Into<Option<Digest>>, message: String) {
        self.problems.push(Problem {
            kind,
            digest: digest.into(),
            message,
            checkpoints: Vec::new(),
        });
    }
}

async fn check_chunks(app: &App, read_data: bool, report: &mut Report) -> ApiResult<HashMap<Digest, u64>> {
    let (mut sizes, mut after) = (HashMap::new(), None);
    loop {
        let rows = db::frame::list_chunks(app.db.reader(), after.as_ref(), BATCH).await?;
        let Some((last, _)) = rows.last() else { break };
        after = Some(last.digest);
        for (chunk, frame) in rows {
            report.n_chunks += 1;
            sizes.insert(chunk.digest, chunk.size_bytes);
            let mut problem = check_chunk(app, &chunk, frame.as_ref(), read_data, report).await?;
            if problem.is_some() && is_another(app, &chunk).await? {
                problem = None;
            }
            // The next push repairs it, or it was repaired by hand.
            if problem.is_some() != chunk.damaged && (problem.is_some() || read_data) {
                content::set_damaged(app, &chunk, problem.is_some()).await?;
            }
            if let Some((kind, message)) = problem {
                report.add(kind, chunk.digest, message);
            }
        }
    }
    for digest in db::collect::condemned_needed(app.db.reader(), BATCH).await? {
        let message = format!("chunk {digest} is needed and its frame is condemned: the next collection revives it");
        report.add(ProblemKind::CondemnedNeeded, digest, message);
    }
    Ok(sizes)
}

/// Whether a chunk was collected, or given another frame, since it was listed: a server may work beside the check.
async fn is_another(app: &App, chunk: &ChunkRow) -> ApiResult<bool> {
    let now = db::frame::find_chunk(app.db.reader(), &chunk.digest).await?;
    Ok(now.is_none_or(|now| now.frame_id != chunk.frame_id))
}

/// What is wrong with a chunk, its row or its frame.
async fn check_chunk(
    app: &App,
    chunk: &ChunkRow,
    frame: Option<&FrameRow>,
    read_data: bool,
    report: &mut Report,
) -> ApiResult<Option<(ProblemKind, String)>> {
    let (digest, id) = (chunk.digest, chunk.frame_id);
    let Some(frame) = frame else {
        return Ok(Some((
            ProblemKind::ChunkFrame,
            format!("chunk {digest} points to frame {id}, which has no row"),
        )));
    };
    if frame.chunk != digest {
        let message = format!(
            "chunk {digest} points to frame {id}, which is one of chunk {}",
            frame.chunk
        );
        return Ok(Some((ProblemKind::ChunkFrame, message)));
    }
    if ![FrameState::Live, FrameState::Condemned]
        .iter()
        .any(|state| state.as_str() == frame.state)
    {
        let message = format!("chunk {digest} points to frame {id}, which is {}", frame.state);
        return Ok(Some((ProblemKind::ChunkFrame, message)));
    }
    match app.store.frame_size(id).await.map_err(content::store_down)? {
        None => {
            let message = format!("the object of frame {id} (chunk {digest}) is missing from the store");
            return Ok(Some((ProblemKind::ObjectMissing, message)));
        }
        Some(found) if found != frame.stored_bytes => {
            let message = format!(
                "the object of frame {id} (chunk {digest}) has {found} bytes, {} were put",
                frame.stored_bytes
            );
            return Ok(Some((ProblemKind::ObjectSize, message)));
        }
        Some(_) if !read_data => return Ok(None),
        Some(_) => {}
    }
    match content::decode(app, chunk).await {
        Ok(read) if read.raw.len() as u64 == chunk.size_bytes => {
            report.read_bytes += chunk.size_bytes;
            Ok(None)
        }
        Ok(read) => {
            let message = format!(
                "chunk {digest} has {} bytes, its row says {}",
                read.raw.len(),
                chunk.size_bytes
            );
            Ok(Some((ProblemKind::FrameDamaged, message)))
        }
        Err(ReadError::Damaged(message)) => Ok(Some((ProblemKind::FrameDamaged, message))),
        Err(error) => Err(error.into()),
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
            let problem = check_file(app, &file, read_data, sizes, report).await?;
            if let Some((kind, message)) = problem {
                report.add(kind, file.digest, message);
            }
        }
    }
}

async fn check_file(
    app: &App,
    file: &FileRow,
    read_data: bool,
    sizes: &HashMap<Digest, u64>,
    report: &Report,
) -> ApiResult<Option<(ProblemKind, String)>> {
    let digest = file.digest;
    let sum: u64 = file.chunks.iter().map(|chunk| chunk.size_bytes).sum();
    if sum != file.size_bytes {
        let message = format!(
            "the recipe of file {digest} makes {sum} bytes, the file has {}",
            file.size_bytes
        );
        return Ok(Some((ProblemKind::RecipeSize, message)));
    }
    let is_wrong = |chunk: &&ChunkRef| sizes.get(&chunk.digest) != Some(&chunk.size_bytes);
    if let Some(chunk) = file.chunks.iter().find(is_wrong) {
        let conn = app.db.reader();
        // It may have come since the chunks were listed, and the file may have gone since the files were.
        let now = db::frame::find_chunk(conn, &chunk.digest).await?;
        if now.is_some_and(|now| now.size_bytes == chunk.size_bytes) || db::file::find(conn, &digest).await?.is_none() {
            return Ok(None);
        }
        let message = format!("file {digest} needs chunk {}, which is not held", chunk.digest);
        return Ok(Some((ProblemKind::ChunkMissing, message)));
    }
    let damaged: HashSet<Digest> = report.problems.iter().filter_map(|problem| problem.digest).collect();
    // A file with a damaged chunk is told of with that chunk.
    if !read_data || file.chunks.iter().any(|chunk| damaged.contains(&chunk.digest)) {
        return Ok(None);
    }
    match content::hash_stored(app, &file.chunks).await {
        Ok(found) if found == digest => Ok(None),
        Ok(found) => Ok(Some((
            ProblemKind::FileDigest,
            format!("file {digest} reads back as {found}"),
        ))),
        Err(ReadError::Damaged(message)) => Ok(Some((ProblemKind::FileDigest, message))),
        Err(error) => Err(error.into()),
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
                check_revision(app, &run, &revision, report).await?;
            }
        }
        after_run = Some(run.name);
    }
    Ok(())
}

async fn check_revision(app: &App, run: &RunRow, revision: &RevisionRow, report: &mut Report) -> ApiResult<()> {
    let name = format!("{}@{}", run.name, revision.step);
    let found = match rows_of(app, revision).await? {
        Ok(found) => found,
        // It was deleted in the meantime.
        Err(_) if db::revision::get(app.db.reader(), revision.id).await?.state != CheckpointState::Ready => {
            return Ok(());
        }
        Err(what) => {
            report.add(
                ProblemKind::CheckpointRow,
                revision.checkpoint,
                format!("{name}: {what}"),
            );
            return Ok(());
        }
    };
    if db::revision::current(app.db.reader(), run.id, revision.step)
        .await?
        .is_none()
    {
        let message = format!("{name}: is ready and the step points to nothing");
        report.add(ProblemKind::CheckpointRow, revision.checkpoint, message);
    }
    for problem in &mut report.problems {
        if problem.digest.is_some_and(|digest| found.contains(&digest)) && !problem.checkpoints.contains(&name) {
            problem.checkpoints.push(name.clone());
        }
    }
    let named: Vec<Digest> = found.into_iter().collect();
    // Its own, and not let go of: what a run needs must not be on its way out.
    let held = db::possession::kept_by(app.db.reader(), run.id, &named).await?;
    if let Some(digest) = named.iter().find(|digest| !held.contains(*digest)) {
        let message = format!("{name}: the run does not possess {digest}");
        report.add(ProblemKind::Possession, *digest, message);
    }
    Ok(())
}

/// All digests of a ready revision: its checkpoint, files and chunks; or what is wrong with its rows.
async fn rows_of(app: &App, revision: &RevisionRow) -> ApiResult<Result<HashSet<Digest>, String>> {
    let conn = app.db.reader();
    let Some(digest) = revision.checkpoint else {
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
    let mut named = HashSet::from([digest]);
    for file in manifest.files() {
        match files.get(&file.digest) {
            Some(row) if row.size_bytes == file.size_bytes => {
                named.insert(file.digest);
                named.extend(row.chunks.iter().map(|chunk| chunk.digest));
            }
            Some(_) => return Ok(Err(format!("file `{}` has another size in its row", file.path))),
            None => return Ok(Err(format!("file `{}` ({}) has no row", file.path, file.digest))),
        }
    }
    Ok(Ok(named))
}
