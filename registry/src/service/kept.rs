//! What the server keeps for itself: the files of suites and of tokenizers that runs lend, and sample logs. `kept_chunk`
//! follows from these; here it is brought in line, for what was written before it was there and for what is not needed
//! any more.

use std::collections::HashSet;

use fineline_format::Digest;
use sea_orm::ConnectionTrait;

use crate::app::App;
use crate::db;
use crate::error::{ApiError, ApiResult};
use crate::service::content;

const BATCH: u64 = 500;

/// Keeps every file of a suite and every sample log, and lets go of what is neither any more.
pub(crate) async fn tend(app: &App) -> ApiResult<()> {
    let conn = app.db.reader();
    let kept = kept_files(app).await?;
    let named = named(conn).await?;
    for file in named.iter().filter(|file| !kept.contains(*file)) {
        keep(app, file).await?;
    }
    let mut after = None;
    loop {
        let logs = db::kept::sample_logs(conn, after.as_ref(), BATCH).await?;
        let Some(last) = logs.last() else { break };
        after = Some(*last);
        for file in logs.iter().filter(|file| !kept.contains(*file)) {
            keep(app, file).await?;
        }
    }
    let mut superfluous = Vec::new();
    for file in kept.into_iter().filter(|file| !named.contains(file)) {
        if !db::kept::is_sample_log(conn, &file).await? {
            superfluous.push(file);
        }
    }
    let_go(app, &superfluous).await
}

/// The files of all suites and of all tokenizers that are lent.
async fn named(conn: &impl ConnectionTrait) -> ApiResult<HashSet<Digest>> {
    let mut named = db::suite::files(conn).await?;
    named.extend(db::tokenizer::all_files(conn).await?);
    Ok(named)
}

async fn kept_files(app: &App) -> ApiResult<HashSet<Digest>> {
    let (mut kept, mut after) = (HashSet::new(), None);
    loop {
        let files = db::kept::files(app.db.reader(), after.as_ref(), BATCH).await?;
        let Some(last) = files.last() else { return Ok(kept) };
        after = Some(*last);
        kept.extend(files);
    }
}

async fn keep(app: &App, file: &Digest) -> ApiResult<()> {
    let Some(row) = db::file::find(app.db.reader(), file).await? else {
        // No push can bring it back: it has to be uploaded again.
        tracing::error!(%file, "a file of a suite, a tokenizer or a sample log has no row");
        return Ok(());
    };
    let txn = db::write_txn(&app.db).await?;
    match content::adopt(&txn, &row).await {
        Ok(()) => Ok(txn.commit().await?),
        Err(error) => {
            tracing::error!(%file, %error, "a file of a suite, a tokenizer or a sample log is not whole");
            Ok(())
        }
    }
}

/// Lets go of files that were needed by nothing a moment ago; looked at again where nobody else writes.
async fn let_go(app: &App, files: &[Digest]) -> ApiResult<()> {
    if files.is_empty() {
        return Ok(());
    }
    let txn = db::write_txn(&app.db).await?;
    let named = named(&txn).await?;
    for file in files {
        if !named.contains(file) && !db::kept::is_sample_log(&txn, file).await? {
            db::kept::delete(&txn, file).await?;
        }
    }
    txn.commit().await.map_err(ApiError::from)
}
