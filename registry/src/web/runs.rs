//! `/`: the runs that the visitor may read.

use axum::extract::State;
use axum::response::Response;
use fineline_api::path::segment;
use fineline_api::{Page as ApiPage, Run, RunPattern};
use maud::{Markup, html};
use serde::Deserialize;

use super::layout::{self, Page, Section};
use super::part::{brief, command, count, empty, time, wide};
use super::visitor::{Reader, Visitor};
use crate::app::App;
use crate::error::ApiError;
use crate::extract::Query;
use crate::service;

/// Runs of a page.
const A_PAGE: u64 = 100;

/// `?pattern=&after=`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RunsQuery {
    /// Only those that it matches.
    pattern: Option<RunPattern>,
    /// The last run of the page before.
    after: Option<String>,
}

pub(super) async fn show(
    State(app): State<App>,
    reader: Reader,
    query: Result<Query<RunsQuery>, ApiError>,
) -> Response {
    let visitor = &reader.visitor;
    let found = async {
        let query = query?.0;
        let pattern = query.pattern.clone().unwrap_or(RunPattern::All);
        let page = service::run::list(&app, &reader.caller, &pattern, query.after.as_deref(), A_PAGE).await?;
        Ok((query, page))
    };
    match found.await {
        Ok((query, page)) => Page::new(visitor, "Runs")
            .section(Section::Runs)
            .show(&body(visitor, &query, &page)),
        Err(error) => layout::refused(visitor, &error),
    }
}

fn body(visitor: &Visitor, query: &RunsQuery, page: &ApiPage<Run>) -> Markup {
    let pattern = query.pattern.as_ref().filter(|pattern| **pattern != RunPattern::All);
    html! {
        @if pattern.is_some() { p.path { a href=(visitor.link("/")) { "Runs" } " /" } }
        h1 { @if let Some(pattern) = pattern { (pattern) } @else { "Runs" } }
        @if !page.items.is_empty() {
            (wide("Runs", &table(visitor, &page.items)))
        } @else if pattern.is_some() || query.after.is_some() {
            (empty("No run that you may read is here.", &html! { p { a href=(visitor.link("/")) { "Show all runs" } } }))
        } @else {
            (first(visitor))
        }
        @if let Some(next) = &page.next_cursor {
            @let pattern = pattern.map_or_else(String::new, |pattern| format!("pattern={}&", segment(pattern)));
            p.pager { a href=(visitor.link(&format!("/?{pattern}after={}", segment(next)))) { "Further runs" } }
        }
    }
}

fn first(visitor: &Visitor) -> Markup {
    let commands = format!(
        "fineline login --url {}\nfineline run create NAMESPACE/NAME\nfineline push NAMESPACE/NAME STEP FOLDER",
        visitor.base_url
    );
    empty(
        "There is no run that you may read.",
        &html! { p { "The first one:" } (command(&commands)) },
    )
}

fn table(visitor: &Visitor, runs: &[Run]) -> Markup {
    html! {
        table.runs {
            thead {
                tr {
                    th scope="col" { "run" }
                    th.number scope="col" { "checkpoints" }
                    th.number scope="col" { "newest step" }
                    th.number scope="col" { "parameters" }
                    th scope="col" { "created (UTC)" }
                }
            }
            tbody {
                @for run in runs {
                    tr {
                        th.name scope="row" {
                            a href=(visitor.link(&format!("/runs/{}", run.run))) { (run.run) }
                            @if let Some(text) = &run.attributes.description { br; small { (text) } }
                        }
                        td.number { (count(run.n_checkpoints)) }
                        td.number { (run.latest_step.map_or_else(String::new, count)) }
                        td.number { (run.attributes.n_parameters.map_or_else(String::new, |n| brief(n as f64))) }
                        td.time { (time(run.created_at)) }
                    }
                }
            }
        }
    }
}
