//! The part of Jinja that a task may use, made so that no template runs or grows without end.
//!
//! A template of forty assignments can double a text forty times, so none but of a text in quotes: `if` and `for` over what
//! a document holds, expressions, and the filters and methods of the lists below. Everything else is refused by name.
//!
//! **Invariant:** rendering takes at most [`FUEL`] steps; a value of an expression has at most [`MAX_CONCATENATIONS`] texts
//! of the document or of a filter, none of which has more than [`MAX_TEXT_BYTES`], and what comes out has no more either.

use std::fmt::{self, Write as _};
use std::io;

use anyhow::{Result, bail, ensure};
use minijinja::value::{Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State, UndefinedBehavior};

use crate::python;

/// The longest text that a filter or a template gives, and the longest document.
pub(super) const MAX_TEXT_BYTES: usize = 4 << 20;

/// Instructions of one rendering.
const FUEL: u64 = 50_000;

const MAX_TEMPLATE_BYTES: usize = 16 << 10;
const MAX_CONCATENATIONS: usize = 32;

const BLOCKS: &[&str] = &["if", "elif", "else", "endif", "for", "endfor", "break", "continue"];
const WORDS: &[&str] = &["if", "elif", "else", "for", "in", "is", "not", "and", "or"];
const FILTERS: &[&str] = &[
    "abs",
    "bool",
    "capitalize",
    "count",
    "d",
    "default",
    "first",
    "float",
    "int",
    "items",
    "join",
    "last",
    "length",
    "list",
    "lower",
    "max",
    "min",
    "replace",
    "reverse",
    "round",
    "sort",
    "split",
    "string",
    "title",
    "trim",
    "unique",
    "upper",
];
const METHODS: &[&str] = &[
    "capitalize",
    "count",
    "endswith",
    "find",
    "get",
    "index",
    "isalnum",
    "isalpha",
    "isdigit",
    "islower",
    "isnumeric",
    "isupper",
    "items",
    "join",
    "keys",
    "lower",
    "lstrip",
    "replace",
    "rfind",
    "rstrip",
    "split",
    "splitlines",
    "startswith",
    "strip",
    "title",
    "upper",
    "values",
];

/// Checks that a template keeps to the language.
///
/// # Errors
/// Names what it uses and may not.
pub(super) fn check(template: &str) -> Result<()> {
    let n = template.len();
    ensure!(
        n <= MAX_TEMPLATE_BYTES,
        "the template has {n} bytes, {MAX_TEMPLATE_BYTES} are the most"
    );
    let mut n_concatenations = 0;
    let mut rest = template;
    while let Some(at) = rest.find('{') {
        rest = &rest[at + 1..];
        let (end, is_block) = match rest.as_bytes().first() {
            Some(b'{') => ("}}", false),
            Some(b'%') => ("%}", true),
            Some(b'#') => {
                // Behind the mark: `{#}` begins a comment and does not end it.
                rest = rest[1..].split_once("#}").map_or("", |(_, after)| after);
                continue;
            }
            _ => continue,
        };
        rest = tag(&rest[1..], end, is_block, &mut n_concatenations)?;
    }
    ensure!(
        n_concatenations <= MAX_CONCATENATIONS,
        "the template joins {n_concatenations} texts with `~` or `+`, {MAX_CONCATENATIONS} are the most"
    );
    Ok(())
}

/// Checks what stands in a tag; gives what follows it.
fn tag<'a>(inside: &'a str, end_of_tag: &str, is_block: bool, n_concatenations: &mut usize) -> Result<&'a str> {
    let mut rest = inside.strip_prefix(['-', '+']).unwrap_or(inside);
    let (mut before, mut word_before, mut in_for) = (None, "", false);
    let mut is_first = is_block;
    loop {
        rest = rest.trim_start();
        if let Some(after) = rest.strip_prefix(end_of_tag) {
            return Ok(after);
        }
        let Some(c) = rest.chars().next() else {
            bail!("a tag of the template has no end");
        };
        let after = match c {
            '"' | '\'' => text_literal(rest, c)?,
            c if c.is_alphanumeric() || c == '_' => {
                let end = rest
                    .find(|c: char| !c.is_alphanumeric() && c != '_')
                    .unwrap_or(rest.len());
                let (word, after) = rest.split_at(end);
                if std::mem::take(&mut is_first) {
                    if let Some(rest) = Some(after)
                        .filter(|_| word == "set")
                        .and_then(|rest| literal_set(rest, end_of_tag))
                    {
                        return Ok(rest);
                    }
                    ensure!(
                        BLOCKS.contains(&word),
                        "`{{% {word} %}}` is not supported in a task's template"
                    );
                    in_for = word == "for";
                } else {
                    name(word, word_before, before, after.trim_start().starts_with('('))?;
                }
                // The name of a test follows, as behind `is` alone.
                let is_not = word_before == "is" && word == "not";
                word_before = if is_not { "is" } else { word };
                after
            }
            '*' => bail!("`*` is not supported in a task's template"),
            '{' => bail!("a mapping is not supported in a task's template"),
            '~' | '+' | '[' if in_for => bail!("`{c}` is not supported in a `for` of a task's template"),
            c => {
                *n_concatenations += usize::from(c == '~' || c == '+');
                &rest[c.len_utf8()..]
            }
        };
        before = Some(c);
        rest = after;
    }
}

/// `name = 'text'` and the end of its tag: a text that is there already, under a name. Gives what follows.
fn literal_set<'a>(rest: &'a str, end_of_tag: &str) -> Option<&'a str> {
    let (name, value) = rest.split_once('=')?;
    let is_name = name.trim().chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    let value = value.trim_start();
    let quote = value.chars().next().filter(|c| is_name && ['"', '\''].contains(c))?;
    let after = text_literal(value, quote).ok()?.trim_start();
    after.strip_prefix('-').unwrap_or(after).strip_prefix(end_of_tag)
}

/// Checks a name by what stands around it.
fn name(word: &str, word_before: &str, before: Option<char>, is_called: bool) -> Result<()> {
    let (kind, known) = match before {
        Some('|') => ("filter", FILTERS.contains(&word)),
        Some('.') if is_called => ("method", METHODS.contains(&word)),
        _ if word == "recursive" => ("word", false),
        _ if is_called && word_before != "is" => ("function", word == "range" || WORDS.contains(&word)),
        _ => return Ok(()),
    };
    ensure!(known, "the {kind} `{word}` is not supported in a task's template");
    Ok(())
}

/// What follows a text in quotes.
fn text_literal(rest: &str, quote: char) -> Result<&str> {
    let mut chars = rest.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        if c == '\\' {
            chars.next();
        } else if c == quote {
            return Ok(&rest[at + 1..]);
        }
    }
    bail!("a text in the template has no end")
}

/// Jinja as lm-eval uses it, within the bounds.
pub(super) fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_keep_trailing_newline(true);
    environment.set_fuel(Some(FUEL));
    environment.set_unknown_method_callback(method);
    environment.add_filter("replace", replace);
    environment.add_filter("join", join);
    environment.add_filter("capitalize", |text: String| python::capitalize(&text));
    environment.add_filter("string", |value: Value| shown(&value));
    environment.set_formatter(|out, _, value| {
        if value.is_undefined() {
            return Err(Error::from(ErrorKind::UndefinedError));
        }
        write!(out, "{}", Shown(value)).map_err(Error::from)
    });
    environment
}

/// What a template renders to.
///
/// # Errors
/// What is wrong with it, or that it gives too much.
pub(super) fn render(environment: &Environment<'_>, template: &str, doc: &serde_json::Value) -> Result<String> {
    check(template)?;
    let mut out = Bounded::default();
    let template = environment.template_from_str(template)?;
    let rendered = template.render_captured_to(doc, &mut out);
    ensure!(
        !out.is_over,
        "the template gives more than {MAX_TEXT_BYTES} bytes of text"
    );
    drop(rendered?);
    Ok(String::from_utf8(out.bytes)?)
}

/// A value as Python's `str` shows it.
///
/// # Errors
/// When it is longer than a text may be.
pub(super) fn shown(value: &Value) -> Result<String, Error> {
    let mut out = Bounded::default();
    match write!(out, "{}", Shown(value)) {
        Ok(()) => Ok(String::from_utf8_lossy(&out.bytes).into_owned()),
        Err(_) => Err(too_long()),
    }
}

fn too_long() -> Error {
    Error::new(
        ErrorKind::InvalidOperation,
        format!("a text has more than {MAX_TEXT_BYTES} bytes"),
    )
}

struct Shown<'a>(&'a Value);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_str() {
            Some(text) => f.write_str(text),
            None => write_repr(f, self.0),
        }
    }
}

/// Python's `repr`, which is also its `str` of all but texts.
fn write_repr(f: &mut fmt::Formatter<'_>, value: &Value) -> fmt::Result {
    match value.kind() {
        ValueKind::Bool => f.write_str(if value.is_true() { "True" } else { "False" }),
        ValueKind::None => f.write_str("None"),
        ValueKind::String => {
            let mut shown = String::new();
            python::write_text(&mut shown, value.as_str().unwrap_or_default());
            f.write_str(&shown)
        }
        ValueKind::Seq | ValueKind::Iterable => {
            f.write_str("[")?;
            for (i, item) in value.try_iter().map_err(|_| fmt::Error)?.enumerate() {
                f.write_str(if i > 0 { ", " } else { "" })?;
                write_repr(f, &item)?;
            }
            f.write_str("]")
        }
        ValueKind::Map => {
            f.write_str("{")?;
            for (i, key) in value.try_iter().map_err(|_| fmt::Error)?.enumerate() {
                f.write_str(if i > 0 { ", " } else { "" })?;
                write_repr(f, &key)?;
                f.write_str(": ")?;
                write_repr(f, &value.get_item(&key).map_err(|_| fmt::Error)?)?;
            }
            f.write_str("}")
        }
        ValueKind::Number if !value.is_integer() => match f64::try_from(value.clone()) {
            Ok(number) => f.write_str(&python::float(number)),
            Err(_) => fmt::Display::fmt(value, f),
        },
        _ => fmt::Display::fmt(value, f),
    }
}

/// Takes bytes until they are too many.
#[derive(Default)]
struct Bounded {
    bytes: Vec<u8>,
    is_over: bool,
}

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.is_over |= self.bytes.len() + bytes.len() > MAX_TEXT_BYTES;
        if self.is_over {
            return Err(io::Error::other("too much text"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        io::Write::write(self, text.as_bytes())
            .map(drop)
            .map_err(|_| fmt::Error)
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the shape of a filter")]
fn replace(text: String, from: String, to: String) -> Result<String, Error> {
    let n = text.matches(from.as_str()).count();
    if text.len() + n.saturating_mul(to.len()) > MAX_TEXT_BYTES {
        return Err(too_long());
    }
    Ok(text.replace(&from, &to))
}

#[expect(clippy::needless_pass_by_value, reason = "the shape of a filter")]
fn join(items: Value, between: Option<String>) -> Result<String, Error> {
    let between = between.unwrap_or_default();
    let mut joined = String::new();
    for (i, item) in items.try_iter()?.enumerate() {
        joined.push_str(if i > 0 { &between } else { "" });
        joined.push_str(&shown(&item)?);
        if joined.len() > MAX_TEXT_BYTES {
            return Err(too_long());
        }
    }
    Ok(joined)
}

/// Python's methods: `index` of a list and those that can grow here, the rest from minijinja's own collection.
fn method(state: &State<'_, '_>, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    match (method, value.kind(), args) {
        ("index", ValueKind::Seq, [wanted]) => match value.try_iter()?.position(|item| item == *wanted) {
            Some(at) => Ok(Value::from(at)),
            None => Err(Error::new(
                ErrorKind::InvalidOperation,
                format!("{} is not in the list", shown(wanted)?),
            )),
        },
        ("index", ValueKind::Seq, _) => Err(Error::from(ErrorKind::MissingArgument)),
        ("replace", ValueKind::String, [from, to]) => match (value.as_str(), from.as_str(), to.as_str()) {
            (Some(text), Some(from), Some(to)) => {
                replace(text.to_owned(), from.to_owned(), to.to_owned()).map(Value::from)
            }
            _ => Err(Error::new(ErrorKind::InvalidOperation, "`replace` takes two texts")),
        },
        ("capitalize", ValueKind::String, []) => Ok(python::capitalize(value.as_str().unwrap_or_default()).into()),
        ("join", ValueKind::String, [items]) => join(items.clone(), value.as_str().map(str::to_owned)).map(Value::from),
        ("replace" | "join", ..) => Err(Error::new(
            ErrorKind::InvalidOperation,
            format!("`{method}` takes other arguments"),
        )),
        _ => minijinja_contrib::pycompat::unknown_method_callback(state, value, method, args),
    }
}
