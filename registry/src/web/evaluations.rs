//! `/evaluations`: what is measured now, what waits and why, what failed, and what was done.
//!
//! Without a state in the query, the page shows the beginning of each list; with one, that list in pages.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::response::Response;
use fineline_api::path::segment;
use fineline_api::{Evaluation, EvaluationState, RunName, Scope};
use maud::{Markup, html};
use serde::Deserialize;

use super::csrf::Csrf;
use super::layout::{self, Page, Refresh, Section};
use super::part::{command, count, empty, evaluation_state, evaluation_word, prose, tile, time, took, wide};
use super::visitor::{Reader, Visitor};
use crate::app::App;
use crate::auth::Caller;
use crate::db::evaluation::EvaluationFilter;
use crate::error::{ApiError, ApiResult};
use crate::extract::Query;
use crate::service;

/// Evaluations of a page, and of each list on the page of all.
const A_PAGE: u64 = 100;
const A_LIST: u64 = 10;

/// In the order in which somebody looks for them.
const STATES: &[EvaluationState] = &[
    EvaluationState::Leased,
    EvaluationState::Failed,
    EvaluationState::Parked,
    EvaluationState::Queued,
    EvaluationState::Done,
    EvaluationState::Cancelled,
];

/// `?run=&state=&after=&refresh=`
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EvaluationsQuery {
    /// Those that a run's steps show.
    run: Option<RunName>,
    /// One state, by the API's word.
    state: Option<String>,
    /// The last one of the page before.
    after: Option<String>,
    /// Whether the page loads itself again.
    refresh: Option<Switch>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Switch {
    On,
    Off,
}

impl EvaluationsQuery {
    fn link(&self) -> String {
        let mut parts = Vec::new();
        parts.extend(self.run.iter().map(|run| format!("run={run}")));
        parts.extend(self.state.iter().map(|state| format!("state={}", segment(state))));
        parts.extend(self.after.iter().map(|after| format!("after={}", segment(after))));
        parts.extend((self.refresh == Some(Switch::Off)).then(|| "refresh=off".to_owned()));
        if parts.is_empty() {
            "/evaluations".to_owned()
        } else {
            format!("/evaluations?{}", parts.join("&"))
        }
    }
}

/// Evaluations in one state.
struct List {
    state: EvaluationState,
    items: Vec<Evaluation>,
    /// Where the next page begins.
    next: Option<String>,
}

/// What the page shows.
struct EvaluationsPage {
    query: EvaluationsQuery,
    counts: BTreeMap<EvaluationState, u64>,
    lists: Vec<List>,
    may_write: bool,
}

pub(super) async fn show(
    State(app): State<App>,
    reader: Reader,
    query: Result<Query<EvaluationsQuery>, ApiError>,
) -> Response {
    let visitor = &reader.visitor;
    let found = async { read(&app, &reader.caller, query?.0).await };
    match found.await {
        Ok(page) => Page::new(visitor, "Evaluations")
            .section(Section::Evaluations)
            .refresh(page.refresh())
            .show(&body(visitor, &page)),
        Err(error) => layout::refused(visitor, &error),
    }
}

async fn read(app: &App, caller: &Caller, query: EvaluationsQuery) -> ApiResult<EvaluationsPage> {
    caller.require(Scope::Read)?;
    let run = match &query.run {
        Some(name) => Some(caller.run(app, name, Scope::Read).await?),
        None => None,
    };
    let one: Option<EvaluationState> = query
        .state
        .as_deref()
        .map(str::parse)
        .transpose()
        .map_err(ApiError::invalid)?;
    if one.is_none() && query.after.is_some() {
        return Err(ApiError::invalid("`after` needs `state`"));
    }
    let counts = service::evaluation::count(app, caller, run.as_ref()).await?;
    let mut lists = Vec::new();
    for &state in STATES.iter().filter(|state| one.is_none_or(|one| one == **state)) {
        let filter = EvaluationFilter {
            run_id: run.as_ref().map(|run| run.id),
            state: Some(state),
            // What waits is taken by age; of the rest, the newest is what somebody looks for.
            newest_first: state != EvaluationState::Queued,
            ..EvaluationFilter::default()
        };
        let limit = if one.is_some() { A_PAGE } else { A_LIST };
        let page = service::evaluation::list(app, caller, &filter, query.after.as_deref(), limit).await?;
        lists.push(List {
            state,
            items: page.items,
            next: page.next_cursor,
        });
    }
    lists.retain(|list| one.is_some() || !list.items.is_empty());
    Ok(EvaluationsPage {
        query,
        counts,
        lists,
        may_write: caller.has(Scope::Write),
    })
}

impl EvaluationsPage {
    fn refresh(&self) -> Option<Refresh> {
        let is = |state| self.counts.get(&state).is_some_and(|n| *n > 0);
        let is_off = self.query.refresh == Some(Switch::Off);
        let other = EvaluationsQuery {
            refresh: (!is_off).then_some(Switch::Off),
            ..self.query.clone()
        };
        let under_way = is(EvaluationState::Queued) || is(EvaluationState::Leased);
        under_way.then(|| Refresh::new(!is_off, other.link()))
    }

    /// The page of one state, or of all.
    fn of(&self, state: Option<EvaluationState>) -> String {
        let query = EvaluationsQuery {
            state: state.map(|state| state.to_string()),
            after: None,
            ..self.query.clone()
        };
        query.link()
    }
}

fn body(visitor: &Visitor, page: &EvaluationsPage) -> Markup {
    let all = page.query.state.is_none();
    html! {
        @if let Some(run) = &page.query.run {
            p.path {
                a href=(visitor.link("/")) { "Runs" } " / " a href=(visitor.link(&format!("/runs/{run}"))) { (run) } " /"
            }
        }
        h1 { "Evaluations" }
        @if !page.counts.is_empty() {
            dl.tiles {
                @for state in STATES {
                    @if let Some(n) = page.counts.get(state) {
                        (tile(evaluation_word(*state).1, &html! { a href=(visitor.link(&page.of(Some(*state)))) { (count(*n)) } }))
                    }
                }
            }
        }
        @if page.counts.is_empty() { (none()) }
        @else if !all { p { a href=(visitor.link(&page.of(None))) { "All evaluations" } } }
        @for list in &page.lists { (section(visitor, page, list)) }
    }
}

fn none() -> Markup {
    empty(
        "Nothing has been evaluated.",
        &html! {
            p { "Bind a suite of lm-eval tasks to runs, and every step of theirs is evaluated by itself:" }
            (command("fineline suite apply suite.yaml --run 'NAMESPACE/*'"))
        },
    )
}

fn section(visitor: &Visitor, page: &EvaluationsPage, list: &List) -> Markup {
    let (_, word) = evaluation_word(list.state);
    let id = list.state.as_str();
    let title = format!("{}{}", word[..1].to_uppercase(), &word[1..]);
    html! {
        section aria-labelledby=(id) {
            h2 id=(id) { (title) }
            @if list.items.is_empty() {
                p { "None is " (word) "." }
            } @else {
                (wide(&title, &table(visitor, &list.items, page.may_write)))
            }
            @if list.next.is_some() && page.query.state.is_none() {
                p.pager { a href=(visitor.link(&page.of(Some(list.state)))) { "All that are " (word) } }
            } @else if let Some(next) = &list.next {
                @let query = EvaluationsQuery { after: Some(next.clone()), ..page.query.clone() };
                p.pager { a href=(visitor.link(&query.link())) { "Further ones" } }
            }
        }
    }
}

/// Evaluations, a row each, with what is to be said of it.
pub(super) fn table(visitor: &Visitor, items: &[Evaluation], may_write: bool) -> Markup {
    let has_actions = may_write && items.iter().any(|item| item.state != EvaluationState::Done);
    html! {
        table.evaluations {
            thead {
                tr {
                    th scope="col" { "state" }
                    th scope="col" { "evaluation" }
                    th scope="col" { "worker" }
                    th scope="col" { "since (UTC)" }
                    @if has_actions { th scope="col" { "action" } }
                }
            }
            tbody { @for item in items { (row(visitor, item, has_actions)) } }
        }
    }
}

fn row(visitor: &Visitor, item: &Evaluation, has_actions: bool) -> Markup {
    let since = item.finished_at.or(item.started_at).unwrap_or(item.created_at);
    let lasted = item
        .started_at
        .zip(item.finished_at)
        .filter(|_| item.state == EvaluationState::Done);
    html! {
        tr {
            td { a href=(visitor.link(&format!("/evaluations/{}", item.id))) { (evaluation_state(item.state)) } }
            th.why scope="row" {
                (of(visitor, item)) " " small { (item.suite) ", " (item.dtype) }
                div { (what(item)) }
            }
            td.worker { (item.worker.as_deref().unwrap_or_default()) }
            td.time { (time(since)) @if let Some((from, to)) = lasted { " " small { "took " (took(from, to)) } } }
            @if has_actions { td { (act(visitor, item)) } }
        }
    }
}

/// The step that it is about, with a link while there is one.
pub(super) fn of(visitor: &Visitor, item: &Evaluation) -> Markup {
    let run = visitor.link(&format!("/runs/{}", item.run));
    html! {
        a href=(run) { (item.run) } " @ "
        @if item.deleted { (count(item.step)) " (deleted)" }
        @else { a href=(format!("{run}/checkpoints/{}", item.step)) { (count(item.step)) } }
    }
}

/// How far it is, or why it is not.
pub(super) fn what(item: &Evaluation) -> Markup {
    html! {
        @if item.state == EvaluationState::Leased {
            @match &item.progress {
                Some(progress) if progress.ahead => small { "held by a worker that ends another evaluation first" },
                Some(progress) => {
                    @let label = format!("{} of {} requests", count(progress.n_done), count(progress.n_total));
                    progress value=(progress.n_done) max=(progress.n_total.max(1)) aria-label=(label) {}
                    " " small {
                        (label)
                        @if let Some(task) = &progress.task { ", at " (task) }
                        @if let Some(rate) = progress.tokens_per_s { ", " (count(rate as u64)) " tokens/s" }
                        @if let Some(left) = progress.eta_s { ", " (count(left)) " s left" }
                    }
                }
                None => small { "the worker has said nothing yet" },
            }
        } @else if let Some(reason) = &item.reason {
            (prose(reason))
        }
        @if item.n_failures + item.n_expiries > 0 {
            br; small { "tries that failed: " (item.n_failures) ", that fell silent: " (item.n_expiries) }
        }
    }
}

/// What can be done about it.
pub(super) fn act(visitor: &Visitor, item: &Evaluation) -> Markup {
    let form = |path: &str, name: &str, csrf: &Csrf| {
        html! {
            form method="post" action=(visitor.link(path)) {
                (csrf.field())
                input type="hidden" name="id" value=(item.id);
                button type="submit" aria-label=(format!("{name} {} on {} step {}", item.suite, item.run, item.step)) { (name) }
            }
        }
    };
    html! {
        @if let Some(csrf) = &visitor.csrf() {
            @match item.state {
                EvaluationState::Failed | EvaluationState::Parked | EvaluationState::Cancelled =>
                    (form("/evaluations/retry", "Retry", csrf)),
                EvaluationState::Queued | EvaluationState::Leased => (form("/evaluations/cancel", "Cancel", csrf)),
                EvaluationState::Done => {}
            }
        }
    }
}
