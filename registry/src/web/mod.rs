//! The pages: logging in, runs, and a run's steps with their scores.
//!
//! `visitor` says who looks, `csrf` guards every form, `layout` is what all pages share; the rest is a page a file.
//!
//! **Invariant:** everything that comes from outside is escaped by construction (maud), no page loads anything from
//! elsewhere or runs a script, and nothing here changes anything but by a form that came through [`csrf::guard`].

mod csrf;
mod layout;
mod login;
mod run;
mod runs;
mod visitor;

use axum::Router;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::middleware::from_fn_with_state;
use axum::routing::{MethodRouter, get, post};

use crate::app::App;

/// Rows of a page; a longer list ends with a word that there is more.
const MAX_ROWS: u64 = 1000;

const STYLE: &str = include_str!("style.css");

/// A path and what answers there.
type Route = (&'static str, fn() -> MethodRouter<App>);

/// What is only looked at.
const PAGES: &[Route] = &[
    ("/", || get(runs::show)),
    ("/login", || get(login::show)),
    ("/runs/{namespace}/{name}", || get(run::show)),
    ("/assets/style.css", || get(style)),
];

/// What a form is sent to.
const FORMS: &[Route] = &[("/login", || post(login::log_in)), ("/logout", || post(login::log_out))];

/// Where forms are sent to, as the router itself has it.
pub fn form_paths() -> Vec<&'static str> {
    FORMS.iter().map(|(path, _)| *path).collect()
}

pub(crate) fn router(app: &App) -> Router<App> {
    let routes = PAGES.iter().chain(FORMS);
    let router = routes.fold(Router::new(), |router, (path, route)| router.route(path, route()));
    // Around all of them, so that no page to come can take a form unguarded.
    router.layer(from_fn_with_state(app.clone(), csrf::guard))
}

async fn style() -> ([(axum::http::HeaderName, &'static str); 2], &'static str) {
    let headers = [
        (CONTENT_TYPE, "text/css; charset=utf-8"),
        (CACHE_CONTROL, "public, max-age=300"),
    ];
    (headers, STYLE)
}
