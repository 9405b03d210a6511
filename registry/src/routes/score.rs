//! `/runs/{namespace}/{name}/scores`

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use fineline_api::{ErrorBody, Page, PostScores, Scope, Score};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::page::limit;
use crate::app::App;
use crate::auth::Caller;
use crate::db::score::ScoreFilter;
use crate::error::{ApiError, ApiResult};
use crate::extract::{Json, Path, Query, RunPath};
use crate::service;

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list_scores, post_scores))
}

/// `?step_min=&step_max=&task=&metric=&harness=&all_revisions=&format=&cursor=&limit=`
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct ScoresQuery {
    /// The first step.
    step_min: Option<u64>,
    /// The last step.
    step_max: Option<u64>,
    /// One task.
    task: Option<String>,
    /// One metric.
    metric: Option<String>,
    /// One harness.
    harness: Option<String>,
    /// Whether the scores of replaced revisions are listed too.
    #[serde(default)]
    all_revisions: bool,
    /// `json` (paged; when absent) or `csv` (whole).
    format: Option<String>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// Items of a page, at most 1,000; 100 when absent.
    limit: Option<u64>,
}

/// A run's scores by step, task and metric, as JSON or CSV. Scope `read`.
#[utoipa::path(get, path = "/runs/{namespace}/{name}/scores", tag = "scores", operation_id = "list_scores",
    params(("namespace" = String, Path), ("name" = String, Path), ScoresQuery),
    responses((status = 200, body = Page<Score>), (status = "default", body = ErrorBody)))]
async fn list_scores(
    State(app): State<App>,
    caller: Caller,
    Path(path): Path<RunPath>,
    Query(query): Query<ScoresQuery>,
) -> ApiResult<Response> {
    let run = caller.run(&app, &path.run()?, Scope::Read).await?;
    service::checkpoint::require_reader(&caller)?;
    let filter = ScoreFilter {
        step_min: query.step_min,
        step_max: query.step_max,
        task: query.task,
        metric: query.metric,
        harness: query.harness,
        all_revisions: query.all_revisions,
    };
    match query.format.as_deref() {
        None | Some("json") => {
            let page = service::score::page(&app, &run, &filter, query.cursor.as_deref(), limit(query.limit)).await?;
            Ok(Json(page).into_response())
        }
        Some("csv") => {
            let csv = service::score::csv(&service::score::list(&app, &run, &filter).await?)?;
            Ok(([(header::CONTENT_TYPE, "text/csv; charset=utf-8")], csv).into_response())
        }
        Some(other) => Err(ApiError::invalid(format!(
            "format `{other}` is none: ask for `json` or `csv`"
        ))),
    }
}

/// Takes in scores that were measured elsewhere, under their harness's name. Scope `write`.
#[utoipa::path(post, path = "/runs/{namespace}/{name}/scores", tag = "scores", operation_id = "post_scores",
    params(("namespace" = String, Path), ("name" = String, Path)), request_body = PostScores,
    responses((status = 201, body = Object), (status = "default", body = ErrorBody)))]
async fn post_scores(
    State(app): State<App>,
    caller: Caller,
    Path(path): Path<RunPath>,
    Json(new): Json<PostScores>,
) -> ApiResult<(StatusCode, Json<Value>)> {
    let run = caller.run(&app, &path.run()?, Scope::Write).await?;
    let n = service::score::post(&app, &caller, &run, &new).await?;
    Ok((StatusCode::CREATED, Json(json!({ "n": n }))))
}
