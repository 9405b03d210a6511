//! `/runs/{namespace}/{name}`: a run's steps with their scores.
//!
//! [`read`] gathers everything that the page says about a step into one [`Row`]; what is to be said in words is a note,
//! and [`notes`] is the one place that writes them.

use std::collections::{BTreeMap, BTreeSet};

use axum::extract::State;
use axum::response::Response;
use fineline_api::{Checkpoint, CheckpointState, RunName, Scope, Score};
use maud::{Markup, html};

use super::MAX_ROWS;
use super::layout::{self, Page};
use super::visitor::{Reader, Visitor};
use crate::app::App;
use crate::auth::Caller;
use crate::db::revision::RevisionFilter;
use crate::db::run::RunRow;
use crate::db::score::ScoreFilter;
use crate::error::{ApiError, ApiResult};
use crate::extract::{Path, RunPath};
use crate::service;

/// One column for each task, metric and harness; scores of two harnesses never share one.
type Column = (String, String, String);

/// What the page shows.
struct RunPage {
    name: RunName,
    columns: BTreeSet<Column>,
    rows: Vec<Row>,
    has_more: bool,
}

/// What the page shows of a step.
struct Row {
    step: Checkpoint,
    scores: BTreeMap<Column, Score>,
    notes: Vec<String>,
}

pub(super) async fn show(State(app): State<App>, reader: Reader, path: Result<Path<RunPath>, ApiError>) -> Response {
    let visitor = &reader.visitor;
    let found = async { read(&app, &reader.caller, &path?.0.run()?).await };
    match found.await {
        Ok(page) => {
            let under_way = page.rows.iter().any(|row| is_under_way(&row.step));
            let title = page.name.to_string();
            Page::new(visitor, &title)
                .refresh(under_way)
                .show(&body(visitor, &page))
        }
        Err(error) => layout::refused(visitor, &error),
    }
}

async fn read(app: &App, caller: &Caller, name: &RunName) -> ApiResult<RunPage> {
    let run = caller.run(app, name, Scope::Read).await?;
    caller.require(Scope::Read)?;
    let mut by_step: BTreeMap<u64, BTreeMap<Column, Score>> = BTreeMap::new();
    let mut columns = BTreeSet::new();
    for score in service::score::list(app, &run, &ScoreFilter::default()).await? {
        let column = (score.task.clone(), score.metric.clone(), score.harness.clone());
        columns.insert(column.clone());
        by_step.entry(score.step).or_default().insert(column, score);
    }
    let (steps, has_more) = rows_to_show(app, &run, &by_step).await?;
    let row = |step: Checkpoint| Row {
        // One that failed beside a good one of its step was never measured.
        scores: match step.state {
            CheckpointState::Ready | CheckpointState::Deleted => by_step.remove(&step.step).unwrap_or_default(),
            _ => BTreeMap::new(),
        },
        notes: notes(&step),
        step,
    };
    Ok(RunPage {
        name: run.name.clone(),
        columns,
        has_more,
        rows: steps.into_iter().map(row).collect(),
    })
}

/// The first steps of a run, and whether there are more. A deleted one is a row as long as something that was measured of
/// it is left.
async fn rows_to_show<T>(app: &App, run: &RunRow, measured: &BTreeMap<u64, T>) -> ApiResult<(Vec<Checkpoint>, bool)> {
    let filter = RevisionFilter {
        deleted: true,
        ..RevisionFilter::default()
    };
    let (mut rows, mut cursor) = (Vec::new(), None);
    loop {
        let page = service::checkpoint::list(app, run, filter, cursor.as_deref(), MAX_ROWS).await?;
        let shown = |step: &Checkpoint| step.state != CheckpointState::Deleted || measured.contains_key(&step.step);
        rows.extend(page.items.into_iter().filter(shown));
        cursor = page.next_cursor;
        if rows.len() as u64 > MAX_ROWS || cursor.is_none() {
            break;
        }
    }
    let has_more = cursor.is_some() || rows.len() as u64 > MAX_ROWS;
    rows.truncate(usize::try_from(MAX_ROWS).unwrap_or(usize::MAX));
    Ok((rows, has_more))
}

/// What is to be said of a step beside its numbers, a line each.
fn notes(step: &Checkpoint) -> Vec<String> {
    let mut notes = Vec::new();
    if !step.replaced.is_empty() {
        let replaced: Vec<String> = step.replaced.iter().map(ToString::to_string).collect();
        notes.push(format!(
            "this revision replaced {}, which can still be read",
            replaced.join(", ")
        ));
    }
    if !step.same_model_steps.is_empty() {
        let steps: Vec<String> = step.same_model_steps.iter().map(u64::to_string).collect();
        notes.push(format!(
            "the same model as step {}: evaluated once, the scores are shown at each",
            steps.join(", ")
        ));
    }
    notes.extend(step.warnings.iter().map(|warning| format!("warning: {warning}")));
    notes
}

fn is_under_way(step: &Checkpoint) -> bool {
    let unfinished = [CheckpointState::Receiving, CheckpointState::Verifying].contains(&step.state);
    unfinished || step.evaluations.queued + step.evaluations.leased > 0
}

fn body(visitor: &Visitor, page: &RunPage) -> Markup {
    html! {
        p.path { a href=(visitor.link("/")) { "Runs" } " / " }
        h1 { (page.name) }
        div.wide { (table(page)) }
        @if page.has_more {
            p { "These are the first " (MAX_ROWS) " steps; " code { "fineline ls " (page.name) } " lists them all." }
        }
        p { small { "Get a step: " code { "fineline pull " (page.name) "@latest FOLDER --url " (visitor.base_url) } } }
    }
}

fn table(page: &RunPage) -> Markup {
    html! {
        table {
            thead {
                tr {
                    th.number { "step" } th.number { "tokens" } th.number { "loss" } th { "state" }
                    @for (task, metric, harness) in &page.columns {
                        th.number { (task) br; small { (metric) @if harness != "fineline" { " (" (harness) ")" } } }
                    }
                }
            }
            tbody { @for row in &page.rows { (table_row(&page.columns, row)) } }
        }
    }
}

fn table_row(columns: &BTreeSet<Column>, row: &Row) -> Markup {
    let step = &row.step;
    html! {
        tr {
            td.number { (step.step) }
            td.number { (step.tokens.map_or_else(String::new, |tokens| tokens.to_string())) }
            td.number { (step.loss.map_or_else(String::new, |loss| format!("{loss:.3}"))) }
            td { (state(step)) }
            @for column in columns {
                td.number {
                    @if let Some(score) = row.scores.get(column) {
                        (number(score.value))
                        @if let Some(stderr) = score.stderr { small { " ± " (number(stderr)) } }
                    }
                }
            }
        }
        @for note in &row.notes {
            tr.note { td {} td colspan=(columns.len() + 3) { (note) } }
        }
    }
}

fn state(step: &Checkpoint) -> String {
    let counts = &step.evaluations;
    if let Some(why) = &step.not_evaluable {
        return format!("ready, not evaluable: {why}");
    }
    match step.state {
        CheckpointState::Ready if counts.leased > 0 => "ready, being evaluated".to_owned(),
        CheckpointState::Ready if counts.queued > 0 => "ready, waits for a worker".to_owned(),
        CheckpointState::Ready if counts.failed + counts.parked > 0 => "ready, evaluation failed".to_owned(),
        CheckpointState::Failed => format!("failed: {}", step.failure.as_deref().unwrap_or("unknown")),
        state => state.to_string(),
    }
}

/// Three places for what is near one, three digits for the rest.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 1000.0 => format!("{value:.0}"),
        size if size >= 0.001 || size == 0.0 => format!("{value:.3}"),
        _ => format!("{value:.1e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_whatever_their_size() {
        let shown = [0.0, 0.25, 1.9988, 12461272.2, 0.0000123].map(number);
        assert_eq!(shown, ["0.000", "0.250", "1.999", "12461272", "1.2e-5"]);
    }
}
