//! Forms that only our own pages can send (against cross-site request forgery).
//!
//! Each form holds a value that follows from the secret in the browser's cookie: another site can neither read the one
//! nor the other. The login form has it too, by a cookie that is there before the login. Besides, a request that a
//! browser says comes from elsewhere is refused.
//!
//! **Invariant:** [`guard`] stands around every page; whatever is no mere look passes it.

use axum::Form;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{FromRequest, Request, State};
use axum::http::HeaderMap;
use axum::http::header::ORIGIN;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::Response;
use fineline_api::error::ErrorCode;
use fineline_format::Digest;
use maud::{Markup, html};
use serde::Deserialize;

use super::layout;
use super::visitor::Visitor;
use crate::app::App;
use crate::error::{ApiError, ApiResult};
use crate::reached::Reached;

/// The largest form.
const MAX_FORM_BYTES: usize = 64 << 10;

/// What makes a form one browser's own.
#[derive(Clone)]
pub(super) struct Csrf(Digest);

impl Csrf {
    /// It follows from the cookie's secret, which does not follow from it.
    pub(super) fn of(secret: &str) -> Self {
        Self(Digest::of(format!("form of {secret}").as_bytes()))
    }

    /// The hidden field that every form begins with.
    pub(super) fn field(&self) -> Markup {
        html! { input type="hidden" name="csrf" value=(self.0.to_hex()); }
    }

    /// Compared by digests, so that the time that it takes says nothing.
    fn is(&self, given: &str) -> bool {
        Digest::of(self.0.to_hex().as_bytes()) == Digest::of(given.as_bytes())
    }
}

#[derive(Deserialize)]
struct Field {
    csrf: String,
}

/// Lets looks pass, and forms that this browser was given by us.
pub(super) async fn guard(State(app): State<App>, request: Request, next: Next) -> Response {
    if request.method().is_safe() {
        return next.run(request).await;
    }
    let (parts, body) = request.into_parts();
    let visitor = Visitor::stranger(&app, &parts);
    match check(&app, &visitor, &parts, body).await {
        Ok(form) => next.run(Request::from_parts(parts, Body::from(form))).await,
        Err(error) => layout::refused(&visitor, &error),
    }
}

/// The form's bytes, when it may be taken.
async fn check(app: &App, visitor: &Visitor, parts: &Parts, body: Body) -> ApiResult<Bytes> {
    check_origin(app, parts)?;
    let form = to_bytes(body, MAX_FORM_BYTES)
        .await
        .map_err(|_| ApiError::new(ErrorCode::TooLarge, "the form is larger than any of ours"))?;
    let request = Request::from_parts(parts.clone(), Body::from(form.clone()));
    let given = Form::<Field>::from_request(request, &()).await.ok();
    match (given, visitor.csrf()) {
        (Some(Form(field)), Some(csrf)) if csrf.is(&field.csrf) => Ok(form),
        _ => Err(forbidden("this form is not, or no longer, this browser's own")
            .hint("go back, load the page again and send it once more; the browser has to keep this site's cookie")),
    }
}

/// What the browser itself says of where the form stood; older ones say nothing, and the form's field decides alone.
fn check_origin(app: &App, parts: &Parts) -> ApiResult<()> {
    let header = |headers: &HeaderMap, name| headers.get(name).map(|value| value.to_str().unwrap_or("?").to_owned());
    if let Some(site) = header(&parts.headers, "sec-fetch-site")
        && !["same-origin", "none"].contains(&site.as_str())
    {
        return Err(forbidden("this form was sent by a page of another site"));
    }
    let Some(origin) = header(&parts.headers, ORIGIN.as_str()) else {
        return Ok(());
    };
    let reached = parts.extensions.get::<Reached>().map(|reached| reached.origin.as_str());
    let public = app.options.public_url.as_ref().map(|url| url.origin());
    if [reached, public].contains(&Some(origin.as_str())) {
        return Ok(());
    }
    let own = public.or(reached).unwrap_or_default();
    Err(
        forbidden(&format!("this form was sent by a page of `{origin}`, and this server is at `{own}`"))
            .hint("when that is the same server behind a proxy: start it with --public-url, or name the proxy with --trusted-proxy"),
    )
}

fn forbidden(message: &str) -> ApiError {
    ApiError::new(ErrorCode::Forbidden, message)
}
