//! As much of a browser as the pages need: it keeps cookies, follows no redirect by itself and sends forms.

use std::collections::BTreeMap;

use fineline_api::path::segment;
use reqwest::header::{CONTENT_TYPE, COOKIE, LOCATION, SET_COOKIE};
use reqwest::{Method, StatusCode};

/// A browser with its cookies.
#[derive(Clone)]
pub(crate) struct Browser {
    http: reqwest::Client,
    url: String,
    cookies: BTreeMap<String, String>,
    /// Headers that it sends with everything.
    pub(super) headers: Vec<(&'static str, String)>,
}

/// What a server answered.
pub(crate) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: reqwest::header::HeaderMap,
    pub(crate) body: String,
}

/// A form on a page.
#[derive(Debug)]
pub(super) struct Form {
    pub(super) method: String,
    pub(super) action: String,
    /// The value that makes it this browser's own.
    pub(super) csrf: Option<String>,
}

impl Browser {
    pub(super) fn new(url: &str) -> Self {
        let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
        Self {
            http: http.build().unwrap(),
            url: url.to_owned(),
            cookies: BTreeMap::new(),
            headers: Vec::new(),
        }
    }

    /// One that has pasted `token` on the login page and was let in.
    pub(crate) async fn logged_in(url: &str, token: &str) -> Self {
        let mut browser = Self::new(url);
        let answer = browser.log_in(token, "/").await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.body);
        browser
    }

    /// Pastes `token` on the login page that leads to `next`.
    pub(super) async fn log_in(&mut self, token: &str, next: &str) -> Answer {
        let csrf = self.csrf("/login").await;
        self.post("/login", &[("csrf", &csrf), ("token", token), ("next", next)])
            .await
    }

    /// What the first form of a page holds against forgery.
    pub(super) async fn csrf(&mut self, path: &str) -> String {
        self.get(path).await.forms().remove(0).csrf.unwrap()
    }

    pub(crate) async fn get(&mut self, path: &str) -> Answer {
        self.send(Method::GET, path, None).await
    }

    pub(super) async fn post(&mut self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let fields = fields.iter().map(|(name, value)| format!("{name}={}", segment(value)));
        let form = fields.collect::<Vec<_>>().join("&");
        self.send(Method::POST, path, Some(form)).await
    }

    async fn send(&mut self, method: Method, path: &str, form: Option<String>) -> Answer {
        let mut request = self.http.request(method, format!("{}{path}", self.url));
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        if !self.cookies.is_empty() {
            request = request.header(COOKIE, self.cookie_header());
        }
        if let Some(form) = form {
            request = request.body(form);
            if !self.headers.iter().any(|(name, _)| *name == "content-type") {
                request = request.header(CONTENT_TYPE, "application/x-www-form-urlencoded");
            }
        }
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        for line in headers.get_all(SET_COOKIE) {
            let (name, value) = line
                .to_str()
                .unwrap()
                .split(';')
                .next()
                .unwrap()
                .split_once('=')
                .unwrap();
            if value.is_empty() {
                self.cookies.remove(name);
            } else {
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
        }
        let body = response.text().await.unwrap();
        Answer { status, headers, body }
    }

    /// What it sends as `Cookie`.
    pub(crate) fn cookie_header(&self) -> String {
        let pairs = self.cookies.iter().map(|(name, value)| format!("{name}={value}"));
        pairs.collect::<Vec<_>>().join("; ")
    }
}

impl Answer {
    /// A header as text; empty when it is not there.
    pub(super) fn header(&self, name: impl reqwest::header::AsHeaderName) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub(super) fn location(&self) -> &str {
        self.header(LOCATION)
    }

    pub(super) fn set_cookie(&self) -> &str {
        self.header(SET_COOKIE)
    }

    /// Every value that the page gives an attribute.
    pub(super) fn attributes(&self, name: &str) -> Vec<String> {
        let mark = format!(" {name}=\"");
        let parts = self.body.split(&mark).skip(1);
        parts.map(|part| part.split('"').next().unwrap().to_owned()).collect()
    }

    /// The page's forms.
    pub(super) fn forms(&self) -> Vec<Form> {
        let parts = self.body.split("<form").skip(1);
        let form = |part: &str| {
            let text = part.split("</form>").next().unwrap();
            let after = |mark: &str| {
                text.split(mark)
                    .nth(1)
                    .map(|rest| rest.split('"').next().unwrap().to_owned())
            };
            Form {
                method: after("method=\"").unwrap_or_default(),
                action: after("action=\"").unwrap_or_default(),
                csrf: after("name=\"csrf\" value=\""),
            }
        };
        parts.map(form).collect()
    }
}
