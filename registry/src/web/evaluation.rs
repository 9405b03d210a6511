//! `/evaluations/{id}`: one evaluation with its scores so far, and the forms that try it again or take it back.

use std::collections::BTreeMap;

use axum::Form;
use axum::extract::State;
use axum::extract::rejection::FormRejection;
use axum::response::{IntoResponse, Redirect, Response};
use fineline_api::{Evaluation, EvaluationState, Scope, TaskScore};
use maud::{Markup, html};
use serde::Deserialize;
use uuid::Uuid;

use super::evaluations::{act, of, what};
use super::layout::{self, Page, Refresh, Section};
use super::part::{count, digest, evaluation_state, name, number, time, wide};
use super::run::Parts;
use super::visitor::{Reader, Visitor};
use crate::app::App;
use crate::auth::Caller;
use crate::error::{ApiError, ApiResult};
use crate::extract::{Path, Query};
use crate::service;

/// The form that names an evaluation.
#[derive(Debug, Deserialize)]
pub(super) struct Named {
    id: Uuid,
}

/// `?refresh=`
fn refreshes(parts: Parts) -> ApiResult<bool> {
    let Query(parts) = parts?;
    match parts.as_slice() {
        [] => Ok(true),
        [(name, value)] if name == "refresh" && value == "off" => Ok(false),
        [(name, _), ..] => {
            let message = format!("parameter `{name}` in the address is none of this page, or has another value");
            Err(ApiError::invalid(message).hint("it takes `refresh=off`"))
        }
    }
}

pub(super) async fn show(
    State(app): State<App>,
    reader: Reader,
    id: Result<Path<Uuid>, ApiError>,
    parts: Parts,
) -> Response {
    let (visitor, caller) = (&reader.visitor, &reader.caller);
    let found = async {
        let (Path(id), refreshes) = (id?, refreshes(parts)?);
        caller.require(Scope::Read)?;
        let scores = service::evaluation::scores(&app, caller, id).await?;
        Ok((service::evaluation::get(&app, caller, id).await?, scores, refreshes))
    };
    match found.await {
        Ok((item, scores, refreshes)) => {
            let title = format!("{} on {} step {}", item.suite, item.run, item.step);
            Page::new(visitor, &title)
                .section(Section::Evaluations)
                .refresh(refresh(&item, refreshes))
                .show(&body(visitor, caller, &item, &scores))
        }
        Err(error) => layout::refused(visitor, &error),
    }
}

fn refresh(item: &Evaluation, refreshes: bool) -> Option<Refresh> {
    let path = format!("/evaluations/{}", item.id);
    let is_open = [EvaluationState::Queued, EvaluationState::Leased].contains(&item.state);
    let other = if refreshes { format!("{path}?refresh=off") } else { path };
    is_open.then(|| Refresh::new(refreshes, other))
}

pub(super) async fn retry(
    State(app): State<App>,
    reader: Reader,
    form: Result<Form<Named>, FormRejection>,
) -> Response {
    let done = async { service::evaluation::retry(&app, &reader.caller, named(form)?).await };
    back(&reader.visitor, done.await)
}

pub(super) async fn cancel(
    State(app): State<App>,
    reader: Reader,
    form: Result<Form<Named>, FormRejection>,
) -> Response {
    let done = async { service::evaluation::cancel(&app, &reader.caller, named(form)?).await };
    back(&reader.visitor, done.await)
}

fn named(form: Result<Form<Named>, FormRejection>) -> ApiResult<Uuid> {
    let Form(named) = form.map_err(|_| ApiError::invalid("the form names no evaluation"))?;
    Ok(named.id)
}

/// To the evaluation, as it stands now.
fn back(visitor: &Visitor, done: ApiResult<Evaluation>) -> Response {
    match done {
        Ok(item) => Redirect::to(&visitor.link(&format!("/evaluations/{}", item.id))).into_response(),
        Err(error) => layout::refused(visitor, &error),
    }
}

fn body(visitor: &Visitor, caller: &Caller, item: &Evaluation, scores: &BTreeMap<String, Vec<TaskScore>>) -> Markup {
    let moments = [
        ("queued (UTC)", Some(item.created_at)),
        ("taken (UTC)", item.started_at),
        ("ended (UTC)", item.finished_at),
    ];
    html! {
        p.path {
            a href=(visitor.link("/evaluations")) { "Evaluations" } " / "
            a href=(visitor.link(&format!("/evaluations?run={}", item.run))) { (item.run) } " /"
        }
        h1 { (item.suite) " " span.of { "on " (of(visitor, item)) } }
        div.status {
            (evaluation_state(item.state))
            div.why { (what(item)) }
            @if caller.has(Scope::Write) { (act(visitor, item)) }
        }
        dl.facts {
            @if let Some(worker) = &item.worker { div { dt { "worker" } dd { (worker) } } }
            div { dt { "dtype" } dd { (item.dtype) } }
            @if let Some(architecture) = &item.architecture { div { dt { "architecture" } dd { (architecture) } } }
            @for (name, at) in moments { @if let Some(at) = at { div { dt { (name) } dd { (time(at)) } } } }
            div { dt { "checkpoint" } dd { (digest(&item.checkpoint)) } }
            div { dt { "model" } dd { (digest(&item.model_digest)) } }
            div { dt { "suite" } dd { (digest(&item.suite_digest)) } }
        }
        section aria-labelledby="scores" {
            h2 #scores { "Scores" }
            @if scores.is_empty() { p { "No task is scored yet." } }
            @else { (wide("Scores by task", &table(scores))) }
        }
    }
}

/// How many documents there were, where not all were asked.
fn left_out_of(score: &TaskScore) -> Option<u64> {
    let all = score.provenance.get("n_documents")?.parse().ok()?;
    (score.n < all).then_some(all)
}

fn table(scores: &BTreeMap<String, Vec<TaskScore>>) -> Markup {
    html! {
        table {
            thead {
                tr {
                    th scope="col" { "task and metric" }
                    th.number scope="col" { "value" }
                    th.number scope="col" { "samples" }
                    th.number scope="col" { "shots" }
                    th scope="col" { "standard error by" }
                }
            }
            tbody {
                @for (task, score) in scores.iter().flat_map(|(task, scores)| scores.iter().map(move |score| (task, score))) {
                    tr {
                        th.name scope="row" {
                            (name(task)) " " small { (name(&score.metric)) @if score.filter != "none" { ", " (score.filter) } }
                        }
                        td.number {
                            data value=(score.value) { (number(score.value)) }
                            @if let Some(stderr) = score.stderr { small { " ± " (number(stderr)) } }
                        }
                        td.number { (count(score.n)) @if let Some(all) = left_out_of(score) { small { " of " (count(all)) } } }
                        td.number { (score.n_shot) }
                        td { small { (score.stderr_method.as_deref().unwrap_or_default()) } }
                    }
                }
            }
        }
    }
}
