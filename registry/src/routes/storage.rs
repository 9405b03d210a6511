//! `/storage`

use axum::extract::State;
use fineline_api::{CollectGarbage, ErrorBody, GarbageReport, Scope};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::auth::Caller;
use crate::error::ApiResult;
use crate::extract::Json;
use crate::service;

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(collect_garbage))
}

/// Collects garbage now: condemns what nothing needs, deletes what was condemned a grace ago. Scope `admin`, for all runs.
#[utoipa::path(post, path = "/storage/gc", tag = "storage", operation_id = "collect_garbage",
    request_body = CollectGarbage,
    responses((status = 200, body = GarbageReport), (status = "default", body = ErrorBody)))]
async fn collect_garbage(
    State(app): State<App>,
    caller: Caller,
    Json(asked): Json<CollectGarbage>,
) -> ApiResult<Json<GarbageReport>> {
    caller.require_whole(Scope::Admin)?;
    Ok(Json(service::collect::collect(&app, asked.dry_run).await?))
}
