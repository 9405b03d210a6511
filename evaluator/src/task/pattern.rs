//! Python's regular expressions, as far as tasks use them: translated, and run with bounds.
//!
//! Where Python differs: `$` also stands before a last line break, `\s` also takes the four information separators, a
//! brace that counts nothing is a brace, and inside of a class every character but `\`, `]` and `-` is itself.
//!
//! **Invariant:** a pattern has at most [`MAX_PATTERN_BYTES`], a text that it is run on at most [`MAX_SEARCHED_BYTES`], and
//! a search gives up, in words, after a bounded number of steps back.

use anyhow::{Context, Result, anyhow, bail, ensure};
use fancy_regex::{Regex, RegexBuilder};

const MAX_PATTERN_BYTES: usize = 4 << 10;

/// The longest text that is searched: more than a model generates.
const MAX_SEARCHED_BYTES: usize = 256 << 10;

/// Steps back of one search.
const MAX_BACKTRACKS: usize = 1_000_000;

/// Bytes of the automata of one pattern.
const MAX_COMPILED_BYTES: usize = 4 << 20;

/// A compiled pattern.
#[derive(Debug, Clone)]
pub(crate) struct Pattern {
    regex: Regex,
    n_groups: usize,
}

impl Pattern {
    /// Compiles a pattern.
    ///
    /// # Errors
    /// Names the pattern and what is wrong with it.
    pub(crate) fn new(python: &str) -> Result<Self> {
        ensure!(
            python.len() <= MAX_PATTERN_BYTES,
            "a pattern has {} bytes, {MAX_PATTERN_BYTES} are the most",
            python.len()
        );
        let shown: String = python.chars().take(200).collect();
        let translated = translate(python).with_context(|| format!("pattern `{shown}`"))?;
        let regex = RegexBuilder::new(&translated)
            .backtrack_limit(MAX_BACKTRACKS)
            .delegate_size_limit(MAX_COMPILED_BYTES)
            .build()
            .map_err(|error| anyhow!("pattern `{shown}` can't be used: {error}"))?;
        let n_groups = regex.captures_len() - 1;
        Ok(Self { regex, n_groups })
    }

    /// Every character of Unicode's punctuation.
    pub(crate) fn punctuation() -> Result<Self> {
        let regex = Regex::new(r"\p{P}").context("the pattern of punctuation")?;
        Ok(Self { regex, n_groups: 0 })
    }

    /// `re.findall`: of each match the whole where there is no group, else its groups.
    ///
    /// # Errors
    /// When the search takes too much.
    pub(crate) fn find_all<'t>(&self, text: &'t str) -> Result<Vec<Vec<&'t str>>> {
        let mut found = Vec::new();
        self.each(text, |captures| {
            let groups = if self.n_groups == 0 { 0..=0 } else { 1..=self.n_groups };
            let of = |group: usize| captures.get(group).map_or("", |group| group.as_str());
            found.push(groups.map(of).collect());
        })?;
        Ok(found)
    }

    /// `re.sub(pattern, "", text)`.
    ///
    /// # Errors
    /// As [`Pattern::find_all`].
    pub(crate) fn remove(&self, text: &str) -> Result<String> {
        let (mut kept, mut end) = (String::new(), 0);
        self.each(text, |captures| {
            if let Some(whole) = captures.get(0) {
                kept.push_str(&text[end..whole.start()]);
                end = whole.end();
            }
        })?;
        kept.push_str(&text[end..]);
        Ok(kept)
    }

    /// Every match from left to right; behind an empty one the search goes on a character later.
    fn each<'t>(&self, text: &'t str, mut take: impl FnMut(&fancy_regex::Captures<'t>)) -> Result<()> {
        ensure!(
            text.len() <= MAX_SEARCHED_BYTES,
            "a text of {} bytes is too long for a pattern: {MAX_SEARCHED_BYTES} are the most",
            text.len()
        );
        let mut at = 0;
        while at <= text.len() {
            let captures = self.regex.captures_from_pos(text, at);
            let captures = captures.map_err(|error| anyhow!("pattern `{}` takes too much: {error}", self.regex))?;
            let Some(captures) = captures else {
                return Ok(());
            };
            let whole = captures.get(0).context("a match without its whole")?;
            let next = text[whole.end()..].chars().next();
            at = match (whole.start() == whole.end(), next) {
                (true, Some(c)) => whole.end() + c.len_utf8(),
                (true, None) => text.len() + 1,
                (false, _) => whole.end(),
            };
            take(&captures);
        }
        Ok(())
    }
}

/// A text as a pattern that matches it alone: Python's `re.escape`, translated.
pub(crate) fn escaped(text: &str) -> String {
    let mut out = String::new();
    text.chars().for_each(|c| push_literal(&mut out, c));
    out
}

/// Python's pattern in the language of the crate.
fn translate(python: &str) -> Result<String> {
    let mut out = String::new();
    let mut rest = python;
    let is_multi_line = has_flag(python, 'm');
    ensure!(!has_flag(python, 'x'), "verbose patterns (`(?x)`) are not supported");
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        match c {
            '\\' => rest = escape(&mut out, rest)?,
            '[' => rest = class(&mut out, rest)?,
            '$' if is_multi_line => out.push_str(r"(?=\n|\z)"),
            '$' => out.push_str(r"(?=\n?\z)"),
            '{' => match repetition(rest) {
                Some((counted, after)) if !out.is_empty() => {
                    out.push_str(&counted);
                    rest = after;
                }
                _ => out.push_str(r"\{"),
            },
            '}' => out.push_str(r"\}"),
            c => out.push(c),
        }
    }
    Ok(out)
}

/// Whether a pattern sets a flag, as in `(?im)`.
fn has_flag(python: &str, flag: char) -> bool {
    python.split("(?").skip(1).any(|after| {
        let flags = after.split([')', ':', '-']).next().unwrap_or_default();
        flags.chars().all(|c| "aiLmsux".contains(c)) && flags.contains(flag)
    })
}

/// `2}`, `2,}`, `,3}` or `2,3}` behind a brace, as it is to be written, and what follows.
fn repetition(rest: &str) -> Option<(String, &str)> {
    let (inside, after) = rest.split_once('}')?;
    let (least, most) = match inside.split_once(',') {
        Some((least, most)) => (least, Some(most)),
        None => (inside, None),
    };
    let is_number = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if !is_number(least) || !most.is_none_or(is_number) || inside.is_empty() {
        return None;
    }
    let least = if least.is_empty() { "0" } else { least };
    let counted = match most {
        Some(most) => format!("{{{least},{most}}}"),
        None => format!("{{{least}}}"),
    };
    Some((counted, after))
}

/// What follows a backslash outside of a class.
fn escape<'a>(out: &mut String, rest: &'a str) -> Result<&'a str> {
    let c = rest.chars().next().context("it ends with a backslash")?;
    let after = &rest[c.len_utf8()..];
    match c {
        'Z' => out.push_str(r"\z"),
        's' => out.push_str(r"[\s\x1c-\x1f]"),
        'S' => out.push_str(r"[^\s\x1c-\x1f]"),
        'A' | 'b' | 'B' | 'd' | 'D' | 'w' | 'W' | '1'..='9' => {
            out.push('\\');
            out.push(c);
        }
        _ => {
            let (literal, after) = character(c, after)?;
            push_literal(out, literal);
            return Ok(after);
        }
    }
    Ok(after)
}

/// The one character that an escape stands for.
fn character(c: char, after: &str) -> Result<(char, &str)> {
    let digits = |n: usize| -> Result<(char, &str)> {
        let code = after.get(..n).and_then(|digits| u32::from_str_radix(digits, 16).ok());
        let c = code.and_then(char::from_u32).context("an escape is no character")?;
        Ok((c, &after[n..]))
    };
    Ok(match c {
        'n' => ('\n', after),
        'r' => ('\r', after),
        't' => ('\t', after),
        'a' => ('\u{7}', after),
        'f' => ('\u{c}', after),
        'v' => ('\u{b}', after),
        '0' => ('\0', after),
        'x' => digits(2)?,
        'u' => digits(4)?,
        'U' => digits(8)?,
        c if c.is_ascii_alphanumeric() => bail!("`\\{c}` is not understood"),
        c => (c, after),
    })
}

fn push_literal(out: &mut String, c: char) {
    if c.is_ascii() && !c.is_ascii_alphanumeric() {
        out.push_str(&format!(r"\x{:02x}", u32::from(c)));
    } else {
        out.push(c);
    }
}

/// A class, up to and with its bracket.
fn class<'a>(out: &mut String, mut rest: &'a str) -> Result<&'a str> {
    out.push('[');
    if let Some(after) = rest.strip_prefix('^') {
        out.push('^');
        rest = after;
    }
    let mut is_first = true;
    loop {
        let (item, after) = class_item(rest, is_first)?;
        is_first = false;
        let Some(item) = item else {
            out.push(']');
            return Ok(after);
        };
        let ClassItem::Char(from) = item else {
            if let ClassItem::Class(class) = item {
                out.push_str(class);
            }
            rest = after;
            continue;
        };
        push_literal(out, from);
        rest = after;
        // A range, unless the dash is the last of the class or stands before a class.
        let Some(behind) = after.strip_prefix('-').filter(|behind| !behind.starts_with(']')) else {
            continue;
        };
        if let (Some(ClassItem::Char(to)), after) = class_item(behind, true)? {
            ensure!(from <= to, "a range of a class goes down");
            out.push('-');
            push_literal(out, to);
            rest = after;
        }
    }
}

enum ClassItem {
    Char(char),
    Class(&'static str),
}

/// The next of a class; nothing at its bracket, which is itself where it stands first.
fn class_item(rest: &str, is_first: bool) -> Result<(Option<ClassItem>, &str)> {
    let c = rest.chars().next().context("a class has no end")?;
    let after = &rest[c.len_utf8()..];
    if c == ']' && !is_first {
        return Ok((None, after));
    }
    if c != '\\' {
        return Ok((Some(ClassItem::Char(c)), after));
    }
    let escaped = after.chars().next().context("it ends with a backslash")?;
    let behind = &after[escaped.len_utf8()..];
    let class = match escaped {
        'd' => r"\d",
        'D' => r"\D",
        'w' => r"\w",
        'W' => r"\W",
        's' => r"\s\x1c-\x1f",
        'S' => r"[^\s\x1c-\x1f]",
        'b' => return Ok((Some(ClassItem::Char('\u{8}')), behind)),
        _ => {
            let (c, behind) = character(escaped, behind)?;
            return Ok((Some(ClassItem::Char(c)), behind));
        }
    };
    Ok((Some(ClassItem::Class(class)), behind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_found_is_what_python_finds() {
        // re.findall(pattern, text) in Python 3.11.
        let cases: &[(&str, &str, &[&[&str]])] = &[
            (
                r"#### (\-?[0-9\.\,]+)",
                "so 3\n#### -1,000. x #### 7",
                &[&["-1,000."], &["7"]],
            ),
            (
                r"(-?[$0-9.,]{2,})|(-?[0-9]+)",
                "I paid $12.50 for 3",
                &[&["$12.50", ""], &["", "3"]],
            ),
            (r"\.$", "a.b.\n", &[&["."]]),
            (r"\.\Z", "a.b.\n", &[]),
            (r"(?m)^\w+$", "ab\ncd\n", &[&["ab"], &["cd"]]),
            (r"[][a-]", "a-[]b", &[&["a"], &["-"], &["["], &["]"]]),
            (r"[\w.-]+", "a.b-c d", &[&["a.b-c"], &["d"]]),
            (r"{\s*([^}]*?)\s*}", "{ a b } {c}", &[&["a b"], &["c"]]),
            (r"a{,2}b", "aab b", &[&["aab"], &["b"]]),
            (r"a{1,x}", "a{1,x}", &[&["a{1,x}"]]),
            (r"\s", "a\u{1d}b\u{a0}", &[&["\u{1d}"], &["\u{a0}"]]),
            (r"(?i)ANSWER: *([A-D])", "answer:  c", &[&["c"]]),
            (
                r"\b(?:The |the |An |A |The |a |an )",
                "The cat and a dog",
                &[&["The "], &["a "]],
            ),
            (r"(?<=x)\d|\<", "x1 2 <", &[&["1"], &["<"]]),
            (r"(a)\1", "aa", &[&["a"]]),
            (r"[&&~~]", "&~", &[&["&"], &["~"]]),
            (r"q*", "xq", &[&[""], &["q"], &[""]]),
        ];
        for (pattern, text, expected) in cases {
            let found = Pattern::new(pattern).unwrap().find_all(text).unwrap();
            assert_eq!(found, *expected, "{pattern} on {text:?}");
        }
    }

    #[test]
    fn what_matches_is_removed() {
        let removed = |pattern: &str, text: &str| Pattern::new(pattern).unwrap().remove(text).unwrap();
        assert_eq!(removed(r"(?s).*#### ", "a\n#### b #### 18"), "18");
        assert_eq!(removed(",", "1,000,000"), "1000000");
        assert_eq!(removed(r"\$", "$5"), "5");
        assert_eq!(removed("q*", "aqqb"), "ab");
    }

    #[test]
    fn a_pattern_that_is_wrong_or_takes_too_much_is_refused() {
        let refused = |pattern: &str| format!("{:#}", Pattern::new(pattern).unwrap_err());
        for (pattern, expected) in [
            ("(", "pattern `(`"),
            (r"\p", r"`\p` is not understood"),
            ("[a", "a class has no end"),
            ("(?x) a", "verbose"),
            (r"\w{1000}{1000}", "can't be used"),
        ] {
            assert!(refused(pattern).contains(expected), "{}", refused(pattern));
        }
        assert!(refused(&"a".repeat(5000)).contains("4096 are the most"));
        let slow = Pattern::new(r"(?=(a+)+$)b").unwrap();
        assert!(
            slow.find_all(&"a".repeat(5000)).is_ok_and(|found| found.is_empty())
                || slow.find_all(&"a".repeat(5000)).is_err()
        );
        let long = Pattern::new("a").unwrap().find_all(&"a".repeat(300_000)).unwrap_err();
        assert!(long.to_string().contains("too long"), "{long}");
    }
}
