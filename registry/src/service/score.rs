//! Scores of a run: reading them by step, and taking those in that were measured elsewhere.

use fineline_api::reference::check_name;
use fineline_api::score::OWN_HARNESS;
use fineline_api::{Page, PostScores, Score};
use fineline_format::shown_within;

use crate::app::App;
use crate::auth::Caller;
use crate::db;
use crate::db::run::RunRow;
use crate::db::score::{ScoreFilter, ScoreKey};
use crate::error::{ApiError, ApiResult};
use crate::service::checkpoint;

/// The most scores of one post.
const MAX_SCORES: usize = 10_000;

/// All scores of a run that pass the filter, by step.
pub(crate) async fn list(app: &App, run: &RunRow, filter: &ScoreFilter) -> ApiResult<Vec<Score>> {
    let all = db::score::list(app.db.reader(), run.id, &run.name, filter, None, usize::MAX).await?;
    Ok(all.into_iter().map(|(_, score)| score).collect())
}

/// A page of them; the cursor is the key of the last score of the page before.
///
/// # Errors
/// 400 for a cursor that is none of ours.
pub(crate) async fn page(
    app: &App,
    run: &RunRow,
    filter: &ScoreFilter,
    cursor: Option<&str>,
    limit: u64,
) -> ApiResult<Page<Score>> {
    let after: Option<ScoreKey> = cursor
        .map(serde_json::from_str)
        .transpose()
        .map_err(|_| ApiError::invalid("that cursor is none of ours"))?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut found = db::score::list(app.db.reader(), run.id, &run.name, filter, after.as_ref(), limit + 1).await?;
    let more = found.len() > limit;
    found.truncate(limit);
    let next_cursor = found
        .last()
        .filter(|_| more)
        .map(|(key, _)| serde_json::to_string(key).map_err(ApiError::internal))
        .transpose()?;
    let items = found.into_iter().map(|(_, score)| score).collect();
    Ok(Page { items, next_cursor })
}

/// Scores as CSV, a line each under a line of names.
///
/// # Errors
/// 500 when they can't be written, which has no cause that a caller can give.
pub(crate) fn csv(scores: &[Score]) -> ApiResult<String> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let header = [
        "run",
        "step",
        "tokens",
        "task",
        "metric",
        "filter",
        "value",
        "stderr",
        "stderr_method",
        "n",
        "limit",
        "n_shot",
        "higher_is_better",
        "harness",
        "harness_version",
        "dtype",
        "suite",
        "checkpoint",
        "evaluation",
        "current",
        "deleted",
        "n_replaced",
        "evaluated_step",
        "created_at",
    ];
    writer.write_record(header).map_err(ApiError::internal)?;
    for score in scores {
        let optional = |value: &Option<f64>| value.map_or_else(String::new, |value| value.to_string());
        let row = [
            score.run.to_string(),
            score.step.to_string(),
            score.tokens.map_or_else(String::new, |tokens| tokens.to_string()),
            inert(&score.task),
            inert(&score.metric),
            inert(&score.filter),
            score.value.to_string(),
            optional(&score.stderr),
            score.stderr_method.clone().unwrap_or_default(),
            score.n.to_string(),
            score.limit.map_or_else(String::new, |limit| limit.to_string()),
            score.n_shot.to_string(),
            score
                .higher_is_better
                .map_or_else(String::new, |better| better.to_string()),
            inert(&score.harness),
            inert(score.harness_version.as_deref().unwrap_or_default()),
            inert(score.dtype.as_deref().unwrap_or_default()),
            inert(score.suite.as_deref().unwrap_or_default()),
            score.checkpoint.to_string(),
            score.evaluation.map_or_else(String::new, |id| id.to_string()),
            score.current.to_string(),
            score.deleted.to_string(),
            score.n_replaced.to_string(),
            score.evaluated_step.map_or_else(String::new, |step| step.to_string()),
            score.created_at.to_rfc3339(),
        ];
        writer.write_record(row).map_err(ApiError::internal)?;
    }
    let bytes = writer.into_inner().map_err(ApiError::internal)?;
    String::from_utf8(bytes).map_err(ApiError::internal)
}

/// Text that no spreadsheet takes for a formula.
fn inert(text: &str) -> String {
    if text.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        format!("'{text}")
    } else {
        text.to_owned()
    }
}

/// Checks short texts that stand beside a score.
///
/// # Errors
/// 422 for one of more than 128 bytes.
pub(crate) fn check_words<'a>(words: impl IntoIterator<Item = &'a str>) -> ApiResult<()> {
    match words.into_iter().find(|word| word.len() > 128) {
        Some(long) => Err(ApiError::unprocessable(format!(
            "`{}…` has {} bytes, filter, dtype, method and version have 128 at most",
            shown_within(40, long),
            long.len()
        ))),
        None => Ok(()),
    }
}

/// Checks the numbers that stand beside a score's value.
///
/// # Errors
/// 422 for one that no measurement gives.
pub(crate) fn check_numbers(task: &str, metric: &str, stderr: Option<f64>, n: u64, n_shot: u32) -> ApiResult<()> {
    let wrong = if stderr.is_some_and(|stderr| stderr < 0.0) {
        "a standard error below 0"
    } else if i64::try_from(n).is_err() {
        "a number of samples beyond 2^63"
    } else if i32::try_from(n_shot).is_err() {
        "a number of shots beyond 2^31"
    } else {
        return Ok(());
    };
    Err(ApiError::unprocessable(format!(
        "metric `{metric}` of task `{task}` has {wrong}"
    )))
}

/// Takes in scores that were measured elsewhere; gives how many.
///
/// # Errors
/// 400 for a harness that is ours or no name, 422 for a value that is no finite number, 404 for the checkpoint.
pub(crate) async fn post(app: &App, caller: &Caller, run: &RunRow, new: &PostScores) -> ApiResult<u64> {
    check_name("harness", &new.harness).map_err(ApiError::invalid)?;
    if new.harness == OWN_HARNESS {
        let message = format!("harness `{OWN_HARNESS}` is ours: name the one that measured");
        return Err(ApiError::invalid(message));
    }
    if new.scores.is_empty() || new.scores.len() > MAX_SCORES {
        return Err(ApiError::invalid(format!("post 1 to {MAX_SCORES} scores at once")));
    }
    for score in &new.scores {
        if !score.value.is_finite() || score.stderr.is_some_and(|stderr| !stderr.is_finite()) {
            let message = format!("metric `{}` of task `{}` is no finite number", score.metric, score.task);
            return Err(ApiError::unprocessable(message));
        }
        if score.task.is_empty() || score.task.len() > 256 || score.metric.is_empty() || score.metric.len() > 128 {
            return Err(ApiError::unprocessable("a task has 1 to 256 bytes, a metric 1 to 128"));
        }
        check_words([score.filter.as_str()].into_iter().chain(score.dtype.as_deref()))?;
        check_numbers(&score.task, &score.metric, score.stderr, score.n, score.n_shot)?;
        if score
            .limit
            .is_some_and(|limit| limit == 0 || i64::try_from(limit).is_err())
        {
            let message = format!(
                "metric `{}` of task `{}` has a limit that is none",
                score.metric, score.task
            );
            return Err(ApiError::unprocessable(message));
        }
    }
    check_words(new.harness_version.as_deref())?;
    let revision = checkpoint::resolve(app, caller, run, &new.reference).await?;
    let txn = db::write_txn(&app.db).await?;
    db::score::post(&txn, revision.id, new).await?;
    txn.commit().await?;
    Ok(new.scores.len() as u64)
}
