//! `/runs/{namespace}/{name}/checkpoints/{reference}`: what a checkpoint is, what was measured of it, its evaluations, files
//! and tensors.

use axum::extract::State;
use axum::response::Response;
use fineline_api::{Checkpoint, CheckpointFile, Evaluation, Reference, RunName, Scope, Score, Tensor};
use maud::{Markup, html};
use serde::Deserialize;

use super::evaluations;
use super::layout::{self, Page, Section};
use super::part::{brief, bytes, command, count, digest, name, number, tile, time, wide};
use super::steps::{notes, state};
use super::visitor::{Reader, Visitor};
use crate::app::App;
use crate::auth::Caller;
use crate::db::evaluation::EvaluationFilter;
use crate::db::score::ScoreFilter;
use crate::error::{ApiError, ApiResult};
use crate::extract::{Path, Query, run_name};
use crate::service;

/// Files and tensors of a page, each.
const A_PAGE: usize = 500;

/// Evaluations of a checkpoint that are shown; the rest are behind a link.
const MAX_EVALUATIONS: u64 = 50;

#[derive(Debug, Deserialize)]
pub(super) struct CheckpointPath {
    namespace: String,
    name: String,
    reference: String,
}

/// `?files=&tensors=`: pages of these lists, from 1 on.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CheckpointQuery {
    #[serde(default = "first")]
    files: usize,
    #[serde(default = "first")]
    tensors: usize,
}

fn first() -> usize {
    1
}

/// What the page shows.
struct CheckpointPage {
    path: String,
    checkpoint: Checkpoint,
    scores: Vec<Score>,
    evaluations: Vec<Evaluation>,
    files: Vec<CheckpointFile>,
    tensors: Vec<Tensor>,
    query: CheckpointQuery,
    may_write: bool,
}

pub(super) async fn show(
    State(app): State<App>,
    reader: Reader,
    path: Result<Path<CheckpointPath>, ApiError>,
    query: Result<Query<CheckpointQuery>, ApiError>,
) -> Response {
    let visitor = &reader.visitor;
    let found = async {
        let path = path?.0;
        let run = run_name(&path.namespace, &path.name)?;
        read(&app, &reader.caller, &run, &path.reference, query?.0).await
    };
    match found.await {
        Ok(page) => {
            let title = format!("{} step {}", page.checkpoint.run, page.checkpoint.step);
            Page::new(visitor, &title)
                .section(Section::Runs)
                .show(&body(visitor, &page))
        }
        Err(error) => layout::refused(visitor, &error),
    }
}

async fn read(
    app: &App,
    caller: &Caller,
    name: &RunName,
    reference: &str,
    query: CheckpointQuery,
) -> ApiResult<CheckpointPage> {
    let run = caller.run(app, name, Scope::Read).await?;
    caller.require(Scope::Read)?;
    // What breaks the grammar can't exist.
    let unknown = |_| ApiError::not_found(format!("checkpoint `{reference}` in run `{name}`"));
    let parsed: Reference = reference.parse().map_err(unknown)?;
    let revision = service::checkpoint::resolve(app, caller, &run, &parsed).await?;
    let files = service::checkpoint::files(app, &revision, false).await?;
    let tensors = service::checkpoint::tensors(app, &revision).await?;
    let of_revision = EvaluationFilter {
        run_id: Some(run.id),
        revision_id: Some(revision.id),
        newest_first: true,
        ..EvaluationFilter::default()
    };
    let evaluations = service::evaluation::list(app, caller, &of_revision, None, MAX_EVALUATIONS).await?;
    let of_step = ScoreFilter {
        step_min: Some(revision.step),
        step_max: Some(revision.step),
        all_revisions: true,
        ..ScoreFilter::default()
    };
    let mut scores = service::score::list(app, &run, &of_step).await?;
    scores.retain(|score| Some(score.checkpoint) == revision.checkpoint);
    let mut described = service::checkpoint::describe(app, &run, vec![revision]).await?;
    let checkpoint = described
        .pop()
        .ok_or_else(|| ApiError::internal("a checkpoint has no description"))?;
    Ok(CheckpointPage {
        path: format!("/runs/{name}/checkpoints/{}", fineline_api::path::segment(&parsed)),
        checkpoint,
        scores,
        evaluations: evaluations.items,
        files,
        tensors,
        query,
        may_write: caller.has(Scope::Write),
    })
}

fn body(visitor: &Visitor, page: &CheckpointPage) -> Markup {
    let checkpoint = &page.checkpoint;
    let run = &checkpoint.run;
    let reference = checkpoint.digest.filter(|_| !checkpoint.current);
    let reference = reference.map_or_else(|| checkpoint.step.to_string(), |digest| digest.to_string());
    html! {
        p.path {
            a href=(visitor.link("/")) { "Runs" } " / " a href=(visitor.link(&format!("/runs/{run}"))) { (run) } " /"
        }
        h1 {
            "Step " (count(checkpoint.step)) " " (state(checkpoint))
            @if !checkpoint.current { " " span.badge.quiet { "replaced" } }
            @for tag in &checkpoint.tags { " " span.tag { (tag) } }
        }
        @for note in notes(checkpoint) { p.notice { (note) } }
        (tiles(page))
        (facts(checkpoint))
        (command(&format!("fineline pull {run}@{reference} FOLDER --url {}", visitor.base_url)))
        section aria-labelledby="scores" {
            div.head {
                h2 #scores { "Scores" }
                @if checkpoint.current && !page.scores.is_empty() {
                    @let link = format!("/runs/{run}/scores.csv?from={0}&to={0}", checkpoint.step);
                    a.button href=(visitor.link(&link)) { "Scores as CSV" }
                }
            }
            @if page.scores.is_empty() { p { "Nothing was measured of this checkpoint." } }
            @else { (wide("Scores", &scores(&page.scores))) }
        }
        @if !page.evaluations.is_empty() {
            section aria-labelledby="evaluations" {
                h2 #evaluations { "Evaluations" }
                (wide("Evaluations", &evaluations::table(visitor, &page.evaluations, page.may_write)))
            }
        }
        section aria-labelledby="files" {
            h2 #files { "Files" }
            (files(visitor, page))
        }
        section aria-labelledby="tensors" {
            h2 #tensors { "Tensors" }
            @if page.tensors.is_empty() { p { "No weights were found among its files." } }
            @else { (tensors(visitor, page)) }
        }
    }
}

fn tiles(page: &CheckpointPage) -> Markup {
    let checkpoint = &page.checkpoint;
    let n_values: u64 = page
        .tensors
        .iter()
        .map(|tensor| n_values(&tensor.shape))
        .fold(0, u64::saturating_add);
    html! {
        dl.tiles {
            @if let Some(tokens) = checkpoint.tokens { (tile("tokens", &html! { (brief(tokens as f64)) })) }
            @if let Some(loss) = checkpoint.loss { (tile("loss", &html! { (number(loss)) })) }
            @if !page.tensors.is_empty() { (tile("parameters", &html! { (count(n_values)) })) }
            (tile("files", &html! { (count(checkpoint.n_files)) }))
            (tile("size", &html! { (bytes(checkpoint.size_bytes)) }))
        }
    }
}

fn facts(checkpoint: &Checkpoint) -> Markup {
    let digests = [
        ("checkpoint", checkpoint.digest),
        ("weights", checkpoint.weights_digest),
        ("model", checkpoint.model_digest),
    ];
    html! {
        dl.facts {
            @for (name, of) in digests { @if let Some(of) = &of { div { dt { (name) } dd { (digest(of)) } } } }
            @if let Some(architecture) = &checkpoint.architecture { div { dt { "architecture" } dd { (architecture) } } }
            @if let Some(label) = &checkpoint.label { div { dt { "pushed as" } dd { (label) } } }
            @for (name, value) in &checkpoint.metadata { div { dt { (name) } dd { (value) } } }
            div { dt { "pushed (UTC)" } dd { (time(checkpoint.created_at)) } }
            @if let Some(at) = checkpoint.ready_at { div { dt { "verified (UTC)" } dd { (time(at)) } } }
        }
    }
}

fn scores(scores: &[Score]) -> Markup {
    html! {
        table {
            thead {
                tr {
                    th scope="col" { "task and metric" }
                    th.number scope="col" { "value" }
                    th.number scope="col" { "samples" }
                    th.number scope="col" { "shots" }
                    th scope="col" { "dtype" }
                    th scope="col" { "measured by" }
                }
            }
            tbody {
                @for score in scores {
                    tr {
                        th.name scope="row" {
                            (name(&score.task)) " " small { (name(&score.metric)) @if score.filter != "none" { ", " (score.filter) } }
                        }
                        td.number {
                            data value=(score.value) { (number(score.value)) }
                            @if let Some(stderr) = score.stderr { small { " ± " (number(stderr)) } }
                        }
                        td.number { (count(score.n)) @if let Some(limit) = score.limit { small { " (limit " (count(limit)) ")" } } }
                        td.number { (score.n_shot) }
                        td { (score.dtype.as_deref().unwrap_or_default()) }
                        td {
                            (score.harness) " " (score.harness_version.as_deref().unwrap_or_default())
                            @if let Some(step) = score.evaluated_step { small { " at step " (count(step)) } }
                        }
                    }
                }
            }
        }
    }
}

fn files(visitor: &Visitor, page: &CheckpointPage) -> Markup {
    let table = html! {
        table {
            thead { tr { th scope="col" { "path" } th.number scope="col" { "size" } th scope="col" { "SHA-256" } } }
            tbody {
                @for file in on_page(&page.files, page.query.files) {
                    tr {
                        th.name scope="row" { (file.path) }
                        td.number title=(format!("{} bytes", count(file.size_bytes))) { (bytes(file.size_bytes)) }
                        td { (digest(&file.digest)) }
                    }
                }
            }
        }
    };
    let link = |n| format!("{}?files={n}&tensors={}#files", page.path, page.query.tensors);
    html! { (wide("Files", &table)) (pages(visitor, page.files.len(), page.query.files, link)) }
}

fn tensors(visitor: &Visitor, page: &CheckpointPage) -> Markup {
    let table = html! {
        table {
            thead {
                tr {
                    th scope="col" { "name" }
                    th scope="col" { "dtype" }
                    th.number scope="col" { "shape" }
                    th.number scope="col" { "values" }
                    th scope="col" { "digest" }
                    th scope="col" { "file" }
                }
            }
            tbody {
                @for tensor in on_page(&page.tensors, page.query.tensors) {
                    tr {
                        th.name scope="row" { (tensor.name) }
                        td { (tensor.dtype) }
                        td.number { (tensor.shape.iter().map(u64::to_string).collect::<Vec<_>>().join(" × ")) }
                        td.number { (count(n_values(&tensor.shape))) }
                        td { (digest(&tensor.digest)) }
                        td { (tensor.path) }
                    }
                }
            }
        }
    };
    let link = |n| format!("{}?files={}&tensors={n}#tensors", page.path, page.query.files);
    html! { (wide("Tensors", &table)) (pages(visitor, page.tensors.len(), page.query.tensors, link)) }
}

fn n_values(shape: &[u64]) -> u64 {
    shape.iter().fold(1, |n, size| n.saturating_mul(*size))
}

fn on_page<T>(items: &[T], page: usize) -> &[T] {
    let from = page.saturating_sub(1).saturating_mul(A_PAGE).min(items.len());
    &items[from..(from + A_PAGE).min(items.len())]
}

/// The ways to the pages of a list that has more than one.
fn pages(visitor: &Visitor, n_items: usize, at: usize, link: impl Fn(usize) -> String) -> Markup {
    let n_pages = n_items.div_ceil(A_PAGE);
    html! {
        @if n_pages > 1 {
            p.pager {
                (count(n_items as u64)) " in all. "
                @if at > 1 { a href=(visitor.link(&link(at - 1))) { "Those before" } " " }
                "page " (at) " of " (n_pages) " "
                @if at < n_pages { a href=(visitor.link(&link(at + 1))) { "Those behind" } }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_beyond_the_end_is_empty_and_none_is_lost() {
        let items: Vec<usize> = (0..1001).collect();
        assert_eq!(on_page(&items, 1), &items[..500]);
        assert_eq!(on_page(&items, 3), &items[1000..]);
        assert_eq!(on_page(&items, 4), &[] as &[usize]);
        assert_eq!(on_page(&items, usize::MAX), &[] as &[usize]);
        assert_eq!(on_page(&items, 0), &items[..500]);
    }
}
