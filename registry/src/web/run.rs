//! `/runs/{namespace}/{name}`: a run, its scores as curves, and its steps with the numbers behind them; and the same scores
//! as CSV.
//!
//! [`read`] gathers everything that the page says, within one window of steps, so that picture and table are of the same
//! numbers. `controls` is what can be chosen, `chart` the picture, `steps` the table.

use std::collections::{BTreeMap, BTreeSet};

use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use fineline_api::{Binding, Checkpoint, CheckpointState, EvaluationState, Run, RunName, Scope, Score, StepOrder};
use maud::{Markup, html};

use super::MAX_ROWS;
use super::chart;
use super::controls;
use super::curve::{self, Curve, Curves, Panel, Point};
use super::layout::{self, Page, Refresh, Section};
use super::part::{brief, command, count, empty, evaluation_word, number, tile, time};
use super::steps;
use super::view::{Panels, Scale, View};
use super::visitor::{Reader, Visitor};
use crate::app::App;
use crate::auth::Caller;
use crate::db::revision::RevisionFilter;
use crate::db::run::RunRow;
use crate::db::score::ScoreFilter;
use crate::error::{ApiError, ApiResult};
use crate::extract::{Path, Query, RunPath};
use crate::service;

/// Panels of a page; of more the reader chooses.
const MAX_PANELS: usize = 24;

/// The parts of a query, whatever they are.
pub(super) type Parts = Result<Query<Vec<(String, String)>>, ApiError>;

/// What the page shows.
pub(super) struct RunPage {
    pub(super) run: Run,
    pub(super) view: View,
    /// Every task and metric that the run has scores of, whatever is shown of them.
    pub(super) measured: BTreeSet<(String, String)>,
    pub(super) curves: Curves,
    pub(super) rows: Vec<Checkpoint>,
    /// The first step behind those shown.
    next: Option<u64>,
    evaluations: BTreeMap<EvaluationState, u64>,
    /// What is bound to the run, the oldest first.
    bindings: Vec<Binding>,
}

pub(super) async fn show(
    State(app): State<App>,
    reader: Reader,
    path: Result<Path<RunPath>, ApiError>,
    parts: Parts,
) -> Response {
    let visitor = &reader.visitor;
    let found = async { read(&app, &reader.caller, &path?.0.run()?, View::read(&parts?.0)?).await };
    match found.await {
        Ok(page) => {
            let title = page.run.run.to_string();
            Page::new(visitor, &title)
                .section(Section::Runs)
                .refresh(page.refresh())
                .show(&body(visitor, &page))
        }
        Err(error) => layout::refused(visitor, &error),
    }
}

/// The scores that the view shows, as the API writes them.
pub(super) async fn csv(
    State(app): State<App>,
    reader: Reader,
    path: Result<Path<RunPath>, ApiError>,
    parts: Parts,
) -> Response {
    let found = async {
        let (name, view) = (path?.0.run()?, View::read(&parts?.0)?);
        let run = readable(&app, &reader.caller, &name).await?;
        let mut scores = service::score::list(&app, &run, &within(&view)).await?;
        scores.retain(|score| view.shows(&score.task, &score.metric));
        Ok((name, service::score::csv(&scores)?))
    };
    match found.await {
        Ok((name, csv)) => {
            let file = format!(
                "attachment; filename=\"{}-{}-scores.csv\"",
                name.namespace(),
                name.name()
            );
            let headers = [
                (CONTENT_TYPE, "text/csv; charset=utf-8"),
                (CONTENT_DISPOSITION, file.as_str()),
                (CACHE_CONTROL, "private, no-store"),
            ];
            (headers, csv).into_response()
        }
        Err(error) => layout::refused(&reader.visitor, &error),
    }
}

async fn readable(app: &App, caller: &Caller, name: &RunName) -> ApiResult<RunRow> {
    let run = caller.run(app, name, Scope::Read).await?;
    caller.require(Scope::Read)?;
    Ok(run)
}

fn within(view: &View) -> ScoreFilter {
    ScoreFilter {
        step_min: view.from,
        step_max: view.to,
        ..ScoreFilter::default()
    }
}

async fn read(app: &App, caller: &Caller, name: &RunName, view: View) -> ApiResult<RunPage> {
    let run = readable(app, caller, name).await?;
    let scores = service::score::list(app, &run, &within(&view)).await?;
    let scored: BTreeSet<u64> = scores.iter().map(|score| score.step).collect();
    let (rows, next) = rows_to_show(app, &run, &view, &scored).await?;
    let shown: BTreeSet<u64> = rows.iter().filter(|row| was_ready(row)).map(|row| row.step).collect();
    let measured = scores.iter().map(|score| (score.task.clone(), score.metric.clone()));
    let measured = measured.collect();
    let of_rows = |score: &Score| shown.contains(&score.step);
    Ok(RunPage {
        measured,
        curves: curve::curves(scores.into_iter().filter(of_rows), &view),
        rows,
        next,
        evaluations: service::evaluation::count(app, caller, Some(&run)).await?,
        bindings: bindings(app, caller, name).await?,
        run: service::run::describe(app, run).await?,
        view,
    })
}

async fn bindings(app: &App, caller: &Caller, name: &RunName) -> ApiResult<Vec<Binding>> {
    let mut bindings = service::suite::bindings(app, caller).await?;
    bindings.retain(|binding| binding.pattern.matches(name));
    Ok(bindings)
}

/// One that failed beside a good one of its step was never measured.
pub(super) fn was_ready(step: &Checkpoint) -> bool {
    [CheckpointState::Ready, CheckpointState::Deleted].contains(&step.state)
}

/// The first steps of a run that the view lets pass, and the first one behind them. A deleted one is a row as long as
/// something that was measured of it is left.
async fn rows_to_show(
    app: &App,
    run: &RunRow,
    view: &View,
    scored: &BTreeSet<u64>,
) -> ApiResult<(Vec<Checkpoint>, Option<u64>)> {
    let filter = RevisionFilter {
        step_min: view.from,
        step_max: view.to,
        deleted: true,
        ..RevisionFilter::default()
    };
    let (mut rows, mut cursor) = (Vec::new(), None);
    loop {
        let page = service::checkpoint::list(app, run, filter, cursor.as_deref(), MAX_ROWS).await?;
        let shown = |step: &Checkpoint| step.state != CheckpointState::Deleted || scored.contains(&step.step);
        rows.extend(page.items.into_iter().filter(shown));
        cursor = page.next_cursor;
        if rows.len() as u64 > MAX_ROWS || cursor.is_none() {
            break;
        }
    }
    let most = usize::try_from(MAX_ROWS).unwrap_or(usize::MAX);
    let next = rows.get(most).map(|row| row.step);
    rows.truncate(most);
    Ok((rows, next))
}

impl RunPage {
    fn path(&self) -> String {
        format!("/runs/{}", self.run.run)
    }

    /// This page with another query.
    pub(super) fn link(&self, query: &str) -> String {
        format!("{}{query}", self.path())
    }

    fn refresh(&self) -> Option<Refresh> {
        let working = |state| self.evaluations.get(&state).is_some_and(|n| *n > 0);
        let coming = |step: &Checkpoint| [CheckpointState::Receiving, CheckpointState::Verifying].contains(&step.state);
        let under_way =
            working(EvaluationState::Queued) || working(EvaluationState::Leased) || self.rows.iter().any(coming);
        let other = self.link(&self.view.but(|view| view.refresh = !view.refresh));
        under_way.then(|| Refresh::new(self.view.refresh, other))
    }

    /// The training loss, as the pushes said it.
    fn loss(&self) -> Option<Panel> {
        let point = |row: &Checkpoint| {
            let value = row.loss.filter(|loss| loss.is_finite() && was_ready(row))?;
            Some(Point {
                step: row.step,
                tokens: row.tokens,
                value,
                stderr: None,
            })
        };
        let points: Vec<Point> = self.rows.iter().filter_map(point).collect();
        let curves = vec![Curve {
            label: String::new(),
            points,
        }];
        let panel = Panel {
            title: "training loss".to_owned(),
            subtitle: String::new(),
            curves,
        };
        (!panel.curves[0].points.is_empty()).then_some(panel)
    }
}

fn body(visitor: &Visitor, page: &RunPage) -> Markup {
    let run = &page.run;
    html! {
        p.path {
            a href=(visitor.link("/")) { "Runs" } " / "
            a href=(visitor.link(&format!("/?pattern={}/*", run.run.namespace()))) { (run.run.namespace()) } " /"
        }
        h1 { (run.run.name()) }
        @if let Some(text) = &run.attributes.description { p.lead { (text) } }
        (tiles(visitor, page))
        (facts(page))
        @if page.rows.is_empty() {
            (nothing(visitor, page))
        } @else {
            (pictures(visitor, page))
            section aria-labelledby="steps" {
                div.head {
                    h2 #steps { "Steps" }
                    a.button href=(visitor.link(&format!("{}/scores.csv{}", page.path(), page.view.query()))) { "Scores as CSV" }
                }
                (steps::table(visitor, page))
                (windows(visitor, page))
            }
            section aria-labelledby="get" {
                h2 #get { "Get a step" }
                (command(&format!("fineline pull {}@latest FOLDER --url {}", run.run, visitor.base_url)))
            }
        }
    }
}

fn tiles(visitor: &Visitor, page: &RunPage) -> Markup {
    let run = &page.run;
    let newest = page.rows.iter().rev().find(|row| row.state == CheckpointState::Ready);
    html! {
        dl.tiles {
            (tile("checkpoints", &html! { (count(run.n_checkpoints)) }))
            @if let Some(step) = run.latest_step { (tile("newest step", &html! { (count(step)) })) }
            @if let Some(tokens) = newest.and_then(|row| row.tokens) {
                (tile("tokens", &html! { (brief(tokens as f64)) }))
            }
            @if let Some(loss) = newest.and_then(|row| row.loss) { (tile("loss", &html! { (number(loss)) })) }
            @if let Some(n) = run.attributes.n_parameters { (tile("parameters", &html! { (brief(n as f64)) })) }
            @if !page.evaluations.is_empty() {
                (tile("evaluations", &html! {
                    a href=(visitor.link(&format!("/evaluations?run={}", run.run))) {
                        @for (state, n) in &page.evaluations {
                            @let (kind, word) = evaluation_word(*state);
                            span class=(format!("badge {kind}")) { (count(*n)) " " (word) } " "
                        }
                    }
                }))
            }
        }
    }
}

/// What describes the run, as far as anybody said it.
fn facts(page: &RunPage) -> Markup {
    let run = &page.run;
    let said = &run.attributes;
    let mut facts: Vec<(&str, String)> = Vec::new();
    facts.extend(said.architecture.iter().map(|text| ("architecture", text.clone())));
    facts.extend(said.data_mix.iter().map(|text| ("data", text.clone())));
    facts.extend(said.strategy.iter().map(|text| ("strategy", text.clone())));
    facts.extend(said.tokens_per_step.map(|n| ("tokens a step", count(n))));
    facts.extend(
        run.default_tokenizer
            .map(|digest| ("default tokenizer", digest.to_string())),
    );
    facts.extend(said.metadata.iter().map(|(key, value)| (key.as_str(), value.clone())));
    facts.extend(page.bindings.iter().map(|binding| ("evaluated by", scheduled(binding))));
    html! {
        dl.facts {
            @for (name, text) in &facts { div { dt { (name) } dd { (text) } } }
            div { dt { "created (UTC)" } dd { (time(run.created_at)) } }
        }
    }
}

/// A suite with what its binding asks for.
fn scheduled(binding: &Binding) -> String {
    let mut words = vec![format!("{} in {}", binding.suite, binding.dtype)];
    words.push(match binding.every {
        1 => "every step".to_owned(),
        every => format!("steps that {} divides", count(every)),
    });
    words.extend(match binding.order {
        StepOrder::Arrival => None,
        StepOrder::Newest => Some("the newest first".to_owned()),
        StepOrder::Coarse => Some("coarse to fine".to_owned()),
    });
    words.extend(
        binding
            .limit
            .map(|limit| format!("at most {} samples of a task", count(limit))),
    );
    words.join(", ")
}

/// A run without steps says how the first one comes in.
fn nothing(visitor: &Visitor, page: &RunPage) -> Markup {
    let name = &page.run.run;
    if page.view.from.is_some() || page.view.to.is_some() {
        return empty(
            "No step is in this window.",
            &html! { p { a href=(visitor.link(&page.path())) { "Show all steps" } } },
        );
    }
    let push = format!(
        "fineline login --url {}\nfineline push {name} STEP FOLDER",
        visitor.base_url
    );
    empty(
        "This run has no step yet.",
        &html! { p { "Push one from where it is trained:" } (command(&push)) },
    )
}

fn pictures(visitor: &Visitor, page: &RunPage) -> Markup {
    let mut panels = curve::panels(&page.curves, &page.view);
    let n_panels = panels.len();
    panels.truncate(MAX_PANELS);
    let loss = page
        .loss()
        .filter(|_| page.view.tasks.is_empty() && page.view.metrics.is_empty());
    html! {
        section aria-labelledby="scores" {
            h2 #scores { "Scores" }
            @if page.measured.is_empty() {
                (unscored(page))
            } @else {
                (controls::show(visitor, page))
                @if n_panels == 0 {
                    (empty("This view shows no score.", &html! { p { a href=(visitor.link(&page.path())) { "Show everything" } } }))
                }
            }
            @if page.view.x_scale == Scale::Log {
                p.aside { "A logarithmic axis has no 0: the first point of a curve that begins there stands at its left end." }
            }
            div class=(if page.view.panels == Panels::Metric { "panels large" } else { "panels" }) {
                @if let Some(loss) = &loss { (chart::figure("loss", loss, &page.view)) }
                @for (i, panel) in panels.iter().enumerate() {
                    (chart::figure(&format!("panel-{i}"), panel, &page.view))
                }
            }
            @if n_panels > MAX_PANELS {
                p { "These are the first " (MAX_PANELS) " of " (n_panels) " panels: choose tasks or metrics above." }
            }
        }
    }
}

/// Steps that nothing measures say how that begins.
fn unscored(page: &RunPage) -> Markup {
    if !page.evaluations.is_empty() {
        return html! { p { "No score is there yet." } };
    }
    let bind = format!("fineline suite apply suite.yaml --run {} --backfill all", page.run.run);
    empty(
        "Nothing measures this run.",
        &html! {
            p { "Bind a suite of lm-eval tasks to it, and every step is evaluated by itself:" }
            (command(&bind))
        },
    )
}

/// The way to the steps that are not in this window.
fn windows(visitor: &Visitor, page: &RunPage) -> Markup {
    let view = &page.view;
    html! {
        @if page.next.is_some() || view.from.is_some() || view.to.is_some() {
            p.pager {
                @if view.from.is_some() || view.to.is_some() {
                    a href=(visitor.link(&page.link(&view.but(|view| (view.from, view.to) = (None, None))))) { "From the first step" }
                    " "
                }
                @if let Some(next) = page.next {
                    "These are " (MAX_ROWS) " steps, in the curves too. "
                    a href=(visitor.link(&page.link(&view.but(|view| view.from = Some(next))))) { "On from step " (count(next)) }
                }
            }
        }
    }
}
