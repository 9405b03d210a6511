//! Handlers, one noun a file: extract, one call, respond.

mod checkpoint;
mod chunk;
mod conditional;
mod direct;
mod evaluation;
mod file;
mod lease;
pub(crate) mod operator;
mod page;
mod push_session;
mod run;
mod score;
mod source;
mod storage;
mod suite;
mod tag;
mod token;

use utoipa_axum::router::OpenApiRouter;

use crate::app::App;

/// Every operation of the API.
pub(crate) fn router() -> OpenApiRouter<App> {
    run::router()
        .merge(checkpoint::router())
        .merge(file::router())
        .merge(chunk::router())
        .merge(direct::router())
        .merge(push_session::router())
        .merge(tag::router())
        .merge(suite::router())
        .merge(evaluation::router())
        .merge(lease::router())
        .merge(score::router())
        .merge(source::router())
        .merge(storage::router())
        .merge(token::router())
}
