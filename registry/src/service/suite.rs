//! Suites: taking one in with its files, who may see it, binding it to runs.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use fineline_api::error::ErrorCode;
use fineline_api::{Backfill, BackfillPlan, Binding, CreateBinding, RunPattern, Scope, Suite};
use fineline_format::Digest;
use fineline_format::suite::{EvalDtype, SuiteDefinition};
use fineline_format::task::{DataFormat, TaskFile};
use uuid::Uuid;

use crate::app::App;
use crate::auth::Caller;
use crate::db;
use crate::db::suite::SuiteRow;
use crate::error::{ApiError, ApiResult};
use crate::service::{backfill, content};

/// A suite as uploaded.
#[derive(Debug)]
pub(crate) struct Upload {
    pub(crate) pattern: RunPattern,
    pub(crate) definition: SuiteDefinition,
    /// Its files by digest.
    pub(crate) blobs: BTreeMap<Digest, Bytes>,
}

/// Demands that the caller's pattern holds all runs of `pattern`.
fn require_pattern(caller: &Caller, pattern: &RunPattern) -> ApiResult<()> {
    if caller.pattern.contains(pattern) {
        return Ok(());
    }
    let message = format!(
        "this token is for `{}`, which does not hold all of `{pattern}`",
        caller.pattern
    );
    Err(ApiError::new(ErrorCode::Forbidden, message))
}

/// Keeps a suite; whether it is new to the caller, who may not know of another's that holds the same files.
///
/// # Errors
/// 403 for runs that are not the caller's, 422 for a definition or a task that is refused, or a file that is missing,
/// damaged or named by nothing.
pub(crate) async fn create(app: &App, caller: &Caller, upload: Upload) -> ApiResult<(Suite, bool)> {
    require_pattern(caller, &upload.pattern)?;
    let definition = upload.definition;
    definition
        .check()
        .map_err(|error| ApiError::unprocessable(error.to_string()))?;
    let wanted: BTreeSet<Digest> = definition.blobs().map(|blob| blob.digest).collect();
    for blob in definition.blobs() {
        let Some(bytes) = upload.blobs.get(&blob.digest) else {
            return Err(ApiError::unprocessable(format!(
                "file `{}` of the suite was not sent",
                blob.digest
            )));
        };
        if bytes.len() as u64 != blob.size_bytes || Digest::of(bytes) != blob.digest {
            let message = format!("the bytes sent as file `{}` are others", blob.digest);
            return Err(ApiError::new(ErrorCode::DigestMismatch, message));
        }
    }
    if let Some(extra) = upload.blobs.keys().find(|digest| !wanted.contains(*digest)) {
        return Err(ApiError::unprocessable(format!(
            "file `{extra}` was sent and the suite does not name it"
        )));
    }
    for task in &definition.tasks {
        check_task(&task.task, &upload.blobs[&task.yaml.digest], task.data.keys())?;
    }
    let size_bytes = upload.blobs.values().map(|bytes| bytes.len() as u64).sum();
    let mut files = Vec::with_capacity(upload.blobs.len());
    for bytes in upload.blobs.into_values() {
        files.push(content::put_content(app, bytes).await?);
    }
    let digest = definition.digest();
    let txn = db::write_txn(&app.db).await?;
    for file in &files {
        content::adopt(&txn, file).await?;
    }
    let known = |row: Option<SuiteRow>| row.and_then(|row| row.known_to(&caller.pattern));
    let new = known(db::suite::find(&txn, &digest).await?).is_none();
    db::suite::insert(&txn, &digest, &definition, size_bytes, &upload.pattern).await?;
    let suite = known(db::suite::find(&txn, &digest).await?);
    txn.commit().await?;
    let suite = suite.ok_or_else(|| ApiError::internal("a suite just kept is not there"))?;
    Ok((suite, new))
}

fn check_task<'a>(name: &str, yaml: &[u8], splits: impl Iterator<Item = &'a String>) -> ApiResult<()> {
    let text = std::str::from_utf8(yaml).map_err(|_| ApiError::unprocessable(format!("task `{name}` is no UTF-8")))?;
    let file = TaskFile::parse(text).map_err(|error| ApiError::unprocessable(error.to_string()))?;
    if file.task != name {
        let message = format!(
            "the definition calls a task `{name}`, its YAML calls it `{}`",
            file.task
        );
        return Err(ApiError::unprocessable(message));
    }
    if file.data_format == DataFormat::Parquet {
        let message = format!("task `{name}` has Parquet data: `fineline suite apply` sends them as JSON lines");
        return Err(ApiError::unprocessable(message));
    }
    let given: BTreeSet<&str> = splits.map(String::as_str).collect();
    match file.data_files.keys().find(|split| !given.contains(split.as_str())) {
        Some(split) => Err(ApiError::unprocessable(format!(
            "task `{name}` has no data for its split `{split}`"
        ))),
        None => Ok(()),
    }
}

/// The name by which the caller may know of a suite: it was uploaded for runs that it may read; a worker knows only
/// what it holds a lease for.
async fn known_name(app: &App, caller: &Caller, suite: &SuiteRow) -> ApiResult<Option<String>> {
    if caller.has(Scope::Read) {
        return Ok(suite.known_to(&caller.pattern).map(|suite| suite.suite));
    }
    let Some(token_id) = caller.token_id else {
        return Ok(None);
    };
    let leased = db::lease::leased_suites(app.db.reader(), token_id).await?;
    Ok(leased
        .into_iter()
        .find_map(|(digest, name)| (digest == suite.digest).then_some(name)))
}

/// The suites that the caller may know of.
pub(crate) async fn list(app: &App, caller: &Caller) -> ApiResult<Vec<Suite>> {
    caller.require(Scope::Read)?;
    let rows = db::suite::list(app.db.reader()).await?;
    Ok(rows.iter().filter_map(|row| row.known_to(&caller.pattern)).collect())
}

/// A suite's definition.
///
/// # Errors
/// 404 when there is none that the caller may know of.
pub(crate) async fn get(app: &App, caller: &Caller, digest: Digest) -> ApiResult<SuiteDefinition> {
    let unknown = || ApiError::not_found(format!("suite `{digest}`"));
    let row = db::suite::find(app.db.reader(), &digest).await?.ok_or_else(unknown)?;
    let name = known_name(app, caller, &row).await?.ok_or_else(unknown)?;
    Ok(row.named(name))
}

/// A file of a suite.
///
/// # Errors
/// 404 when the suite, or the file in it, is none that the caller may know of.
pub(crate) async fn blob(app: &App, caller: &Caller, digest: Digest, blob: Digest) -> ApiResult<Bytes> {
    let definition = get(app, caller, digest).await?;
    if !definition.blobs().any(|known| known.digest == blob) {
        return Err(ApiError::not_found(format!("file `{blob}` in suite `{digest}`")));
    }
    content::read_content(app, &blob).await
}

/// Binds a suite to runs; evaluates what is there already when asked to.
///
/// # Errors
/// 403 for runs that are not the caller's, 404 for the suite, 400 for a dtype that is none.
pub(crate) async fn bind(app: &App, caller: &Caller, new: CreateBinding) -> ApiResult<Binding> {
    require_pattern(caller, &new.pattern)?;
    let known = get(app, caller, new.suite).await?;
    check_schedule(&new)?;
    let dtype: EvalDtype = new.dtype.parse().map_err(ApiError::invalid)?;
    let txn = db::write_txn(&app.db).await?;
    let schedule = (new.every, new.order);
    let mut binding = db::suite::bind(&txn, &new.pattern, &new.suite, &known.suite, dtype.as_str(), schedule).await?;
    txn.commit().await?;
    binding.limit = known.limit;
    if new.backfill != Backfill::None {
        binding.n_queued = backfill::fill(app, &binding, new.backfill).await?;
    }
    Ok(binding)
}

/// What binding a suite would queue, without doing it. A suite that the caller may not know of is as one that is not
/// there yet: nothing was measured by it.
///
/// # Errors
/// 403 for runs that are not the caller's, 400 for a dtype that is none.
pub(crate) async fn plan(app: &App, caller: &Caller, new: CreateBinding) -> ApiResult<BackfillPlan> {
    require_pattern(caller, &new.pattern)?;
    check_schedule(&new)?;
    let dtype: EvalDtype = new.dtype.parse().map_err(ApiError::invalid)?;
    let row = db::suite::find(app.db.reader(), &new.suite).await?;
    let known = row.is_some_and(|row| row.known_to(&caller.pattern).is_some());
    let measure = (new.suite, dtype.as_str(), known);
    backfill::plan(app, &new.pattern, measure, (new.backfill, new.every)).await
}

/// Demands that a binding asks for some steps.
fn check_schedule(new: &CreateBinding) -> ApiResult<()> {
    if i64::try_from(new.every).is_ok_and(|every| every > 0) {
        return Ok(());
    }
    let message = format!("every `{}` steps is none: it is a number from 1 on", new.every);
    Err(ApiError::invalid(message).hint("leave `every` out for every step"))
}

/// The bindings that concern runs which the caller may read.
pub(crate) async fn bindings(app: &App, caller: &Caller) -> ApiResult<Vec<Binding>> {
    caller.require(Scope::Read)?;
    let mut bindings = db::suite::bindings(app.db.reader()).await?;
    bindings.retain(|binding| binding.pattern.intersects(&caller.pattern));
    let suites: BTreeSet<Digest> = bindings.iter().map(|binding| binding.suite_digest).collect();
    for digest in suites {
        let suite = db::suite::find(app.db.reader(), &digest).await?;
        let limit = suite.and_then(|suite| suite.limit());
        let its = bindings.iter_mut().filter(|binding| binding.suite_digest == digest);
        its.for_each(|binding| binding.limit = limit);
    }
    Ok(bindings)
}

/// Takes a binding away; what is queued stays.
///
/// # Errors
/// 404 when there is none that the caller may know of, 403 when it binds runs that are not the caller's.
pub(crate) async fn unbind(app: &App, caller: &Caller, id: Uuid) -> ApiResult<()> {
    let unknown = || ApiError::not_found(format!("binding `{id}`"));
    let bindings = db::suite::bindings(app.db.reader()).await?;
    let binding = bindings
        .into_iter()
        .find(|binding| binding.id == id)
        .ok_or_else(unknown)?;
    if !binding.pattern.intersects(&caller.pattern) {
        return Err(unknown());
    }
    caller.require(Scope::Write)?;
    require_pattern(caller, &binding.pattern)?;
    let txn = db::write_txn(&app.db).await?;
    if !db::suite::unbind(&txn, id).await? {
        return Err(unknown());
    }
    Ok(txn.commit().await?)
}
