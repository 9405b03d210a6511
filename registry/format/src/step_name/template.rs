//! Names that the grammar doesn't know, read by a text of the user's.

use std::fmt;
use std::str::FromStr;

use super::amount::{Amount, Unit};
use super::{StepName, last_part};
use crate::error::shown;

/// The longest template.
const MAX_BYTES: usize = 256;

/// The longest name that one reads: an object's key has no more.
const MAX_NAME_BYTES: usize = 1024;

/// How names are read: text with `{step}`, `{tokens}` and `*`, each of the first two once at most.
///
/// `{step}` is a whole number, with `k` or `m` perhaps; `{tokens}` a number with its unit: `k`, `m`, `b`, `bt` or `t`,
/// in upper or lower case. Both take all digits that stand there. `*` is any text, as little of it as can be, and right
/// behind a number it begins with no letter. Other text is as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepTemplate {
    text: String,
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Any,
    Step,
    Tokens,
}

impl FromStr for StepTemplate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > MAX_BYTES {
            let n_bytes = text.len();
            return Err(format!(
                "a template has {n_bytes} bytes, {MAX_BYTES} at most: shorten it"
            ));
        }
        let refused = |why: &str| Err(format!("template `{}` {why}", shown(text)));
        let mut parts = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let (part, behind) = match rest.find(['{', '}', '*']) {
                Some(0) if rest.starts_with('*') => (Part::Any, &rest[1..]),
                Some(0) if rest.starts_with("{step}") => (Part::Step, &rest["{step}".len()..]),
                Some(0) if rest.starts_with("{tokens}") => (Part::Tokens, &rest["{tokens}".len()..]),
                Some(0) => return refused("has braces around something else: write `{step}` or `{tokens}`"),
                sign => {
                    let (words, behind) = rest.split_at(sign.unwrap_or(rest.len()));
                    (Part::Text(words.to_owned()), behind)
                }
            };
            if part != Part::Any || parts.last() != Some(&Part::Any) {
                parts.push(part);
            }
            rest = behind;
        }
        if let Some(why) = fault(&parts) {
            return refused(why);
        }
        Ok(Self {
            text: text.to_owned(),
            parts,
        })
    }
}

/// What makes a template read nothing, or not one thing.
fn fault(parts: &[Part]) -> Option<&'static str> {
    let n = |wanted: &Part| parts.iter().filter(|part| *part == wanted).count();
    let is_number = |part: &Part| matches!(part, Part::Step | Part::Tokens);
    if n(&Part::Step) + n(&Part::Tokens) == 0 {
        return Some("says neither step nor tokens: write `{step}` or `{tokens}` where they stand");
    }
    if n(&Part::Step) > 1 || n(&Part::Tokens) > 1 {
        return Some("says one thing twice: write `*` for the other");
    }
    let runs_on = |pair: &[Part]| match &pair[1] {
        Part::Text(text) => text.starts_with(|c: char| c.is_ascii_digit() || "kmbtKMBT".contains(c)),
        next => is_number(next),
    };
    let runs_on = parts.windows(2).any(|pair| is_number(&pair[0]) && runs_on(pair));
    runs_on.then_some("has a digit, a unit or another number right behind one: a number is read with its unit")
}

impl fmt::Display for StepTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

impl StepTemplate {
    /// Reads a name, or else its last part (behind the last `/`); `None` when the template fits neither.
    pub fn read(&self, name: &str) -> Option<StepName> {
        let name = name.trim_end_matches('/');
        [name, last_part(name)].into_iter().find_map(|name| self.read_all(name))
    }

    fn read_all(&self, name: &str) -> Option<StepName> {
        if name.len() > MAX_NAME_BYTES {
            return None;
        }
        let lower = name.to_ascii_lowercase();
        let mut reading = Reading {
            name,
            lower: &lower,
            parts: &self.parts,
            failed: vec![false; self.parts.len() * (name.len() + 1)],
        };
        reading.from(0, 0)
    }
}

/// One attempt at a name. What could not be read from some place on is not tried again, so that many `*` cost no more
/// than their number times the name.
struct Reading<'a> {
    name: &'a str,
    lower: &'a str,
    parts: &'a [Part],
    failed: Vec<bool>,
}

impl Reading<'_> {
    fn from(&mut self, part: usize, at: usize) -> Option<StepName> {
        let Some(next) = self.parts.get(part) else {
            return (at == self.name.len()).then(StepName::default);
        };
        let place = part * (self.name.len() + 1) + at;
        if self.failed[place] {
            return None;
        }
        let found = match next {
            Part::Text(text) => {
                let fits = self.name[at..].starts_with(text.as_str());
                fits.then(|| self.from(part + 1, at + text.len())).flatten()
            }
            Part::Any => self.behind_any(part, at),
            Part::Step | Part::Tokens => self.number(part, at),
        };
        self.failed[place] = found.is_none();
        found
    }

    /// The first end of `*` from which the rest fits. Where an earlier attempt at this `*` failed, every later end did.
    fn behind_any(&mut self, part: usize, at: usize) -> Option<StepName> {
        let name = self.name;
        let ends = (at..=name.len()).filter(|end| name.is_char_boundary(*end));
        for end in ends {
            let place = part * (name.len() + 1) + end;
            if self.failed[place] {
                return None;
            }
            if let Some(found) = self.from(part + 1, end) {
                return Some(found);
            }
            self.failed[place] = true;
        }
        None
    }

    fn number(&mut self, part: usize, at: usize) -> Option<StepName> {
        let (amount, end) = number_at(self.lower, at)?;
        let is_cut =
            self.parts.get(part + 1) == Some(&Part::Any) && self.name[end..].starts_with(char::is_alphanumeric);
        if is_cut {
            return None;
        }
        let is_step = self.parts[part] == Part::Step;
        let (step, tokens) = match is_step {
            true => {
                let is_count = matches!(amount.unit, Unit::One | Unit::Thousand | Unit::Million);
                (Some(amount.count().filter(|_| is_count)?), None)
            }
            false => (None, Some(amount.tokens()?)),
        };
        let rest = self.from(part + 1, end)?;
        Some(StepName {
            step: step.or(rest.step),
            tokens: tokens.or(rest.tokens),
            ..rest
        })
    }
}

/// The number at a place, all of it, with the unit that ends a word behind it; and where it ends.
fn number_at(text: &str, at: usize) -> Option<(Amount<'_>, usize)> {
    let bytes = text.as_bytes();
    let is_digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    let is_inside = at > 0 && (is_digit(at - 1) || at > 1 && bytes[at - 1] == b'.' && is_digit(at - 2));
    if !is_digit(at) || is_inside {
        return None;
    }
    let mut end = at;
    while is_digit(end) || bytes.get(end) == Some(&b'.') && is_digit(end + 1) {
        end += 1;
    }
    let letters = text[end..].find(|c: char| !c.is_alphanumeric());
    let with_unit = letters.map_or(text.len(), |n| end + n);
    let whole = Amount::of(&text[at..with_unit]).map(|amount| (amount, with_unit));
    whole.or_else(|| Some((Amount::of(&text[at..end])?, end)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(template: &str, name: &str) -> Option<(Option<u64>, Option<u64>)> {
        let template: StepTemplate = template.parse().unwrap();
        let read = template.read(name)?;
        Some((read.step, read.tokens.map(|rounded| rounded.tokens)))
    }

    #[test]
    fn a_template_reads_what_the_grammar_does_not() {
        let billion = |n: u64| Some(n * 1_000_000_000);
        for (template, name, expected) in [
            ("{step}", "5000", Some((Some(5000), None))),
            ("{step}", "5000/", Some((Some(5000), None))),
            ("{step}", "runs/a/5000/", Some((Some(5000), None))),
            ("run-{step}-*", "run-000500-of-9", Some((Some(500), None))),
            ("*-{tokens}", "Model-7B-100B", Some((None, billion(100)))),
            ("llama-{tokens}", "org/llama-8.39B", Some((None, Some(8_390_000_000)))),
            ("{tokens}_{step}", "10bt_50K", Some((Some(50_000), billion(10)))),
            ("*_{step}_*", "a_5_6_b", Some((Some(5), None))),
            ("at{step}x", "at12x", Some((Some(12), None))),
            // All digits or none, and nothing besides.
            ("{step}*", "500-hf", Some((Some(500), None))),
            ("{step}*", "500x", None),
            ("{tokens}*", "7b1", None),
            ("*{step}", "a500", Some((Some(500), None))),
            ("*{step}", "a1.500", None),
            ("{step}", "1.5", None),
            ("{step}", "7b", None),
            ("{step}", "-1", None),
            ("run-{step}", "run-5-b", None),
            ("run-{step}", "Run-5", None),
            ("{step}", "18446744073709551616", None),
        ] {
            assert_eq!(read(template, name), expected, "{template} on {name}");
        }
    }

    #[test]
    fn a_template_that_says_nothing_or_too_much_is_refused() {
        for (template, words) in [
            ("", "neither step nor tokens"),
            ("main*", "neither step nor tokens"),
            ("{step}-{step}", "twice"),
            ("{step}{tokens}", "right behind"),
            ("{tokens}B", "with its unit"),
            ("{step}000", "right behind"),
            ("{n}", "`{step}` or `{tokens}`"),
            ("{step", "braces"),
            ("step}", "braces"),
        ] {
            let error = template.parse::<StepTemplate>().unwrap_err();
            assert!(
                error.contains(words) && error.starts_with("template `"),
                "{template}: {error}"
            );
        }
        assert!("{step}*".repeat(100).parse::<StepTemplate>().is_err());
    }

    #[test]
    fn many_stars_cost_no_more_than_one() {
        let template: StepTemplate = format!("{}{{step}}", "*a".repeat(120)).parse().unwrap();
        assert_eq!(template.read(&"a".repeat(1000)), None);
        assert_eq!(template.read(&"a".repeat(5000)), None);
    }

    proptest! {
        #[test]
        fn no_template_and_no_name_panic(
            template in "[{}a*é.\\-]{0,4}\\{(step|tokens)\\}[a*é.\\-]{0,4}",
            name in "\\PC{0,40}",
        ) {
            if let Ok(template) = template.parse::<StepTemplate>() {
                template.read(&name);
            }
        }

        #[test]
        fn a_written_step_is_read_back(step: u64, before in "[a-z_\\-]{0,8}", behind in "(-[a-z0-9]{0,8})?") {
            let name = format!("{before}{step}{behind}");
            prop_assert_eq!(read(&format!("{before}{{step}}{behind}"), &name), Some((Some(step), None)));
        }
    }
}
