//! What all pages share: the head, the ways to other pages, who is logged in, and the headers that bound what a page may do.

use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, REFRESH, WWW_AUTHENTICATE,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use maud::{DOCTYPE, Markup, html};

use super::part::prose;
use super::visitor::Visitor;
use crate::error::ApiError;

/// What the ways to other pages are called, and where they lead.
const SECTIONS: &[(Section, &str, &str)] = &[
    (Section::Runs, "Runs", "/"),
    (Section::Evaluations, "Evaluations", "/evaluations"),
    (Section::Docs, "API", "/docs"),
];

/// The part of the site that a page belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Section {
    Runs,
    Evaluations,
    Docs,
}

/// Whether a page loads itself again, and the link that changes it: nobody has to read against a clock.
#[derive(Debug, Clone)]
pub(super) enum Refresh {
    /// Something on it is still under way.
    On { stop: String },
    /// So it is, and the reader stopped it.
    Off { resume: String },
}

impl Refresh {
    /// `other` is the page with the other choice.
    pub(super) fn new(is_on: bool, other: String) -> Self {
        if is_on {
            Self::On { stop: other }
        } else {
            Self::Off { resume: other }
        }
    }
}

/// Seconds after which a page on which work is under way is loaded again.
const REFRESH_S: u32 = 5;

/// A page about to be shown.
pub(super) struct Page<'a> {
    visitor: &'a Visitor,
    title: &'a str,
    status: StatusCode,
    section: Option<Section>,
    refresh: Option<Refresh>,
    has_login_link: bool,
}

impl<'a> Page<'a> {
    pub(super) fn new(visitor: &'a Visitor, title: &'a str) -> Self {
        Self {
            visitor,
            title,
            status: StatusCode::OK,
            section: None,
            refresh: None,
            has_login_link: true,
        }
    }

    pub(super) fn status(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }

    /// Marks the way that led here.
    pub(super) fn section(self, section: Section) -> Self {
        Self {
            section: Some(section),
            ..self
        }
    }

    pub(super) fn refresh(self, refresh: Option<Refresh>) -> Self {
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
                    title { (self.title) " · Fineline" }
                    link rel="stylesheet" href=(visitor.link("/assets/style.css"));
                    // Without one, browsers ask for /favicon.ico.
                    link rel="icon" type="image/svg+xml" href=(visitor.link("/assets/icon.svg"));
                }
                body {
                    a.skip href="#content" { "Skip to the content" }
                    header { div.bar { (self.ways()) (who(visitor, self.has_login_link)) } }
                    main #content {
                        (body)
                        @if let Some(refresh) = &self.refresh { (live(visitor, refresh)) }
                    }
                }
            }
        };
        // A form is possible only where there is a cookie to bind it to.
        let form_action = if visitor.secret.is_some() { "'self'" } else { "'none'" };
        let policy = format!(
            "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action {form_action}; frame-ancestors 'none'"
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
            let scheme = HeaderValue::from_static("Bearer");
            response.headers_mut().insert(WWW_AUTHENTICATE, scheme);
        }
        if let Some(Refresh::On { .. }) = self.refresh {
            response.headers_mut().insert(REFRESH, HeaderValue::from(REFRESH_S));
        }
        response
    }

    fn ways(&self) -> Markup {
        let visitor = self.visitor;
        html! {
            nav aria-label="Site" {
                a.home href=(visitor.link("/")) { "Fineline" }
                @if visitor.looks {
                    @for (section, name, path) in SECTIONS {
                        a href=(visitor.link(path)) aria-current=[(self.section == Some(*section)).then_some("page")] { (name) }
                    }
                }
            }
        }
    }
}

fn live(visitor: &Visitor, refresh: &Refresh) -> Markup {
    html! {
        p.live {
            @match refresh {
                Refresh::On { stop } => {
                    "Work is under way: this page is loaded again every " (REFRESH_S) " seconds. "
                    a href=(visitor.link(stop)) { "Stop that" }
                }
                Refresh::Off { resume } => {
                    "Work is under way. " a href=(visitor.link(resume)) { "Load this page again by itself" }
                }
            }
        }
    }
}

fn who(visitor: &Visitor, has_login_link: bool) -> Markup {
    html! {
        @match (&visitor.login, visitor.csrf()) {
            (Some(token), Some(csrf)) => {
                form method="post" action=(visitor.link("/logout")) {
                    (csrf.field())
                    span.who { "logged in as " b { (token.name) } }
                    button type="submit" { "Log out" }
                }
            }
            _ => @if has_login_link { a href=(visitor.login_link()) { "Log in" } }
        }
    }
}

/// What an error says, and what to do; what stands in backticks is code.
pub(super) fn told(error: &ApiError) -> Markup {
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
        div.refused {
            h1 { (title) }
            p { (told(error)) }
        }
    };
    Page::new(visitor, title).status(error.status()).show(&body)
}
