//! The whole router: the API with its OpenAPI document, health, metrics and pages.

use axum::Router;
use axum::routing::get;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use crate::app::App;
use crate::{middleware, routes, web};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Fineline",
        description = "A content-addressed registry for LLM pretraining checkpoints and their scores by step.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    modifiers(&BearerToken)
)]
struct Document;

struct BearerToken;

impl utoipa::Modify for BearerToken {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
        let scheme = SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build());
        openapi
            .components
            .get_or_insert_default()
            .add_security_scheme("token", scheme);
        openapi.security = Some(vec![SecurityRequirement::new("token", Vec::<String>::new())]);
    }
}

fn api() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(Document::openapi()).nest("/api/v1", routes::router())
}

/// The OpenAPI document of the API, as the router itself has it.
pub fn openapi() -> utoipa::openapi::OpenApi {
    api().into_openapi()
}

/// The router with everything in it.
pub(crate) fn router(app: App) -> Router {
    let (api, mut document) = api().split_for_parts();
    document.servers = app
        .options
        .public_url
        .as_ref()
        .map(|url| vec![utoipa::openapi::Server::new(url.to_string())]);
    let pages = web::router(&app, &document);
    let document = axum::Json(document);
    let router = api
        .route("/openapi.json", get(move || std::future::ready(document.clone())))
        .merge(routes::operator::router())
        .merge(pages);
    middleware::around(router, &app).with_state(app)
}
