//! Creating, describing and listing runs.

use fineline_api::error::ErrorCode;
use fineline_api::run::RunAttributes;
use fineline_api::{CreateRun, Page, Run, RunName, RunPattern, Scope};

use crate::app::App;
use crate::auth::Caller;
use crate::db;
use crate::db::run::RunRow;
use crate::error::{ApiError, ApiResult};

/// The longest that all texts of what describes a run may be together.
const MAX_ATTRIBUTES_BYTES: usize = 64 << 10;

/// Creates a run.
///
/// # Errors
/// 403 without the scope `write` or when the caller's pattern does not match the name, 409 when the name is taken, 400
/// for what breaks a bound.
pub(crate) async fn create(app: &App, caller: &Caller, new: CreateRun) -> ApiResult<Run> {
    caller.require(Scope::Write)?;
    if !caller.pattern.matches(&new.run) {
        let message = format!(
            "this token is for `{}` and can't create run `{}`",
            caller.pattern, new.run
        );
        return Err(ApiError::new(ErrorCode::Forbidden, message));
    }
    check(&new.attributes)?;
    let txn = db::write_txn(&app.db).await?;
    let Some(row) = db::run::insert(&txn, &new.run, &new.attributes).await? else {
        let message = format!("run `{}` exists already", new.run);
        return Err(ApiError::new(ErrorCode::Conflict, message).hint("push to it, or choose another name"));
    };
    let run = db::run::describe(&txn, row).await?;
    txn.commit().await?;
    Ok(run)
}

/// Checks what describes a run against its bounds.
fn check(attributes: &RunAttributes) -> ApiResult<()> {
    let texts = [
        &attributes.description,
        &attributes.architecture,
        &attributes.data_mix,
        &attributes.strategy,
    ];
    let texts: usize = texts.into_iter().flatten().map(String::len).sum();
    let facts = attributes.metadata.iter();
    let facts: usize = facts.map(|(key, value)| key.len() + value.len()).sum();
    if texts + facts > MAX_ATTRIBUTES_BYTES {
        let message = format!("what describes a run has {} bytes, 64 KiB are the most", texts + facts);
        return Err(ApiError::invalid(message));
    }
    let numbers = [attributes.n_parameters, attributes.tokens_per_step];
    match numbers
        .into_iter()
        .flatten()
        .find(|number| i64::try_from(*number).is_err())
    {
        Some(number) => Err(ApiError::invalid(format!("the number `{number}` is beyond 2^63"))),
        None => Ok(()),
    }
}

/// The run as the API shows it.
pub(crate) async fn describe(app: &App, run: RunRow) -> ApiResult<Run> {
    Ok(db::run::describe(app.db.reader(), run).await?)
}

/// Replaces what describes a run.
///
/// # Errors
/// 400 for what breaks a bound.
pub(crate) async fn update(app: &App, run: &RunRow, attributes: RunAttributes) -> ApiResult<Run> {
    check(&attributes)?;
    let txn = db::write_txn(&app.db).await?;
    db::run::update(&txn, run.id, &attributes).await?;
    let run = db::run::describe(&txn, db::run::get(&txn, run.id).await?).await?;
    txn.commit().await?;
    Ok(run)
}

/// A page of the runs of `pattern` that the caller may read, by name.
///
/// # Errors
/// 403 without the scope `read`, 400 for a cursor that is none of ours.
pub(crate) async fn list(
    app: &App,
    caller: &Caller,
    pattern: &RunPattern,
    cursor: Option<&str>,
    limit: u64,
) -> ApiResult<Page<Run>> {
    caller.require(Scope::Read)?;
    let after: Option<RunName> = cursor.map(str::parse).transpose().map_err(ApiError::invalid)?;
    let mut rows = db::run::list(app.db.reader(), &[&caller.pattern, pattern], after.as_ref(), limit + 1).await?;
    let more = rows.len() as u64 > limit;
    rows.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    let next_cursor = rows.last().filter(|_| more).map(|row| row.name.to_string());
    let mut items = Vec::with_capacity(rows.len());
    for row in rows {
        items.push(db::run::describe(app.db.reader(), row).await?);
    }
    Ok(Page { items, next_cursor })
}
