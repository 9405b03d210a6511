//! The read-only pages: runs, and a run's steps with their scores. Only what everybody may read (`--anonymous-read`) is
//! shown here; with a token there are the command line and the API.
//!
//! **Invariant:** everything that comes from outside is escaped by construction (maud), and no page loads anything from
//! elsewhere.

use std::collections::{BTreeMap, BTreeSet};

use axum::Router;
use axum::extract::State;
use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use fineline_api::{Checkpoint, CheckpointState, RunPattern, Scope, Score};
use maud::{DOCTYPE, Markup, html};

use crate::app::App;
use crate::auth::{Caller, authenticate};
use crate::db::revision::RevisionFilter;
use crate::db::score::ScoreFilter;
use crate::error::{ApiError, ApiResult};
use crate::extract::{Path, RunPath};
use crate::service;

const STYLE: &str = include_str!("style.css");

/// Rows of a page; a longer list ends with a word that there is more.
const MAX_ROWS: u64 = 1000;

pub(crate) fn router() -> Router<App> {
    Router::new()
        .route("/", get(runs))
        .route("/runs/{namespace}/{name}", get(run))
        .route(
            "/assets/style.css",
            get(|| std::future::ready(([(CONTENT_TYPE, "text/css; charset=utf-8")], STYLE))),
        )
}

async fn reader(app: &App) -> ApiResult<Caller> {
    authenticate(app, None).await
}

async fn runs(State(app): State<App>) -> Response {
    let listed = async {
        let caller = reader(&app).await?;
        service::run::list(&app, &caller, &RunPattern::All, None, MAX_ROWS).await
    };
    let body = match listed.await {
        Err(error) => return refused(&error),
        Ok(page) => html! {
            h1 { "Runs" }
            @if page.items.is_empty() { p { "No run yet." } }
            table {
                thead { tr { th { "run" } th.number { "checkpoints" } th.number { "newest step" } th { "created (UTC)" } } }
                tbody {
                    @for run in &page.items {
                        tr {
                            td { a href=(format!("/runs/{}", run.run)) { (run.run) } }
                            td.number { (run.n_checkpoints) }
                            td.number { (run.latest_step.map_or_else(String::new, |step| step.to_string())) }
                            td { (run.created_at.format("%Y-%m-%d %H:%M")) }
                        }
                    }
                }
            }
        },
    };
    page("Runs", false, &body)
}

async fn run(State(app): State<App>, path: Result<Path<RunPath>, ApiError>) -> Response {
    let found = async {
        let name = path?.0.run()?;
        let run = reader(&app).await?.run(&app, &name, Scope::Read).await?;
        let filter = RevisionFilter::default();
        let steps = service::checkpoint::list(&app, &run, filter, None, MAX_ROWS).await?;
        let scores = service::score::list(&app, &run, &ScoreFilter::default()).await?;
        Ok::<_, ApiError>((name, steps.items, scores))
    };
    match found.await {
        Err(error) => refused(&error),
        Ok((name, steps, scores)) => {
            let pending = steps.iter().any(is_pending);
            page(
                &name.to_string(),
                pending,
                &steps_and_scores(&name.to_string(), &steps, &scores),
            )
        }
    }
}

fn is_pending(step: &Checkpoint) -> bool {
    let unfinished = [CheckpointState::Receiving, CheckpointState::Verifying].contains(&step.state);
    unfinished || step.evaluations.queued + step.evaluations.leased > 0
}

fn steps_and_scores(name: &str, steps: &[Checkpoint], scores: &[Score]) -> Markup {
    // One column for each (task, metric, harness); scores of two harnesses never share one.
    let columns: BTreeSet<_> = scores
        .iter()
        .map(|score| (score.task.as_str(), score.metric.as_str(), score.harness.as_str()))
        .collect();
    let cells: BTreeMap<_, _> = scores
        .iter()
        .map(|score| {
            (
                (
                    score.step,
                    score.task.as_str(),
                    score.metric.as_str(),
                    score.harness.as_str(),
                ),
                score,
            )
        })
        .collect();
    html! {
        p { a href="/" { "Runs" } }
        h1 { (name) }
        div.wide {
            table {
                thead {
                    tr {
                        th.number { "step" } th.number { "tokens" } th.number { "loss" } th { "state" }
                        @for (task, metric, harness) in &columns {
                            th.number { (task) br; small { (metric) @if *harness != "fineline" { " (" (harness) ")" } } }
                        }
                    }
                }
                tbody {
                    @for step in steps {
                        tr {
                            td.number { (step.step) }
                            td.number { (step.tokens.map_or_else(String::new, |tokens| tokens.to_string())) }
                            td.number { (step.loss.map_or_else(String::new, |loss| format!("{loss:.3}"))) }
                            td { (state(step)) }
                            @for (task, metric, harness) in &columns {
                                td.number {
                                    @if let Some(score) = cells.get(&(step.step, *task, *metric, *harness)) {
                                        (number(score.value))
                                        @if let Some(stderr) = score.stderr { small { " ± " (number(stderr)) } }
                                    }
                                }
                            }
                        }
                        @for warning in &step.warnings {
                            tr.warning { td {} td colspan=(columns.len() + 3) { "warning: " (warning) } }
                        }
                    }
                }
            }
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

fn refused(error: &ApiError) -> Response {
    let body = html! {
        h1 { "Not here" }
        p { (error) }
        p { "Pages show what everybody may read. Use the command line with a token, or start the server with " code { "--anonymous-read" } "." }
    };
    let mut response = page("Not here", false, &body);
    *response.status_mut() = error.status();
    response
}

fn page(title: &str, refresh: bool, body: &Markup) -> Response {
    let markup = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                @if refresh { meta http-equiv="refresh" content="3"; }
                title { (title) " · Fineline" }
                link rel="stylesheet" href="/assets/style.css";
            }
            body { main { (body) } }
        }
    };
    let policy = "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    let headers = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CONTENT_SECURITY_POLICY, policy),
    ];
    (headers, markup.into_string()).into_response()
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
