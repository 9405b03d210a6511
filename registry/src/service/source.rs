//! Making, showing and ending sources, opening them, saying what one would bring, and being told that one has news. Looking at
//! them again and again stands in `sync`.
//!
//! **Invariant:** a secret is read here and by the place that it opens, and is in no answer, message or log.

use std::collections::HashMap;

use fineline_api::error::ErrorCode;
use fineline_api::source::{DEFAULT_SETTLE_S, SourceStepState};
use fineline_api::{CreateSource, Source, SourceLocation, SourcePreview, SourceState, SourceStep};
use fineline_format::step_name::StepTemplate;
use fineline_format::{Digest, check_path, shown_within};
use sea_orm::DatabaseTransaction;

use crate::app::App;
use crate::db;
use crate::db::run::RunRow;
use crate::db::source::SourceRow;
use crate::error::{ApiError, ApiResult};
use crate::service::source_step;
use crate::source::plan::{Known, Planned, Rules, Verdict, plan, wanted};
use crate::source::{Origin, SourceError, Wanted};

/// What variables of the environment begin with that a source may name: no other is anybody's to send away.
const SECRET_VARIABLE: &str = "FINELINE_SOURCE_SECRET";

/// What is told of a source that brings nothing: often its place is misspelled.
pub(crate) const NOTHING: &str = "there is nothing at this place that is selected";

/// The shortest secret of a webhook.
const MIN_WEBHOOK_SECRET_BYTES: usize = 16;

/// Who hears of news again and again has a source looked at no more often than this.
const HEARD_AGAIN_MS: i64 = 10_000;

/// The shortest interval and the longest wait.
const MIN_INTERVAL_S: u64 = 10;
const MAX_WAIT_S: u64 = 30 * 24 * 60 * 60;

/// The most of what a source says of names.
const MAX_NAMES: usize = 10_000;
const MAX_REPOSITORIES: usize = 10_000;

impl From<SourceError> for ApiError {
    fn from(error: SourceError) -> Self {
        let code = match &error {
            SourceError::Refused(_) | SourceError::NotFound(_) | SourceError::Denied(_) | SourceError::Changed(_) => {
                ErrorCode::Unprocessable
            }
            SourceError::Unavailable { .. } => ErrorCode::Unavailable,
        };
        Self::new(code, error.to_string())
    }
}

/// Makes a source; it is looked at at once.
///
/// # Errors
/// 400 for what breaks a bound, 404 for a run that is not there, 409 when the name is taken, 422 for a place that may not
/// be read.
pub(crate) async fn create(app: &App, run: &RunRow, new: CreateSource) -> ApiResult<Source> {
    check(&new)?;
    Origin::open(&new.location, secret_of(&new)?.as_deref(), &app.options.reach)?;
    let txn = db::write_txn(&app.db).await?;
    let name = new.name.clone();
    let row = db::source::insert(&txn, run.id, new).await?;
    let row = row.ok_or_else(|| {
        ApiError::new(ErrorCode::Conflict, format!("there is a source `{name}`")).hint("choose another name")
    })?;
    txn.commit().await?;
    app.changed.notify_waiters();
    describe(app, row).await
}

/// All sources, by name.
pub(crate) async fn list(app: &App) -> ApiResult<Vec<Source>> {
    let mut sources = Vec::new();
    for row in db::source::list(app.db.reader()).await? {
        sources.push(describe(app, row).await?);
    }
    Ok(sources)
}

/// The source of that name.
///
/// # Errors
/// 404 when there is none.
pub(crate) async fn find(app: &App, name: &str) -> ApiResult<SourceRow> {
    let row = db::source::find(app.db.reader(), name).await?;
    row.ok_or_else(|| {
        ApiError::not_found(format!("source `{}`", shown_within(70, name))).hint("`fineline source list` lists them")
    })
}

/// A source as the API shows it.
pub(crate) async fn describe(app: &App, row: SourceRow) -> ApiResult<Source> {
    let n_steps = db::source_step::count(app.db.reader(), row.id).await?;
    let how = row.definition;
    Ok(Source {
        name: how.name,
        run: how.run,
        location: how.location,
        mapping: how.mapping,
        interval_s: how.interval_s,
        settle_s: how.settle_s.unwrap_or(DEFAULT_SETTLE_S),
        marker: how.marker,
        keep_optimizer: how.keep_optimizer,
        tokenizer: how.tokenizer,
        has_secret: row.secret.is_some() || how.secret_env.is_some(),
        has_webhook_secret: row.webhook_secret_sha256.is_some(),
        state: row.state,
        created_at: db::time(row.created_at_ms),
        synced_at: row.synced_at_ms.map(db::time),
        next_sync_at: row.next_sync_at_ms.map(db::time),
        error: row.error,
        n_steps,
    })
}

/// The checkpoints of a source, by step, those without one last.
///
/// # Errors
/// 404 when there is no such source.
pub(crate) async fn steps(app: &App, name: &str) -> ApiResult<Vec<SourceStep>> {
    let row = find(app, name).await?;
    let steps = db::source_step::list(app.db.reader(), row.id).await?;
    Ok(steps.into_iter().map(|step| step.shown).collect())
}

/// Lets a source be looked at at once, one that is paused or done too, or pauses it: a look at it is ended.
///
/// # Errors
/// 404 when there is no such source.
pub(crate) async fn set_state(app: &App, name: &str, state: SourceState) -> ApiResult<Source> {
    let row = find(app, name).await?;
    let txn = db::write_txn(&app.db).await?;
    db::source::set_state(&txn, row.id, state).await?;
    if state == SourceState::Paused {
        say_paused(&txn, row.id).await?;
    }
    txn.commit().await?;
    app.changed.notify_waiters();
    describe(app, find(app, name).await?).await
}

/// What was on its way goes on when the source does; nobody writes to its rows till then.
async fn say_paused(txn: &DatabaseTransaction, id: i64) -> ApiResult<()> {
    for mut row in db::source_step::list(txn, id).await? {
        if matches!(row.shown.state, SourceStepState::Fetching | SourceStepState::Verifying) {
            row.shown.state = SourceStepState::Waiting;
            row.shown.message = Some("the source is paused".to_owned());
            db::source_step::put(txn, id, &row).await?;
        }
    }
    Ok(())
}

/// Forgets a source; the steps that came of it stay.
///
/// # Errors
/// 404 when there is no such source.
pub(crate) async fn remove(app: &App, name: &str) -> ApiResult<()> {
    let row = find(app, name).await?;
    let txn = db::write_txn(&app.db).await?;
    db::source::remove(&txn, row.id).await?;
    Ok(txn.commit().await?)
}

/// Hears that a source has news, of who knows its secret; one that is paused stays so.
///
/// # Errors
/// 401 for another secret, and for a source that there is none of or that has none.
pub(crate) async fn hear(app: &App, name: &str, secret: Option<&str>) -> ApiResult<()> {
    let row = db::source::find(app.db.reader(), name).await?;
    // By digest, so that how long the comparison takes tells nothing of the secret.
    let said = secret.map(|secret| Digest::of(secret.as_bytes()));
    let is_known = |row: &SourceRow| row.webhook_secret_sha256.is_some() && row.webhook_secret_sha256 == said;
    let Some(row) = row.filter(is_known) else {
        let message = format!(
            "the secret of source `{}` is another, or it has none",
            shown_within(70, name)
        );
        return Err(ApiError::new(ErrorCode::Unauthorized, message).hint("send it as `X-Webhook-Secret`"));
    };
    let now = db::now_ms(app.db.reader()).await?;
    let Some(at_ms) = heard_at(&row, now) else {
        return Ok(());
    };
    let txn = db::write_txn(&app.db).await?;
    db::source::hear(&txn, row.id, at_ms).await?;
    txn.commit().await?;
    app.changed.notify_waiters();
    Ok(())
}

/// When a source is to be looked at of which there is news now; `None` where a look that begins after now is near anyway.
fn heard_at(row: &SourceRow, now: i64) -> Option<i64> {
    let is_looked_at = row.claimed_until_ms.is_some_and(|until| until > now);
    // A look that has begun may have passed by what is new.
    let at_ms = if is_looked_at { now + HEARD_AGAIN_MS } else { now };
    let is_near = |next: i64| next <= at_ms && (next > now || !is_looked_at);
    match row.state {
        SourceState::Paused => None,
        _ if row.next_sync_at_ms.is_some_and(is_near) => None,
        _ => Some(at_ms),
    }
}

/// What a source would bring, without making it.
///
/// # Errors
/// As [`create`]; 503 when the place does not answer.
pub(crate) async fn preview(app: &App, run: &RunRow, new: CreateSource) -> ApiResult<SourcePreview> {
    check(&new)?;
    let row = SourceRow {
        id: 0,
        run_id: run.id,
        secret: new.secret.clone(),
        webhook_secret_sha256: None,
        state: SourceState::Paused,
        created_at_ms: db::now_ms(app.db.reader()).await?,
        synced_at_ms: None,
        next_sync_at_ms: None,
        claimed_until_ms: None,
        error: None,
        definition: new,
    };
    let origin = open(app, &row)?;
    let mut warnings = Vec::new();
    if let Some(at) = &row.definition.tokenizer
        && let Err(error) = origin.place(at).await
    {
        warnings.push(format!("the tokenizer `{at}` can't be read: {error}"));
    }
    let planned = find_checkpoints(&origin, &row, run, &HashMap::new()).await?;
    if planned.is_empty() {
        warnings.push(NOTHING.to_owned());
    }
    let mut steps = Vec::new();
    for one in planned {
        let mut step = source_step::show(app, &row, run, &one).await?;
        (step.state, step.message) = match one.verdict {
            Verdict::Whole | Verdict::Unchanged => (SourceStepState::New, None),
            Verdict::Waiting(why) => (SourceStepState::Waiting, Some(why)),
            Verdict::Unlisted(problem) => (SourceStepState::Waiting, Some(problem.to_string())),
            Verdict::Failed(why) => (SourceStepState::Failed, Some(why)),
            Verdict::Ignored(why) => (SourceStepState::Ignored, Some(why)),
        };
        if let (Some(number), SourceStepState::New) = (step.step, step.state)
            && db::revision::current(app.db.reader(), run.id, number).await?.is_some()
        {
            step.warnings
                .push(format!("run `{}` has step {number} already", run.name));
        }
        steps.push(step);
    }
    Ok(SourcePreview { steps, warnings })
}

/// What a source has, and what becomes of it; `known` came in.
///
/// # Errors
/// As [`Origin::list`].
pub(crate) async fn find_checkpoints(
    origin: &Origin,
    source: &SourceRow,
    run: &RunRow,
    known: &HashMap<String, Known>,
) -> Result<Vec<Planned>, SourceError> {
    let how = &source.definition;
    let rules = Rules {
        mapping: &how.mapping,
        run_tokens_per_step: run.attributes.tokens_per_step,
        marker: how.marker.as_deref(),
        keep_optimizer: how.keep_optimizer,
    };
    let version = |(place, known): (&String, &Known)| (place.clone(), known.version.clone());
    let versions = known.iter().map(version).collect();
    let wanted = Wanted {
        known: &versions,
        names: &|names| wanted(names, &rules),
    };
    Ok(plan(origin.list(wanted).await?, known, &rules))
}

/// Opens the place of a source.
///
/// # Errors
/// As [`Origin::open`]; 422 when the environment lacks its secret.
pub(crate) fn open(app: &App, row: &SourceRow) -> Result<Origin, ApiError> {
    let secret = match &row.secret {
        Some(secret) => Some(secret.clone()),
        None => secret_of(&row.definition)?,
    };
    Ok(Origin::open(
        &row.definition.location,
        secret.as_deref(),
        &app.options.reach,
    )?)
}

fn secret_of(new: &CreateSource) -> ApiResult<Option<String>> {
    if let Some(secret) = &new.secret {
        return Ok(Some(secret.clone()));
    }
    let Some(name) = &new.secret_env else { return Ok(None) };
    let value = std::env::var(name).ok().filter(|value| !value.is_empty());
    let missing = || {
        ApiError::unprocessable(format!("the server's environment has no variable `{name}`"))
            .hint("set it and start the server again")
    };
    value.map(Some).ok_or_else(missing)
}

fn check(new: &CreateSource) -> ApiResult<()> {
    let refused = |message: String| Err(ApiError::invalid(message));
    let is_name = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if !(1..=64).contains(&new.name.len()) || !new.name.chars().all(is_name) || new.name.starts_with('.') {
        let name = shown_within(70, &new.name);
        return refused(format!(
            "source name `{name}` is refused: use 1 to 64 letters, digits, `.`, `_` or `-`"
        ));
    }
    if let Some(interval_s) = new.interval_s.filter(|s| !(MIN_INTERVAL_S..=MAX_WAIT_S).contains(s)) {
        return refused(format!(
            "an interval of {interval_s} s is refused: use {MIN_INTERVAL_S} s to 30 days"
        ));
    }
    if let Some(settle_s) = new.settle_s.filter(|s| *s > MAX_WAIT_S) {
        return refused(format!(
            "a settle time of {settle_s} s is refused: use 30 days at the most"
        ));
    }
    if let Some(marker) = &new.marker {
        check_path(marker).or_else(|error| refused(format!("the marker file is refused: {error}")))?;
    }
    if let Some(template) = &new.mapping.template {
        template.parse::<StepTemplate>().map(drop).or_else(refused)?;
    }
    if new.mapping.tokens_per_step == Some(0) || new.mapping.step_multiple == Some(0) {
        return refused("tokens per step and the multiple of steps are 1 at the least".to_owned());
    }
    let n_names = new.mapping.steps.len() + new.mapping.tokens.len() + new.mapping.select.len();
    if n_names > MAX_NAMES {
        return refused(format!(
            "a mapping of {n_names} names is refused: {MAX_NAMES} are the most"
        ));
    }
    if let SourceLocation::Hub { repositories, .. } = &new.location
        && !(1..=MAX_REPOSITORIES).contains(&repositories.len())
    {
        let n = repositories.len();
        return refused(format!(
            "a source of {n} repositories is refused: name 1 to {MAX_REPOSITORIES}"
        ));
    }
    if new.secret.is_some() && new.secret_env.is_some() {
        return refused("a secret and a variable that holds one are given: give one of them".to_owned());
    }
    let is_variable = |name: &String| name.starts_with(SECRET_VARIABLE) && name.len() <= 128;
    if let Some(name) = new.secret_env.as_ref().filter(|name| !is_variable(name)) {
        let name = shown_within(70, name);
        return refused(format!(
            "variable `{name}` is refused: a source's begins with `{SECRET_VARIABLE}`"
        ));
    }
    if new
        .webhook_secret
        .as_ref()
        .is_some_and(|secret| secret.len() < MIN_WEBHOOK_SECRET_BYTES)
    {
        return refused(format!(
            "a webhook's secret has {MIN_WEBHOOK_SECRET_BYTES} characters at the least"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(state: SourceState, next: Option<i64>, claimed_until: Option<i64>) -> Option<i64> {
        let row = SourceRow {
            state,
            next_sync_at_ms: next,
            claimed_until_ms: claimed_until,
            ..db::source::folder()
        };
        heard_at(&row, 100_000)
    }

    #[test]
    fn news_are_looked_at_soon_and_many_of_them_once() {
        use SourceState::{Active, Done, Paused};
        assert_eq!(heard(Active, Some(900_000), None), Some(100_000));
        assert_eq!(heard(Done, None, None), Some(100_000));
        assert_eq!(heard(Paused, None, None), None);
        // It is due, and nobody began to look.
        assert_eq!(heard(Active, Some(99_000), None), None);
        assert_eq!(heard(Active, Some(99_000), Some(98_000)), None, "a claim that is over");
        // A look has begun: there is one more after it, however often it is said.
        let after = 100_000 + HEARD_AGAIN_MS;
        assert_eq!(heard(Active, Some(99_000), Some(101_000)), Some(after));
        assert_eq!(heard(Active, Some(after - 1), Some(101_000)), None);
    }
}
