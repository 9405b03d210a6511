//! The mark of a run: which digests it possesses and no checkpoint or session of it holds. In memory is a window of its
//! digests at a time, whatever their number.

use std::collections::HashSet;

use fineline_format::{Digest, Manifest};

use crate::app::App;
use crate::db;
use crate::db::collect::Possessed;
use crate::error::ApiResult;
use crate::service::content;

/// Digests of a run that are looked at together: 64 MiB at most with what holds them. Each window reads the run's manifests and
/// recipes once more, so it is no smaller.
const WINDOW: usize = 200_000;

/// Rows of one statement: on its way out of the database a row takes more than 1 kB.
const ROWS: u64 = 20_000;

/// Digests that one transaction changes.
const BATCH: usize = 2000;

/// Checkpoints whose manifests are read at once.
const CHECKPOINTS_AT_ONCE: u64 = 100;

/// Lets the run go of what nothing of it holds, but for what was put or named since `begun`; takes back what it holds. A
/// deleted run holds nothing.
pub(crate) async fn release(app: &App, run_id: i64, begun: i64, deleted: bool) -> ApiResult<()> {
    let mut after = None;
    while let Some(window) = Window::next(app, run_id, after).await? {
        let Some(held) = held(app, run_id, &window, deleted).await? else {
            tracing::error!(
                run_id,
                "a run lets go of nothing while a row of its checkpoints is missing or damaged"
            );
            return Ok(());
        };
        let (kept, unheld): (Vec<&Possessed>, Vec<&Possessed>) =
            window.possessed.iter().partition(|row| held.contains(&row.digest));
        let unheld: Vec<Digest> = unheld
            .iter()
            .filter(|row| !row.released)
            .map(|row| row.digest)
            .collect();
        let wronged: Vec<Digest> = kept.iter().filter(|row| row.released).map(|row| row.digest).collect();
        for batch in unheld.chunks(BATCH) {
            let txn = db::write_txn(&app.db).await?;
            db::collect::release(&txn, run_id, batch, begun).await?;
            txn.commit().await?;
        }
        if !wronged.is_empty() {
            let txn = db::write_txn(&app.db).await?;
            db::collect::take_back(&txn, run_id, &wronged).await?;
            txn.commit().await?;
        }
        after = Some(window.last);
    }
    Ok(())
}

/// What [`release`] would let go of.
pub(crate) async fn unheld(app: &App, run_id: i64, begun: i64, deleted: bool) -> ApiResult<Vec<Digest>> {
    let (mut unheld, mut after) = (Vec::new(), None);
    while let Some(window) = Window::next(app, run_id, after).await? {
        let Some(held) = held(app, run_id, &window, deleted).await? else {
            return Ok(Vec::new());
        };
        let goes = |row: &&Possessed| !row.released && !held.contains(&row.digest) && row.put_at_ms < begun;
        unheld.extend(window.possessed.iter().filter(goes).map(|row| row.digest));
        after = Some(window.last);
    }
    Ok(unheld)
}

/// Some of what a run possesses, in the order of digests.
struct Window {
    possessed: Vec<Possessed>,
    after: Option<Digest>,
    last: Digest,
}

impl Window {
    async fn next(app: &App, run_id: i64, after: Option<Digest>) -> ApiResult<Option<Self>> {
        let mut possessed: Vec<Possessed> = Vec::new();
        let mut last = after;
        while possessed.len() < WINDOW {
            let rows = db::collect::possessed(app.db.reader(), run_id, last.as_ref(), ROWS).await?;
            let Some(row) = rows.last() else { break };
            last = Some(row.digest);
            possessed.extend(rows);
        }
        let last = possessed.last().map(|row| row.digest);
        Ok(last.map(|last| Self { possessed, after, last }))
    }

    fn spans(&self, digest: &Digest) -> bool {
        self.after.is_none_or(|after| *digest > after) && *digest <= self.last
    }
}

/// The digests in the window that ready checkpoints of the run, and sessions that are under way, hold. `None` when a row is
/// missing or damaged that would say so: what is not known to be needed may be all the same.
async fn held(app: &App, run_id: i64, window: &Window, deleted: bool) -> ApiResult<Option<HashSet<Digest>>> {
    let conn = app.db.reader();
    let mut held = HashSet::new();
    if deleted {
        return Ok(Some(held));
    }
    let mut hold = |digest: Digest| {
        if window.spans(&digest) {
            held.insert(digest);
        }
    };
    let (mut files_seen, mut after) = (HashSet::new(), 0);
    loop {
        let revisions = db::revision::ready_checkpoints(conn, run_id, after, CHECKPOINTS_AT_ONCE).await?;
        let Some((last, _)) = revisions.last() else { break };
        after = *last;
        let digests: HashSet<Digest> = revisions.into_iter().map(|(_, digest)| digest).collect();
        let digests: Vec<Digest> = digests.into_iter().collect();
        let checkpoints = db::checkpoint::find_many(conn, &digests).await?;
        if checkpoints.len() < digests.len() {
            return Ok(None);
        }
        let mut files = Vec::new();
        for (digest, row) in checkpoints {
            hold(digest);
            let Ok(manifest) = Manifest::from_json(&row.manifest) else {
                return Ok(None);
            };
            files.extend(manifest.files().iter().map(|file| file.digest));
        }
        files.retain(|file| files_seen.insert(*file));
        let rows = db::file::find_many(conn, &files).await?;
        if rows.len() < files.len() {
            return Ok(None);
        }
        for (digest, file) in rows {
            if content::check_recipe(&file).is_err() {
                return Ok(None);
            }
            hold(digest);
            file.chunks.iter().for_each(|chunk| hold(chunk.digest));
        }
    }
    for session in db::push_session::unfinished(conn, run_id).await? {
        for file in db::push_session::files(conn, session).await? {
            hold(file.digest);
            file.chunks.iter().for_each(|chunk| hold(chunk.digest));
        }
    }
    Ok(Some(held))
}
