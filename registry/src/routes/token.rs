//! `/tokens`

use axum::extract::State;
use axum::http::StatusCode;
use fineline_api::{CreateToken, CreatedToken, ErrorBody, Scope, Token};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::app::App;
use crate::auth::Caller;
use crate::error::ApiResult;
use crate::extract::{Json, Path};
use crate::service;

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(create_token, list_tokens))
        .routes(routes!(delete_token))
}

/// Makes a token; the answer holds its secret, once. Scope `admin`.
#[utoipa::path(post, path = "/tokens", tag = "tokens", operation_id = "create_token", request_body = CreateToken,
    responses((status = 201, body = CreatedToken), (status = "default", body = ErrorBody)))]
async fn create_token(
    State(app): State<App>,
    caller: Caller,
    Json(new): Json<CreateToken>,
) -> ApiResult<(StatusCode, Json<CreatedToken>)> {
    caller.require(Scope::Admin)?;
    service::token::require_pattern(&caller.pattern, &new.pattern)?;
    Ok((StatusCode::CREATED, Json(service::token::create(&app.db, new).await?)))
}

/// The tokens for runs that this one is for, without their secrets. Scope `admin`.
#[utoipa::path(get, path = "/tokens", tag = "tokens", operation_id = "list_tokens",
    responses((status = 200, body = Vec<Token>), (status = "default", body = ErrorBody)))]
async fn list_tokens(State(app): State<App>, caller: Caller) -> ApiResult<Json<Vec<Token>>> {
    caller.require(Scope::Admin)?;
    Ok(Json(service::token::list(&app, &caller.pattern).await?))
}

/// Revokes a token. Scope `admin`.
#[utoipa::path(delete, path = "/tokens/{id}", tag = "tokens", operation_id = "delete_token",
    params(("id" = Uuid, Path)), responses((status = 204), (status = "default", body = ErrorBody)))]
async fn delete_token(State(app): State<App>, caller: Caller, Path(id): Path<Uuid>) -> ApiResult<StatusCode> {
    caller.require(Scope::Admin)?;
    service::token::revoke(&app.db, &caller.pattern, id).await?;
    Ok(StatusCode::NO_CONTENT)
}
