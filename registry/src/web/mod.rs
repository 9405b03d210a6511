//! The pages: logging in, runs with their curves and steps, checkpoints, evaluations, and the API's documentation.
//!
//! `visitor` says who looks, `csrf` guards every form, `layout` and `part` are what pages share; `view`, `controls`,
//! `curve`, `chart` and `steps` belong to a run's page; the rest is a page a file.
//!
//! **Invariant:** everything that comes from outside is escaped by construction (maud), no page loads anything from
//! elsewhere or runs a script, and nothing here changes anything but by a form that came through [`csrf::guard`].

mod chart;
mod checkpoint;
mod controls;
mod csrf;
mod curve;
mod docs;
mod evaluation;
mod evaluations;
mod layout;
mod login;
mod part;
mod run;
mod runs;
mod steps;
mod view;
mod visitor;

use std::sync::Arc;

use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::middleware::from_fn_with_state;
use axum::routing::{MethodRouter, get, post};
use axum::{Extension, Router};

use crate::app::App;

/// Rows of a page; a longer list ends with a way to the rest.
const MAX_ROWS: u64 = 1000;

const STYLE: &str = include_str!("style.css");
const ICON: &str = include_str!("icon.svg");

/// A path and what answers there.
type Route = (&'static str, fn() -> MethodRouter<App>);

/// What is only looked at.
const PAGES: &[Route] = &[
    ("/", || get(runs::show)),
    ("/login", || get(login::show)),
    ("/runs/{namespace}/{name}", || get(run::show)),
    ("/runs/{namespace}/{name}/scores.csv", || get(run::csv)),
    ("/runs/{namespace}/{name}/checkpoints/{reference}", || {
        get(checkpoint::show)
    }),
    ("/evaluations", || get(evaluations::show)),
    ("/evaluations/{id}", || get(evaluation::show)),
    ("/docs", || get(docs::show)),
    ("/assets/style.css", || get(|| asset("text/css; charset=utf-8", STYLE))),
    ("/assets/icon.svg", || get(|| asset("image/svg+xml", ICON))),
];

/// What a form is sent to. What it is about stands in the form, so that each has one path.
const FORMS: &[Route] = &[
    ("/login", || post(login::log_in)),
    ("/logout", || post(login::log_out)),
    ("/evaluations/retry", || post(evaluation::retry)),
    ("/evaluations/cancel", || post(evaluation::cancel)),
];

/// Where forms are sent to, as the router itself has it.
pub fn form_paths() -> Vec<&'static str> {
    FORMS.iter().map(|(path, _)| *path).collect()
}

/// The pages; `document` is what `/docs` shows.
pub(crate) fn router(app: &App, document: &utoipa::openapi::OpenApi) -> Router<App> {
    let routes = PAGES.iter().chain(FORMS);
    let router = routes.fold(Router::new(), |router, (path, route)| router.route(path, route()));
    let router = router.layer(Extension(Arc::new(docs::Document::new(document))));
    // Around all of them, so that no page to come can take a form unguarded.
    router.layer(from_fn_with_state(app.clone(), csrf::guard))
}

async fn asset(
    kind: &'static str,
    content: &'static str,
) -> ([(axum::http::HeaderName, &'static str); 2], &'static str) {
    let headers = [(CONTENT_TYPE, kind), (CACHE_CONTROL, "public, max-age=300")];
    (headers, content)
}
