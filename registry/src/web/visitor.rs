//! Who looks at a page: the browser's cookie, the login behind it, and where the server is from where they stand.
//!
//! **Invariant:** the cookie is a random secret and never a token; scripts don't see it, other sites' forms don't bear
//! it, and over TLS it has the prefix that binds it to this very host.

use axum::extract::FromRequestParts;
use axum::http::header::COOKIE;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Redirect, Response};
use fineline_api::Token;
use fineline_api::path::segment;

use super::csrf::Csrf;
use super::layout;
use crate::app::App;
use crate::auth::{Caller, authenticate};
use crate::reached::Reached;
use crate::service::web_session::{self, LIFETIME_S, SECRET_LETTERS};

/// Who looks at a page.
#[derive(Clone)]
pub(super) struct Visitor {
    /// What the cookie holds; a login or, before it, nothing but what binds the login form to this browser.
    pub(super) secret: Option<String>,
    /// The token that they are logged in with.
    pub(super) login: Option<Token>,
    /// The page that they asked for: a path with its query.
    pub(super) asked: String,
    /// Whether there are pages for them beside the login: they are logged in, or everybody may read.
    pub(super) looks: bool,
    /// Where users reach the server: an absolute URL.
    pub(super) base_url: String,
    /// What stands before every path of the server.
    prefix: String,
    is_https: bool,
}

impl Visitor {
    /// Who looks, by the request alone: nobody is logged in.
    pub(super) fn stranger(app: &App, parts: &Parts) -> Self {
        let reached = parts.extensions.get::<Reached>();
        let public = app.options.public_url.as_ref();
        let over_tls = reached.is_some_and(Reached::is_https);
        let is_https = public.is_some_and(|url| url.is_https()) || over_tls;
        let origin = || reached.map(|reached| reached.origin.clone()).unwrap_or_default();
        let asked = parts.uri.path_and_query().filter(|_| parts.method.is_safe());
        Self {
            secret: cookie(&parts.headers, cookie_name(is_https)),
            login: None,
            looks: app.options.anonymous_read,
            asked: asked.map_or("/", |asked| asked.as_str()).to_owned(),
            base_url: public.map_or_else(origin, ToString::to_string),
            prefix: public.map_or_else(String::new, |url| url.path().to_owned()),
            is_https,
        }
    }

    /// A link to one of the server's own paths.
    pub(super) fn link(&self, path: &str) -> String {
        format!("{}{path}", self.prefix)
    }

    /// Where to log in, and come back from.
    pub(super) fn login_link(&self) -> String {
        self.link(&format!("/login?next={}", segment(&self.asked)))
    }

    /// What makes a form this browser's own.
    pub(super) fn csrf(&self) -> Option<Csrf> {
        self.secret.as_deref().map(Csrf::of)
    }

    /// The header that gives the browser its secret. SameSite is Lax, not Strict: who follows a link to a run from a
    /// chat or a paper is logged in; what changes anything is a form, and those are guarded besides.
    pub(super) fn set_cookie(&self, secret: &str, lifetime_s: Option<i64>) -> HeaderValue {
        let name = cookie_name(self.is_https);
        let secure = if self.is_https { "; Secure" } else { "" };
        let lifetime = lifetime_s.map_or_else(String::new, |s| format!("; Max-Age={s}"));
        let cookie = format!("{name}={secret}; Path=/; HttpOnly; SameSite=Lax{secure}{lifetime}");
        let mut value = HeaderValue::from_str(&cookie).expect("a cookie's parts are all ASCII");
        value.set_sensitive(true);
        value
    }

    /// The header of a browser that is now logged in.
    pub(super) fn set_login_cookie(&self, secret: &str) -> HeaderValue {
        self.set_cookie(secret, Some(LIFETIME_S))
    }
}

fn cookie_name(is_https: bool) -> &'static str {
    if is_https { "__Host-fineline" } else { "fineline" }
}

/// The secret in the cookie of that name; anything else in it is no secret of ours.
fn cookie(headers: &HeaderMap, name: &str) -> Option<String> {
    let lines = headers.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok());
    let mut pairs = lines
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.split_once('='));
    let value = pairs.find(|(found, _)| found.trim() == name)?.1.trim();
    let is_ours = value.len() == SECRET_LETTERS && value.bytes().all(|b| b.is_ascii_alphanumeric());
    is_ours.then(|| value.to_owned())
}

impl FromRequestParts<App> for Visitor {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Response> {
        let mut visitor = Self::stranger(app, parts);
        if let Some(secret) = &visitor.secret {
            match web_session::find(app, secret).await {
                Ok(login) => {
                    visitor.looks |= login.is_some();
                    visitor.login = login;
                }
                Err(error) => return Err(layout::refused(&visitor, &error)),
            }
        }
        Ok(visitor)
    }
}

/// A visitor who may read something: logged in, or anybody where the operator lets everybody read. All others are sent
/// to log in, whatever they asked for.
pub(super) struct Reader {
    pub(super) visitor: Visitor,
    pub(super) caller: Caller,
}

impl FromRequestParts<App> for Reader {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Response> {
        let visitor = Visitor::from_request_parts(parts, app).await?;
        let caller = match visitor.login.clone() {
            Some(token) => Caller::from(token),
            None => authenticate(app, None)
                .await
                .map_err(|_| Redirect::to(&visitor.login_link()).into_response())?,
        };
        Ok(Self { visitor, caller })
    }
}
