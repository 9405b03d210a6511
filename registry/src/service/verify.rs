//! Verifying: every file of a committed checkpoint is read back from the store and hashed (`examine`), and only then does
//! it become ready (`ready`). Runs beside the requests; revisions are claimed by a lease, so that any replica can go on
//! where another stopped.

use std::sync::Arc;
use std::time::Duration;

use fineline_api::error::{ErrorCode, ErrorDetail};
use fineline_api::{EventKind, PushSessionState};
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::app::App;
use crate::db;
use crate::db::push_session::SessionRow;
use crate::db::revision::RevisionRow;
use crate::db::run::RunRow;
use crate::error::{ApiError, ApiResult};
use crate::service::examine::examine;
use crate::service::ready;

/// How long a claim holds without being renewed: what a crash can delay a checkpoint by.
pub(crate) const LEASE_MS: i64 = 15_000;

const RENEW_EVERY: Duration = Duration::from_secs(4);

/// How long to wait before looking for work again, when nothing wakes us.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Checkpoints that are verified at the same time.
const MAX_CHECKPOINTS: usize = 2;

/// Verifies what is committed, until the task is dropped.
pub(crate) async fn run_forever(app: App) {
    let verifier = Uuid::now_v7();
    let slots = Arc::new(Semaphore::new(MAX_CHECKPOINTS));
    let mut tasks = JoinSet::new();
    loop {
        while tasks.try_join_next().is_some() {}
        let Ok(slot) = slots.clone().acquire_owned().await else {
            return;
        };
        let changed = app.changed.notified();
        match claim(&app, verifier).await {
            Ok(Some(revision)) => {
                let app = app.clone();
                tasks.spawn(async move {
                    verify(&app, verifier, revision).await;
                    drop(slot);
                });
            }
            Ok(None) => drop(tokio::time::timeout(LOOK_EVERY, changed).await),
            Err(error) => {
                tracing::error!(%error, "can't look for checkpoints to verify");
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
    }
}

/// Claims a revision that waits to be verified.
pub(crate) async fn claim(app: &App, verifier: Uuid) -> ApiResult<Option<RevisionRow>> {
    let txn = db::write_txn(&app.db).await?;
    let claimed = db::verification::claim(&txn, verifier, LEASE_MS).await?;
    txn.commit().await?;
    Ok(claimed)
}

/// Verifies a claimed revision to its end, unless the claim is lost or a dependency is down: then it is claimed again.
pub(crate) async fn verify(app: &App, verifier: Uuid, revision: RevisionRow) {
    let id = revision.id;
    tokio::select! {
        () = keep_claim(app, id, verifier) => tracing::warn!(revision = id, "another server verifies this revision"),
        outcome = verify_claimed(app, verifier, revision) => if let Err(error) = outcome {
            tracing::error!(revision = id, %error, "verification is put off");
        },
    }
}

/// Renews the claim; returns when it is lost.
async fn keep_claim(app: &App, id: i64, verifier: Uuid) {
    loop {
        tokio::time::sleep(RENEW_EVERY).await;
        let renew = async {
            let txn = db::write_txn(&app.db).await?;
            let renewed = db::verification::renew(&txn, id, verifier, LEASE_MS).await?;
            txn.commit().await?;
            Ok::<_, ApiError>(renewed)
        };
        match renew.await {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => tracing::warn!(revision = id, %error, "a claim could not be renewed"),
        }
    }
}

async fn verify_claimed(app: &App, verifier: Uuid, revision: RevisionRow) -> ApiResult<()> {
    let conn = app.db.reader();
    let run = db::run::get(conn, revision.run_id).await?;
    let session = db::push_session::of_revision(conn, revision.id).await?;
    let session = session.ok_or_else(|| ApiError::internal("a verifying revision has no session"))?;
    let outcome = match examine(app, &run, &session).await {
        Ok(examined) => ready::publish(app, &run, &session, verifier, revision.clone(), examined).await,
        Err(error) => Err(error),
    };
    match outcome {
        Err(error) if is_a_verdict(&error) => fail(app, &run, &session, verifier, &revision, error).await?,
        other => other?,
    }
    app.changed.notify_waiters();
    Ok(())
}

/// Whether an error speaks of the checkpoint, not of the server.
fn is_a_verdict(error: &ApiError) -> bool {
    use ErrorCode::{Conflict, DigestMismatch, InvalidRequest, StepExists, Unprocessable};
    [Conflict, DigestMismatch, InvalidRequest, StepExists, Unprocessable].contains(&error.code())
}

async fn fail(
    app: &App,
    run: &RunRow,
    session: &SessionRow,
    verifier: Uuid,
    revision: &RevisionRow,
    error: ApiError,
) -> ApiResult<()> {
    let detail: ErrorDetail = error.into_detail();
    let txn = db::write_txn(&app.db).await?;
    if !db::verification::renew(&txn, revision.id, verifier, LEASE_MS).await? {
        return Ok(());
    }
    db::verification::fail(&txn, revision.id, &detail.message).await?;
    let failure = serde_json::to_string(&detail).map_err(ApiError::internal)?;
    db::push_session::end(&txn, session.id, PushSessionState::Failed, false, Some(failure)).await?;
    let data = json!({ "reason": detail.message });
    db::event::insert(&txn, run.id, revision.step, EventKind::CheckpointFailed, data).await?;
    txn.commit().await?;
    metrics::counter!("fineline_checkpoints_failed_total").increment(1);
    Ok(())
}
