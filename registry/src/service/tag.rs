//! Tags and releases.

use fineline_api::error::ErrorCode;
use fineline_api::reference::check_given_name;
use fineline_api::{CheckpointState, CreateRelease, Reference, Release, Tag};
use sea_orm::DatabaseTransaction;

use crate::app::App;
use crate::auth::Caller;
use crate::db;
use crate::db::revision::RevisionRow;
use crate::db::run::RunRow;
use crate::error::{ApiError, ApiResult};
use crate::service::checkpoint;

/// The longest notes of a release, in bytes.
const MAX_NOTES_BYTES: usize = 64 << 10;

/// Points a tag to a checkpoint.
///
/// # Errors
/// 400 for a name that is refused, 404 for the checkpoint, 409 when a release bears the name.
pub(crate) async fn set(app: &App, caller: &Caller, run: &RunRow, tag: &str, to: &Reference) -> ApiResult<Tag> {
    check_given_name("tag", tag).map_err(ApiError::invalid)?;
    let revision = checkpoint::resolve(app, caller, run, to).await?;
    let txn = db::write_txn(&app.db).await?;
    check_ready(&txn, run, &revision).await?;
    if db::tag::is_release(&txn, run.id, tag).await? {
        let message = format!("`{tag}` is a release of run `{}` and never moves", run.name);
        return Err(ApiError::new(ErrorCode::Conflict, message).hint("choose another tag"));
    }
    db::tag::set(&txn, run.id, tag, revision.id).await?;
    let tags = db::tag::list(&txn, run.id).await?;
    txn.commit().await?;
    tags.into_iter()
        .find(|row| row.tag == tag)
        .ok_or_else(|| ApiError::internal("a tag just set is not there"))
}

/// Refuses a checkpoint that was deleted since it was looked up.
async fn check_ready(txn: &DatabaseTransaction, run: &RunRow, revision: &RevisionRow) -> ApiResult<()> {
    if db::revision::get(txn, revision.id).await?.state == CheckpointState::Ready {
        return Ok(());
    }
    Err(ApiError::not_found(format!(
        "checkpoint `step-{}` in run `{}`",
        revision.step, run.name
    )))
}

/// Takes a tag away.
///
/// # Errors
/// 404 when there is none.
pub(crate) async fn delete(app: &App, run: &RunRow, tag: &str) -> ApiResult<()> {
    let txn = db::write_txn(&app.db).await?;
    if !db::tag::delete(&txn, run.id, tag).await? {
        return Err(ApiError::not_found(format!("tag `{tag}` in run `{}`", run.name)));
    }
    Ok(txn.commit().await?)
}

/// Makes a release.
///
/// # Errors
/// 400 for a name or notes that are refused, 404 for the checkpoint, 409 when the name is taken.
pub(crate) async fn release(app: &App, caller: &Caller, run: &RunRow, new: CreateRelease) -> ApiResult<Release> {
    check_given_name("release", &new.release).map_err(ApiError::invalid)?;
    if new.notes.len() > MAX_NOTES_BYTES {
        return Err(ApiError::invalid("the notes of a release have at most 64 KiB"));
    }
    let revision = checkpoint::resolve(app, caller, run, &new.reference).await?;
    let txn = db::write_txn(&app.db).await?;
    check_ready(&txn, run, &revision).await?;
    let taken = db::tag::resolve(&txn, run.id, &new.release).await?.is_some();
    if taken || !db::tag::insert_release(&txn, run.id, &new.release, revision.id, &new.notes).await? {
        let message = format!("`{}` is a tag or a release of run `{}` already", new.release, run.name);
        return Err(ApiError::new(ErrorCode::Conflict, message).hint("releases never move: choose another name"));
    }
    let releases = db::tag::list_releases(&txn, run.id).await?;
    txn.commit().await?;
    let made = releases.into_iter().find(|row| row.release == new.release);
    made.ok_or_else(|| ApiError::internal("a release just made is not there"))
}
