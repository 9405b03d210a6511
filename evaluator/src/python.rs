//! What lm-eval has from Python itself: how values are shown, literals read back, white space taken away.

use serde_json::{Map, Value};

/// How deep a literal may be nested.
const MAX_DEPTH: usize = 32;

/// Whether Python's `str` takes a character for white space.
pub(crate) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// `str.strip()`.
pub(crate) fn strip(text: &str) -> &str {
    text.trim_matches(is_space)
}

/// `str.rstrip()`.
pub(crate) fn strip_end(text: &str) -> &str {
    text.trim_end_matches(is_space)
}

/// `str.capitalize()`.
pub(crate) fn capitalize(text: &str) -> String {
    let Some(first) = text.chars().next() else {
        return String::new();
    };
    // Of the whole text: whether a sigma is a final one shows in what stands before it.
    let lower = text.to_lowercase();
    let n_first = first.to_lowercase().count();
    title(first) + &lower.chars().skip(n_first).collect::<String>()
}

/// A character in Unicode's title case, which is not upper case where a character stands for two letters, and not in Georgian.
fn title(c: char) -> String {
    let own = match c {
        '\u{1c4}'..='\u{1c6}' => Some('\u{1c5}'),
        '\u{1c7}'..='\u{1c9}' => Some('\u{1c8}'),
        '\u{1ca}'..='\u{1cc}' => Some('\u{1cb}'),
        '\u{1f1}'..='\u{1f3}' => Some('\u{1f2}'),
        '\u{10d0}'..='\u{10fa}' | '\u{10fd}'..='\u{10ff}' => Some(c),
        '\u{1f80}'..='\u{1faf}' => char::from_u32(u32::from(c) | 8),
        '\u{1fb3}' | '\u{1fbc}' => Some('\u{1fbc}'),
        '\u{1fc3}' | '\u{1fcc}' => Some('\u{1fcc}'),
        '\u{1ff3}' | '\u{1ffc}' => Some('\u{1ffc}'),
        _ => None,
    };
    if let Some(own) = own {
        return own.to_string();
    }
    let mut upper = c.to_uppercase();
    let first = upper.next().unwrap_or(c);
    // What follows a letter is small; what follows a mark is that letter; a Greek iota stays below.
    let rest = |next: char| match (first, next) {
        ('\u{2bc}', next) => next.to_string(),
        (_, '\u{399}') => '\u{345}'.to_string(),
        (_, next) => next.to_lowercase().collect(),
    };
    let rest: String = upper.map(rest).collect();
    format!("{first}{rest}")
}

/// `repr` of a float: the fewest digits that read back as the same, with an exponent below 1e-4 and from 1e16 on.
pub(crate) fn float(number: f64) -> String {
    if !number.is_finite() {
        return number.to_string().to_lowercase();
    }
    let scientific = format!("{number:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if number != 0.0 && !(-4..16).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{digits}e{sign}{:02}", exponent.abs());
    }
    format!("{number:?}")
}

/// `str(value)`.
pub(crate) fn str(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        _ => repr(value),
    }
}

/// `repr(value)`.
pub(crate) fn repr(value: &Value) -> String {
    let mut out = String::new();
    write_repr(&mut out, value);
    out
}

fn write_repr(out: &mut String, value: &Value) {
    match value {
        Value::Null => out.push_str("None"),
        Value::Bool(true) => out.push_str("True"),
        Value::Bool(false) => out.push_str("False"),
        Value::Number(number) => match number.as_f64().filter(|_| number.is_f64()) {
            Some(value) => out.push_str(&float(value)),
            None => out.push_str(&number.to_string()),
        },
        Value::String(text) => write_text(out, text),
        Value::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                out.push_str(if i > 0 { ", " } else { "" });
                write_repr(out, item);
            }
            out.push(']');
        }
        Value::Object(map) => {
            out.push('{');
            for (i, (key, item)) in map.iter().enumerate() {
                out.push_str(if i > 0 { ", " } else { "" });
                write_text(out, key);
                out.push_str(": ");
                write_repr(out, item);
            }
            out.push('}');
        }
    }
}

/// `repr` of a text: in single quotes, unless there are only such within.
pub(crate) fn write_text(out: &mut String, text: &str) {
    let quote = if text.contains('\'') && !text.contains('"') {
        '"'
    } else {
        '\''
    };
    out.push(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => {
                out.push('\\');
                out.push(c);
            }
            c if is_printable(c) => out.push(c),
            c if u32::from(c) < 0x100 => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c if u32::from(c) < 0x1_0000 => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push_str(&format!("\\U{:08x}", u32::from(c))),
        }
    }
    out.push(quote);
}

/// Whether `repr` shows a character as it is: all but controls, separators other than the space, and format characters.
fn is_printable(c: char) -> bool {
    let is_format = matches!(c, '\u{ad}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{200b}'..='\u{200f}'
        | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
        | '\u{e000}'..='\u{f8ff}' | '\u{e0001}'..='\u{e007f}' | '\u{f0000}'..='\u{10ffff}');
    c == ' ' || !(c.is_control() || c.is_whitespace() || is_format)
}

/// `ast.literal_eval`: texts, numbers, `True`, `False`, `None`, lists, tuples (as lists) and mappings of texts.
pub(crate) fn literal(text: &str) -> Option<Value> {
    let mut reader = Reader {
        rest: text.trim_matches([' ', '\t']),
    };
    let value = reader.value(MAX_DEPTH)?;
    reader.skip_space();
    reader.rest.is_empty().then_some(value)
}

struct Reader<'a> {
    rest: &'a str,
}

impl Reader<'_> {
    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r']);
    }

    fn take(&mut self, token: &str) -> bool {
        self.skip_space();
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn value(&mut self, depth: usize) -> Option<Value> {
        let depth = depth.checked_sub(1)?;
        self.skip_space();
        match self.rest.chars().next()? {
            '[' => self.list(']', depth),
            '(' => self.list(')', depth),
            '{' => self.mapping(depth),
            '"' | '\'' => {
                let mut text = self.text()?;
                // Literals side by side are one text.
                loop {
                    self.skip_space();
                    if !self.rest.starts_with(['"', '\'']) {
                        return Some(text.into());
                    }
                    text.push_str(&self.text()?);
                }
            }
            _ => {
                let end = self
                    .rest
                    .find([',', ']', ')', '}', ':', ' ', '\n'])
                    .unwrap_or(self.rest.len());
                let (word, rest) = self.rest.split_at(end);
                self.rest = rest;
                match word {
                    "True" => Some(true.into()),
                    "False" => Some(false.into()),
                    "None" => Some(Value::Null),
                    _ => serde_json::from_str::<serde_json::Number>(word).ok().map(Value::Number),
                }
            }
        }
    }

    fn list(&mut self, end: char, depth: usize) -> Option<Value> {
        self.rest = &self.rest[1..];
        let (mut items, mut has_comma) = (Vec::new(), false);
        loop {
            if self.take(end.encode_utf8(&mut [0; 4])) {
                // One value in parentheses without a comma is that value.
                if end == ')' && items.len() == 1 && !has_comma {
                    return items.pop();
                }
                return Some(items.into());
            }
            if !items.is_empty() && !has_comma {
                return None;
            }
            items.push(self.value(depth)?);
            has_comma = self.take(",");
        }
    }

    fn mapping(&mut self, depth: usize) -> Option<Value> {
        self.rest = &self.rest[1..];
        let (mut map, mut has_comma) = (Map::new(), true);
        loop {
            if self.take("}") {
                return Some(map.into());
            }
            if !has_comma {
                return None;
            }
            let Value::String(key) = self.value(depth)? else {
                return None;
            };
            if !self.take(":") {
                return None;
            }
            map.insert(key, self.value(depth)?);
            has_comma = self.take(",");
        }
    }

    /// A text in single, double or three quotes.
    fn text(&mut self) -> Option<String> {
        let quote = if self.rest.starts_with("'''") || self.rest.starts_with("\"\"\"") {
            &self.rest[..3]
        } else {
            &self.rest[..1]
        };
        let is_long = quote.len() == 3;
        let mut rest = &self.rest[quote.len()..];
        let mut text = String::new();
        loop {
            if let Some(after) = rest.strip_prefix(quote) {
                self.rest = after;
                return Some(text);
            }
            let c = rest.chars().next()?;
            rest = &rest[c.len_utf8()..];
            match c {
                '\n' if !is_long => return None,
                '\\' => {
                    let escaped = rest.chars().next()?;
                    rest = &rest[escaped.len_utf8()..];
                    let n_digits = match escaped {
                        '\n' => continue,
                        'n' => '\n'.into(),
                        'r' => '\r'.into(),
                        't' => '\t'.into(),
                        'a' => '\u{7}'.into(),
                        'b' => '\u{8}'.into(),
                        'f' => '\u{c}'.into(),
                        'v' => '\u{b}'.into(),
                        '\\' | '\'' | '"' => escaped.into(),
                        'x' => Escape::Digits(2),
                        'u' => Escape::Digits(4),
                        'U' => Escape::Digits(8),
                        // Octal and named characters are not worth their code here.
                        '0'..='7' | 'N' => return None,
                        other => {
                            text.push('\\');
                            other.into()
                        }
                    };
                    match n_digits {
                        Escape::Char(c) => text.push(c),
                        Escape::Digits(n) => {
                            let digits = rest.get(..n)?;
                            rest = &rest[n..];
                            text.push(char::from_u32(u32::from_str_radix(digits, 16).ok()?)?);
                        }
                    }
                }
                c => text.push(c),
            }
        }
    }
}

enum Escape {
    Char(char),
    Digits(usize),
}

impl From<char> for Escape {
    fn from(c: char) -> Self {
        Self::Char(c)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn texts_are_shown_as_python_shows_them() {
        // repr(…) in Python 3.11.
        for (text, shown) in [
            ("a'b", "\"a'b\""),
            ("a\"b", "'a\"b'"),
            ("a'b\"c", "'a\\'b\"c'"),
            ("a\\b\n\t\r", "'a\\\\b\\n\\t\\r'"),
            (
                "\u{0}\u{7f}\u{a0}\u{200b}\u{2028}é\u{1f600}",
                "'\\x00\\x7f\\xa0\\u200b\\u2028é\u{1f600}'",
            ),
            ("", "''"),
        ] {
            assert_eq!(repr(&json!(text)), shown);
            assert_eq!(literal(shown), Some(json!(text)), "{shown}");
        }
        assert_eq!(
            str(&json!({"a": [1, 2.5, true, null, "x"]})),
            "{'a': [1, 2.5, True, None, 'x']}"
        );
        assert_eq!(str(&json!("x")), "x");
    }

    #[test]
    fn floats_are_shown_as_python_shows_them() {
        // repr(…) in Python 3.11.
        for (number, shown) in [
            (1e-5, "1e-05"),
            (1.25e-7, "1.25e-07"),
            (0.0001, "0.0001"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (-2.5e22, "-2.5e+22"),
            (1e100, "1e+100"),
            (0.1, "0.1"),
            (-0.0, "-0.0"),
            (123_456_789.125, "123456789.125"),
            (5e-324, "5e-324"),
        ] {
            assert_eq!(float(number), shown);
            assert_eq!(repr(&json!([number])), format!("[{shown}]"));
        }
    }

    #[test]
    fn a_text_is_capitalized_as_python_does_it() {
        // "…".capitalize() in Python 3.11.
        for (text, capital) in [
            ("hELLO wORLD", "Hello world"),
            ("ßa", "Ssa"),
            ("ﬁN", "Fin"),
            ("ǆA", "ǅa"),
            ("ŉA", "ʼNa"),
            ("აბ", "აბ"),
            ("ᾳa", "ᾼa"),
            ("éA", "Éa"),
            ("ΑΣ", "Ας"),
            ("İA", "İa"),
            ("", ""),
        ] {
            assert_eq!(capitalize(text), capital);
        }
    }

    #[test]
    fn literals_are_read_back() {
        for (text, value) in [
            ("['a', \"b\"]", json!(["a", "b"])),
            ("('a', 'b',)", json!(["a", "b"])),
            ("('a')", json!("a")),
            ("['''x\ny''' 'z', '\\u00e9\\x41']", json!(["x\nyz", "éA"])),
            ("[{'q': [1, -2.5]}, None, True]", json!([{"q": [1, -2.5]}, null, true])),
            ("[]", json!([])),
        ] {
            assert_eq!(literal(text), Some(value), "{text}");
        }
        for bad in ["[a]", "['a' ", "['a'] x", "[,]", "['a',,'b']", "f('x')", "'a\nb'", ""] {
            assert_eq!(literal(bad), None, "{bad}");
        }
        assert_eq!(literal(&"[".repeat(10_000)), None);
    }
}
