//! Logging in by pasting a token, and out.
//!
//! **Invariant:** the token is in the body of one request and in nothing that is kept: no URL, no cookie, no log, no page.

use axum::Form;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::http::header::SET_COOKIE;
use axum::response::{IntoResponse, Redirect, Response};
use maud::html;
use serde::Deserialize;

use super::layout::{self, Page};
use super::visitor::Visitor;
use crate::app::App;
use crate::error::ApiError;
use crate::service::web_session;

/// `?next=`: the page to go to afterwards.
#[derive(Default, Deserialize)]
pub(super) struct LoginQuery {
    #[serde(default)]
    next: String,
}

/// The login form.
#[derive(Deserialize)]
pub(super) struct LoginForm {
    #[serde(default)]
    token: String,
    #[serde(default)]
    next: String,
}

pub(super) async fn show(mut visitor: Visitor, query: Result<Query<LoginQuery>, QueryRejection>) -> Response {
    let next = query.unwrap_or_default().0.next;
    if visitor.secret.is_some() {
        return form(&visitor, own_path(&next), None);
    }
    // The form is bound to a cookie, so that nobody can log somebody else in.
    let secret = web_session::generate_secret();
    let cookie = visitor.set_cookie(&secret, None);
    visitor.secret = Some(secret);
    ([(SET_COOKIE, cookie)], form(&visitor, own_path(&next), None)).into_response()
}

pub(super) async fn log_in(State(app): State<App>, visitor: Visitor, Form(sent): Form<LoginForm>) -> Response {
    let next = own_path(&sent.next);
    match web_session::create(&app, sent.token.trim(), visitor.secret.as_deref()).await {
        Ok(secret) => {
            let cookie = visitor.set_login_cookie(&secret);
            ([(SET_COOKIE, cookie)], Redirect::to(&visitor.link(next))).into_response()
        }
        Err(error) => form(&visitor, next, Some(&error)),
    }
}

pub(super) async fn log_out(State(app): State<App>, visitor: Visitor) -> Response {
    if let Some(secret) = &visitor.secret
        && let Err(error) = web_session::delete(&app, secret).await
    {
        return layout::refused(&visitor, &error);
    }
    let cookie = visitor.set_cookie("", Some(0));
    ([(SET_COOKIE, cookie)], Redirect::to(&visitor.link("/"))).into_response()
}

/// `next` when it is a path of our own, else the first page. What a browser could read as another host is none:
/// `//host`, `/\host`, and either with a tab or a line break in between, which browsers leave out.
fn own_path(next: &str) -> &str {
    let plain = next.bytes().all(|b| b.is_ascii_graphic() && b != b'\\');
    if plain && next.starts_with('/') && !next.starts_with("//") {
        next
    } else {
        "/"
    }
}

fn form(visitor: &Visitor, next: &str, error: Option<&ApiError>) -> Response {
    let status = error.map_or(StatusCode::OK, ApiError::status);
    let csrf = visitor.csrf();
    let body = html! {
        div.card {
            h1 { "Log in" }
            @if let Some(error) = error {
                p.error role="alert" { (layout::told(error)) }
            }
            form method="post" action=(visitor.link("/login")) {
                @if let Some(csrf) = &csrf { (csrf.field()) }
                input type="hidden" name="next" value=(next);
                label for="token" { "Token" }
                input #token type="password" name="token" required autofocus autocomplete="off"
                    placeholder="fl_…" spellcheck="false";
                button type="submit" { "Log in" }
            }
            p { small { "An administrator makes one: " code { "fineline token create" } ". It is sent once and not kept in the browser." } }
        }
    };
    Page::new(visitor, "Log in")
        .without_login_link()
        .status(status)
        .show(&body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_path_of_our_own_is_gone_to() {
        for own in ["/", "/runs/lab/a", "/runs/lab/a?b=//c", "/login"] {
            assert_eq!(own_path(own), own);
        }
        for foreign in [
            "",
            "evil",
            "https://evil",
            "//evil",
            "///evil",
            "/\\evil",
            "\\\\evil",
            "/\t/evil",
            "\t//evil",
            "/\n/evil",
            " //evil",
            "javascript:alert(1)",
            "/ä",
        ] {
            assert_eq!(own_path(foreign), "/", "{foreign:?}");
        }
    }
}
