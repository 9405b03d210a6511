//! `/`: the runs that the visitor may read.

use axum::extract::State;
use axum::response::Response;
use fineline_api::{Page as ApiPage, Run, RunPattern};
use maud::{Markup, html};

use super::MAX_ROWS;
use super::layout::{self, Page};
use super::visitor::{Reader, Visitor};
use crate::app::App;
use crate::service;

pub(super) async fn show(State(app): State<App>, reader: Reader) -> Response {
    let visitor = &reader.visitor;
    match service::run::list(&app, &reader.caller, &RunPattern::All, None, MAX_ROWS).await {
        Ok(page) => Page::new(visitor, "Runs").show(&body(visitor, &page)),
        Err(error) => layout::refused(visitor, &error),
    }
}

fn body(visitor: &Visitor, page: &ApiPage<Run>) -> Markup {
    html! {
        h1 { "Runs" }
        @if page.items.is_empty() {
            p { "There is no run that you may read. The first one:" }
            pre { "fineline login --url " (visitor.base_url) "\nfineline run create NAMESPACE/NAME\nfineline push NAMESPACE/NAME STEP FOLDER" }
        } @else {
            div.wide { (table(visitor, &page.items)) }
        }
        @if page.next_cursor.is_some() {
            p { "These are the first " (MAX_ROWS) "; " code { "fineline run list" } " lists them all." }
        }
    }
}

fn table(visitor: &Visitor, runs: &[Run]) -> Markup {
    html! {
        table {
            thead { tr { th { "run" } th.number { "checkpoints" } th.number { "newest step" } th { "created (UTC)" } } }
            tbody {
                @for run in runs {
                    tr {
                        td { a href=(visitor.link(&format!("/runs/{}", run.run))) { (run.run) } }
                        td.number { (run.n_checkpoints) }
                        td.number { (run.latest_step.map_or_else(String::new, |step| step.to_string())) }
                        td.time { (run.created_at.format("%Y-%m-%d %H:%M")) }
                    }
                }
            }
        }
    }
}
