//! The sweep: repairs half-states (frames whose put never ended, deletes that were cut, what clients left at staging
//! places, sessions that nobody speaks to, leases and browsers' logins that ran out), applies rules of retention, and
//! collects garbage now and then.

use std::time::Duration;

use fineline_api::PushSessionState;
use fineline_api::error::ErrorCode;

use crate::app::App;
use crate::db;
use crate::db::frame::FrameState;
use crate::error::ApiResult;
use crate::service::{chunk, collect, lease, push_session, retention, staging, tokenizer, web_session};

const EVERY: Duration = Duration::from_secs(30);

/// A put that takes longer than this was interrupted.
pub(crate) const INTENT_GRACE_MS: i64 = 60 * 60 * 1000;

/// A frame whose delete takes longer than this was interrupted. Doing it twice harms nobody.
const DELETE_GRACE_MS: i64 = 60 * 1000;

/// A session that nobody spoke to for a third of the grace expires, and any after two thirds: shorter than the grace.
const SILENCE_OF_GRACE: u32 = 3;

const BATCH: u64 = 1000;

/// How often garbage is collected: well more often than once in a grace.
fn collect_every(grace: Duration) -> Duration {
    (grace / 12).clamp(Duration::from_secs(1), Duration::from_secs(60 * 60))
}

/// Sweeps until the task is dropped.
pub(crate) async fn run_forever(app: App) {
    let grace = app.options.grace;
    let mut collected = tokio::time::Instant::now();
    loop {
        // What it met is in the log.
        drop(sweep(&app).await);
        if collected.elapsed() >= collect_every(grace) {
            match collect::collect(&app, false).await {
                Ok(report) => tracing::info!(?report, "garbage was collected"),
                Err(error) => tracing::error!(%error, "the collection is put off"),
            }
            collected = tokio::time::Instant::now();
        }
        tokio::time::sleep(EVERY.min(collect_every(grace))).await;
    }
}

/// Repairs and expires once. What fails keeps nothing else from being done.
///
/// # Errors
/// The first that the database or the store refused.
pub(crate) async fn sweep(app: &App) -> ApiResult<()> {
    // Sessions first: that they are shorter than the grace is what collection relies on.
    let parts = [
        ("sessions", sessions(app).await),
        ("leases", lease::expire(app).await),
        ("frames", frames(app).await),
        ("staging", staging::sweep(app).await),
        ("retention", retention::apply_all(app).await),
        ("logins", web_session::expire(app).await),
        ("tokenizers", tokenizer::catch_up(app).await),
    ];
    let mut outcome = Ok(());
    for (part, ended) in parts {
        if let Err(error) = ended {
            tracing::error!(part, %error, "a part of the sweep is put off");
            outcome = outcome.and(Err(error));
        }
    }
    outcome
}

pub(crate) fn grace_ms(app: &App) -> i64 {
    i64::try_from(app.options.grace.as_millis()).unwrap_or(i64::MAX)
}

/// Takes away what cut puts and cut deletes left.
async fn frames(app: &App) -> ApiResult<()> {
    let conn = app.db.reader();
    let now = db::now_ms(conn).await?;
    let intents_before = now - INTENT_GRACE_MS.min(grace_ms(app));
    for id in db::frame::older_than(conn, FrameState::Intended, intents_before, BATCH).await? {
        chunk::discard(app, id).await?;
    }
    let deletes_before = now - DELETE_GRACE_MS.min(grace_ms(app));
    let cut = db::frame::older_than(conn, FrameState::Deleting, deletes_before, BATCH).await?;
    collect::finish_deletes(app, &cut).await
}

/// Ends sessions that nobody speaks to, and those that are too old.
async fn sessions(app: &App) -> ApiResult<()> {
    let conn = app.db.reader();
    let now = db::now_ms(conn).await?;
    let silence_ms = grace_ms(app) / i64::from(SILENCE_OF_GRACE);
    for session in db::push_session::outlived(conn, now - silence_ms, now - 2 * silence_ms, BATCH).await? {
        match push_session::abandon(app, &session, PushSessionState::Expired).await {
            // It was committed or aborted just now.
            Err(error) if error.code() == ErrorCode::Conflict => {}
            other => other?,
        }
    }
    Ok(())
}
