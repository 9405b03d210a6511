//! What all pages share: the head, who is logged in, and the headers that bound what a page may do.

use axum::http::StatusCode;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use axum::response::{IntoResponse, Response};
use maud::{DOCTYPE, Markup, html};

use super::visitor::Visitor;
use crate::error::ApiError;

/// A page about to be shown.
pub(super) struct Page<'a> {
    visitor: &'a Visitor,
    title: &'a str,
    status: StatusCode,
    refresh: bool,
    has_login_link: bool,
}

impl<'a> Page<'a> {
    pub(super) fn new(visitor: &'a Visitor, title: &'a str) -> Self {
        Self {
            visitor,
            title,
            status: StatusCode::OK,
            refresh: false,
            has_login_link: true,
        }
    }

    pub(super) fn status(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }

    /// Whether the browser shall load it again by itself: something on it is still under way.
    pub(super) fn refresh(self, refresh: bool) -> Self {
        Self { refresh, ..self }
    }

    /// For the login page itself.
    pub(super) fn without_login_link(self) -> Self {
        Self {
            has_login_link: false,
            ..self
        }
    }

    pub(super) fn show(self, body: &Markup) -> Response {
        let visitor = self.visitor;
        let markup = html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    @if self.refresh { meta http-equiv="refresh" content="3"; }
                    title { (self.title) " · Fineline" }
                    link rel="stylesheet" href=(visitor.link("/assets/style.css"));
                }
                body {
                    header { div.bar { a.home href=(visitor.link("/")) { "Fineline" } (who(visitor, self.has_login_link)) } }
                    main { (body) }
                }
            }
        };
        // A form is possible only where there is a cookie to bind it to.
        let form_action = if visitor.secret.is_some() { "'self'" } else { "'none'" };
        let policy = format!(
            "default-src 'none'; style-src 'self'; base-uri 'none'; form-action {form_action}; frame-ancestors 'none'"
        );
        let headers = [
            (CONTENT_TYPE, "text/html; charset=utf-8"),
            (CONTENT_SECURITY_POLICY, &policy),
            // Who logs out leaves nothing behind that the back button could show.
            (CACHE_CONTROL, "private, no-store"),
            // Not `no-referrer`, which makes the browser send forms with the origin `null`.
            (REFERRER_POLICY, "same-origin"),
            (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        ];
        let mut response = (self.status, headers, markup.into_string()).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            let scheme = axum::http::HeaderValue::from_static("Bearer");
            response.headers_mut().insert(WWW_AUTHENTICATE, scheme);
        }
        response
    }
}

fn who(visitor: &Visitor, has_login_link: bool) -> Markup {
    html! {
        @match (&visitor.login, visitor.csrf()) {
            (Some(token), Some(csrf)) => {
                form method="post" action=(visitor.link("/logout")) {
                    (csrf.field())
                    span { "logged in as " b { (token.name) } }
                    button type="submit" { "Log out" }
                }
            }
            _ => @if has_login_link { a href=(visitor.login_link()) { "Log in" } }
        }
    }
}

/// What an error says, and what to do; what stands in backticks is code.
pub(super) fn told(error: &ApiError) -> Markup {
    let prose = |text: &str| {
        let parts: Vec<String> = text.split('`').map(str::to_owned).collect();
        html! { @for (i, part) in parts.iter().enumerate() { @if i % 2 == 0 { (part) } @else { code { (part) } } } }
    };
    html! { (prose(&error.to_string())) @if let Some(hint) = error.hint_text() { br; small { (prose(hint)) } } }
}

/// The page of what went wrong.
pub(super) fn refused(visitor: &Visitor, error: &ApiError) -> Response {
    let title = match error.status() {
        StatusCode::NOT_FOUND => "Not here",
        status if status.is_client_error() => "Refused",
        _ => "Something failed",
    };
    let body = html! {
        h1 { (title) }
        p { (told(error)) }
    };
    Page::new(visitor, title).status(error.status()).show(&body)
}
