//! `/docs`: the API for people, from the router's own OpenAPI document. Everybody may read it, as the document itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Extension;
use axum::response::Response;
use maud::{Markup, html};
use serde_json::Value;

use super::layout::{Page, Section};
use super::part::{command, prose, wide};
use super::visitor::Visitor;

/// The tags in the order in which somebody meets what they are about; others come behind.
const TAGS: &[&str] = &[
    "runs",
    "checkpoints",
    "tags",
    "suites",
    "evaluations",
    "scores",
    "chunks",
    "workers",
    "tokens",
];

/// The document as the page shows it.
pub(super) struct Document {
    version: String,
    /// Operations under their tag, both in the document's order.
    tags: Vec<(String, Vec<Operation>)>,
    schemas: Vec<(String, Value)>,
}

struct Operation {
    id: String,
    method: String,
    path: String,
    /// What it does, and the scope that it asks for.
    text: String,
    parameters: Vec<Value>,
    body: Option<Value>,
    responses: Vec<(String, Value)>,
}

impl Document {
    pub(super) fn new(document: &utoipa::openapi::OpenApi) -> Self {
        let document = serde_json::to_value(document).expect("an OpenAPI document is made of strings, lists and maps");
        let mut tags: Vec<(String, Vec<Operation>)> = Vec::new();
        for (path, methods) in entries(&document["paths"]) {
            for (method, operation) in entries(methods) {
                let tag = text(&operation["tags"][0]).to_owned();
                let operation = Operation::new(path, method, operation);
                match tags.iter_mut().find(|(name, _)| *name == tag) {
                    Some((_, operations)) => operations.push(operation),
                    None => tags.push((tag, vec![operation])),
                }
            }
        }
        tags.sort_by_key(|(name, _)| TAGS.iter().position(|tag| tag == name).unwrap_or(TAGS.len()));
        let schemas: BTreeMap<&String, &Value> = entries(&document["components"]["schemas"]).collect();
        Self {
            version: text(&document["info"]["version"]).to_owned(),
            tags,
            schemas: schemas
                .into_iter()
                .map(|(name, schema)| (name.clone(), schema.clone()))
                .collect(),
        }
    }
}

impl Operation {
    fn new(path: &str, method: &str, operation: &Value) -> Self {
        let parts = [text(&operation["summary"]), text(&operation["description"])];
        let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        Self {
            id: text(&operation["operationId"]).to_owned(),
            method: method.to_uppercase(),
            path: path.to_owned(),
            text: parts.join(" "),
            parameters: operation["parameters"].as_array().cloned().unwrap_or_default(),
            body: operation.get("requestBody").cloned(),
            responses: entries(&operation["responses"])
                .map(|(status, answer)| (status.clone(), answer.clone()))
                .collect(),
        }
    }
}

fn entries(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

pub(super) async fn show(visitor: Visitor, Extension(document): Extension<Arc<Document>>) -> Response {
    Page::new(&visitor, "API")
        .section(Section::Docs)
        .show(&body(&visitor, &document))
}

fn body(visitor: &Visitor, document: &Document) -> Markup {
    let first = format!(
        "curl -H \"Authorization: Bearer $FINELINE_TOKEN\" {}/api/v1/runs",
        visitor.base_url
    );
    html! {
        div.docs {
            nav.contents aria-label="Operations" {
                @for (tag, operations) in &document.tags {
                    p { a href=(format!("#{tag}")) { (title(tag)) } }
                    ul { @for operation in operations { li { a href=(format!("#{}", operation.id)) { (operation.id) } } } }
                }
                p { a href="#schemas" { "Schemas" } }
            }
            div {
                h1 { "API" }
                p.lead {
                    "Version " (document.version) ". The same as a document for tools: "
                    a href=(visitor.link("/openapi.json")) { "openapi.json" } " (OpenAPI 3.1)."
                }
                (command(&first))
                @for (tag, operations) in &document.tags {
                    section aria-labelledby=(tag) {
                        h2 id=(tag) { (title(tag)) }
                        @for operation in operations { (operation.show()) }
                    }
                }
                section aria-labelledby="schemas" {
                    h2 #schemas { "Schemas" }
                    @for (name, schema) in &document.schemas { (show_schema(name, schema)) }
                }
            }
        }
    }
}

/// A tag with a capital letter.
fn title(tag: &str) -> String {
    let mut letters = tag.chars();
    letters
        .next()
        .map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

impl Operation {
    fn show(&self) -> Markup {
        html! {
            article.operation aria-labelledby=(self.id) {
                h3 id=(self.id) {
                    span class=(format!("method {}", self.method)) { (self.method) } " " code { (self.path) }
                    " " small { (self.id) }
                }
                p { (prose(&self.text)) }
                @if !self.parameters.is_empty() { (wide(&format!("Parameters of {}", self.id), &self.parameters())) }
                @if let Some(body) = &self.body { p { "Body: " (content(body)) } }
                ul.answers {
                    @for (status, answer) in &self.responses {
                        li {
                            span.status-code { @if status == "default" { "error" } @else { (status) } } " " (content(answer))
                        }
                    }
                }
            }
        }
    }

    fn parameters(&self) -> Markup {
        html! {
            table {
                thead { tr { th scope="col" { "parameter" } th scope="col" { "in" } th scope="col" { "type" } th scope="col" { "meaning" } } }
                tbody {
                    @for parameter in &self.parameters {
                        tr {
                            th scope="row" {
                                code { (text(&parameter["name"])) }
                                @if parameter["required"] == true { " " small { "required" } }
                            }
                            td { (text(&parameter["in"])) }
                            td { (kind(&parameter["schema"])) }
                            td { (prose(text(&parameter["description"]))) }
                        }
                    }
                }
            }
        }
    }
}

/// What a body or an answer holds.
fn content(of: &Value) -> Markup {
    html! {
        (prose(text(&of["description"])))
        @for (media_type, media) in entries(&of["content"]) { " " (kind(&media["schema"])) " " small { (media_type) } }
    }
}

/// A schema in a word or a link.
fn kind(schema: &Value) -> Markup {
    if let Some(name) = schema["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
        return html! { a href=(format!("#schema-{name}")) { (name) } };
    }
    for (key, between) in [("oneOf", " or "), ("anyOf", " or "), ("allOf", " and ")] {
        if let Some(parts) = schema[key].as_array() {
            return html! { @for (i, part) in parts.iter().enumerate() { @if i > 0 { (between) } (kind(part)) } };
        }
    }
    let types: Vec<&str> = match &schema["type"] {
        Value::Array(types) => types.iter().filter_map(Value::as_str).collect(),
        one => one.as_str().into_iter().collect(),
    };
    html! {
        @for (i, one) in types.iter().enumerate() {
            @if i > 0 { " or " }
            @if *one == "array" && schema["items"]["type"] == "integer" && schema["items"]["format"] == "int32" { "bytes" }
            @else if *one == "array" { "list of " (kind(&schema["items"])) }
            @else if *one == "object" && schema.get("additionalProperties").is_some() { "map to " (kind(&schema["additionalProperties"])) }
            @else { (one) }
        }
        @if let Some(format) = schema["format"].as_str() { " " small { (format) } }
    }
}

fn show_schema(name: &str, schema: &Value) -> Markup {
    let id = format!("schema-{name}");
    let required: Vec<&str> = schema["required"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let words: Vec<&str> = schema["enum"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    html! {
        article.operation aria-labelledby=(id) {
            h3 id=(id) { code { (name) } }
            p { (prose(text(&schema["description"]))) }
            @if !words.is_empty() {
                p { "One of " @for (i, word) in words.iter().enumerate() { @if i > 0 { ", " } code { (word) } } }
            } @else if entries(&schema["properties"]).next().is_some() {
                @let table = html! {
                    table {
                        thead { tr { th scope="col" { "field" } th scope="col" { "type" } th scope="col" { "meaning" } } }
                        tbody {
                            @for (field, of) in entries(&schema["properties"]) {
                                tr {
                                    th scope="row" {
                                        code { (field) } @if required.contains(&field.as_str()) { " " small { "required" } }
                                    }
                                    td { (kind(of)) }
                                    td { (prose(text(&of["description"]))) }
                                }
                            }
                        }
                    }
                };
                (wide(&format!("Fields of {name}"), &table))
            } @else {
                p { (kind(schema)) }
            }
        }
    }
}
