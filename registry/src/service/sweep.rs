//! The sweep that repairs half-states: frames whose put never ended, frames that lost a race, sessions that nobody
//! speaks to.

use std::time::Duration;

use fineline_api::PushSessionState;
use fineline_api::error::ErrorCode;

use crate::app::App;
use crate::db;
use crate::db::frame::FrameState;
use crate::error::ApiResult;
use crate::service::{chunk, lease, push_session, tokenizer};

const EVERY: Duration = Duration::from_secs(30);

/// A put that takes longer than this was interrupted.
const INTENT_GRACE_MS: i64 = 60 * 60 * 1000;

/// A session that nobody spoke to for this long expires; its chunks stay, so that the push can still resume.
const SESSION_GRACE_MS: i64 = 24 * 60 * 60 * 1000;

const BATCH: u64 = 1000;

/// Sweeps until the task is dropped.
pub(crate) async fn run_forever(app: App) {
    loop {
        if let Err(error) = sweep(&app).await {
            tracing::error!(%error, "the sweep is put off");
        }
        tokio::time::sleep(EVERY).await;
    }
}

async fn sweep(app: &App) -> ApiResult<()> {
    let conn = app.db.reader();
    let now = db::now_ms(conn).await?;
    let graces = [
        (FrameState::Intended, INTENT_GRACE_MS),
        (FrameState::Condemned, 0),
        (FrameState::Deleting, 0),
    ];
    for (state, grace_ms) in graces {
        for id in db::frame::older_than(conn, state, now - grace_ms, BATCH).await? {
            chunk::discard(app, id).await?;
        }
    }
    for session in db::push_session::silent_since(conn, now - SESSION_GRACE_MS, BATCH).await? {
        match push_session::abandon(app, &session, PushSessionState::Expired).await {
            // It was committed or aborted just now.
            Err(error) if error.code() == ErrorCode::Conflict => {}
            other => other?,
        }
    }
    lease::expire(app).await?;
    tokenizer::catch_up(app).await
}
