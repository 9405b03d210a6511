//! The gauges of what the database holds, read when somebody asks for the metrics and not more often than is cheap.

use std::sync::Arc;
use std::time::Duration;

use fineline_api::Scope;
use fineline_api::error::ErrorCode;
use fineline_format::Digest;
use metrics::{counter, gauge};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::app::App;
use crate::auth::authenticate;
use crate::db;
use crate::db::frame::FrameState;
use crate::error::{ApiError, ApiResult};
use crate::service::readiness::{self, PATIENCE};

/// Counts of few rows, by an index each.
const QUICK_EVERY: Duration = Duration::from_secs(5);

/// A walk over all frames: 0.2 s a million of them on SQLite.
const FRAMES_EVERY: Duration = Duration::from_secs(15 * 60);

/// When each was read last; one reads at a time.
#[derive(Debug, Clone, Default)]
pub(crate) struct Gauges {
    quick: Arc<Mutex<Option<Instant>>>,
    frames: Arc<Mutex<Option<Instant>>>,
    /// The token that was let in last.
    admitted: Arc<Mutex<Option<Digest>>>,
}

/// Lets in who may read every run: what is stored in all tells of each, if only that somebody else has the same bytes.
/// While the database does not answer, who was let in last is let in again, to see that it does not.
///
/// # Errors
/// 401 without a good token, 403 for one that does not read every run, 503 when the database does not answer.
pub(crate) async fn admit(app: &App, secret: Option<&str>) -> ApiResult<()> {
    let secret_sha256 = secret.map(|secret| Digest::of(secret.as_bytes()));
    let caller = tokio::time::timeout(PATIENCE, authenticate(app, secret)).await;
    let too_late = |_| Err(ApiError::new(ErrorCode::Unavailable, "the database does not answer"));
    match caller.unwrap_or_else(too_late) {
        Ok(caller) => {
            caller.require_whole(Scope::Read)?;
            *app.gauges.admitted.lock().await = secret_sha256;
            Ok(())
        }
        Err(error) => {
            let was_admitted = secret.is_some() && *app.gauges.admitted.lock().await == secret_sha256;
            if error.status().is_server_error() && was_admitted {
                return Ok(());
            }
            Err(error)
        }
    }
}

/// Reads what is older than it may be; waits a short while for it, and what takes longer shows the next time.
pub(crate) async fn refresh(app: &App) {
    readiness::probe(app).await;
    let quick = refresh_when_due(app.clone(), app.gauges.quick.clone(), QUICK_EVERY, read_quick);
    let frames = refresh_when_due(app.clone(), app.gauges.frames.clone(), FRAMES_EVERY, read_frames);
    let (quick, frames) = (tokio::spawn(quick), tokio::spawn(frames));
    // What is not done in time goes on by itself.
    drop(tokio::time::timeout(PATIENCE, async { drop(tokio::join!(quick, frames)) }).await);
}

async fn refresh_when_due<F: Future<Output = ApiResult<()>>>(
    app: App,
    last: Arc<Mutex<Option<Instant>>>,
    every: Duration,
    read: impl FnOnce(App) -> F,
) {
    // Whoever reads now reads for all.
    let Ok(mut last) = last.try_lock() else { return };
    if last.is_some_and(|at| at.elapsed() < every) {
        return;
    }
    match read(app).await {
        Ok(()) => *last = Some(Instant::now()),
        Err(error) => tracing::warn!(%error, "metrics of the database's state are as old as they were"),
    }
}

async fn read_quick(app: App) -> ApiResult<()> {
    let state = db::state::read(app.db.reader()).await?;
    gauge!("fineline_push_sessions_open").set(exact(state.open_push_sessions));
    gauge!("fineline_verification_queue").set(exact(state.verifying_revisions));
    for (state, n) in state.evaluations {
        gauge!("fineline_evaluations", "state" => state.as_str()).set(exact(n));
    }
    gauge!("fineline_evaluation_queue_age_seconds").set(seconds(state.oldest_queued_ms));
    gauge!("fineline_workers").set(exact(state.workers));
    gauge!("fineline_worker_seen_timestamp_seconds").set(seconds(state.worker_seen_at_ms));
    Ok(())
}

async fn read_frames(app: App) -> ApiResult<()> {
    let conn = app.db.reader();
    let counted = db::state::frames(conn).await?;
    for state in [
        FrameState::Intended,
        FrameState::Live,
        FrameState::Condemned,
        FrameState::Deleting,
    ] {
        let frames = counted.get(state.as_str()).copied().unwrap_or_default();
        gauge!("fineline_frames", "state" => state.as_str()).set(exact(frames.n));
        gauge!("fineline_frame_stored_bytes", "state" => state.as_str()).set(exact(frames.stored_bytes));
    }
    gauge!("fineline_frames_counted_timestamp_seconds").set(seconds(db::now_ms(conn).await?));
    Ok(())
}

/// A count as a gauge has it, exact to 2^53.
fn exact(n: u64) -> f64 {
    n as f64
}

fn seconds(ms: i64) -> f64 {
    ms as f64 / 1000.0
}

/// Counts a collection that ended.
pub(crate) fn collected(begun: std::time::Instant, is_done: bool) {
    let outcome = if is_done { "done" } else { "failed" };
    counter!("fineline_collections_total", "outcome" => outcome).increment(1);
    metrics::histogram!("fineline_collection_duration_seconds").record(begun.elapsed());
}
