//! From what a model wrote to what is scored, by a task's pipelines. There is one answer a document, so a pipeline's list
//! of answers is one text.

use anyhow::{Context, Result};
use fineline_format::task::{Extraction, Filter, FilterPipeline};
use serde_json::{Map, Value};

use super::pattern::{Pattern, escaped};
use crate::python;

/// A pipeline whose patterns are compiled.
#[derive(Debug)]
pub(super) struct Pipeline {
    pub(super) name: String,
    steps: Vec<Step>,
}

#[derive(Debug)]
enum Step {
    /// Takes what is there: one of one.
    Same,
    Regex(Found),
    Choice(ChoiceFilter),
    Lowercase,
    Uppercase,
    Strip,
    Map(Map<String, Value>, Value),
}

#[derive(Debug)]
struct Found {
    pattern: Pattern,
    group_select: i64,
    fallback: String,
}

#[derive(Debug)]
struct ChoiceFilter {
    found: Found,
    ignored: Vec<Pattern>,
    ignore_case: bool,
    punctuation: Option<Pattern>,
}

impl Pipeline {
    /// Compiles a pipeline.
    ///
    /// # Errors
    /// Names the pipeline and the pattern that is wrong.
    pub(super) fn new(pipeline: &FilterPipeline) -> Result<Self> {
        let name = pipeline.name.clone();
        let steps = pipeline.steps.iter().map(Step::new).collect::<Result<_>>();
        let steps = steps.with_context(|| format!("filter `{name}`"))?;
        Ok(Self { name, steps })
    }

    /// What of an answer is scored.
    ///
    /// # Errors
    /// When a pattern takes too much, or the document has not what a step needs.
    pub(super) fn apply(&self, answer: &str, doc: &Value) -> Result<String> {
        let mut text = answer.to_owned();
        for step in &self.steps {
            text = step
                .apply(&text, doc)
                .with_context(|| format!("filter `{}`", self.name))?;
        }
        Ok(text)
    }
}

impl Step {
    fn new(filter: &Filter) -> Result<Self> {
        Ok(match filter {
            Filter::TakeFirst | Filter::TakeFirstK(_) | Filter::MajorityVote => Self::Same,
            Filter::Regex(extraction) => Self::Regex(Found::new(extraction)?),
            Filter::MultiChoiceRegex {
                extraction,
                ignore_case,
                ignore_punctuation,
                regexes_to_ignore,
            } => Self::Choice(ChoiceFilter {
                found: Found::new(extraction)?,
                ignored: regexes_to_ignore
                    .iter()
                    .map(|pattern| Pattern::new(pattern))
                    .collect::<Result<_>>()?,
                ignore_case: *ignore_case,
                punctuation: ignore_punctuation.then(Pattern::punctuation).transpose()?,
            }),
            Filter::Lowercase => Self::Lowercase,
            Filter::Uppercase => Self::Uppercase,
            Filter::RemoveWhitespace => Self::Strip,
            Filter::Map { mapping, default } => Self::Map(mapping.clone(), default.clone()),
        })
    }

    fn apply(&self, text: &str, doc: &Value) -> Result<String> {
        Ok(match self {
            Self::Same => text.to_owned(),
            Self::Regex(found) => match found.find(&found.pattern, text)? {
                Some(found) => found.to_owned(),
                None => found.fallback.clone(),
            },
            Self::Choice(choice) => choice.apply(text, doc)?,
            Self::Lowercase => text.to_lowercase(),
            Self::Uppercase => text.to_uppercase(),
            Self::Strip => python::strip(text).to_owned(),
            Self::Map(mapping, default) => python::str(mapping.get(text).unwrap_or(default)),
        })
    }
}

impl Found {
    fn new(extraction: &Extraction) -> Result<Self> {
        Ok(Self {
            pattern: Pattern::new(&extraction.pattern)?,
            group_select: extraction.group_select,
            fallback: extraction.fallback.clone(),
        })
    }

    /// The first group that is not empty of the selected match of a pattern, without white space around; nothing where
    /// there is no such match.
    fn find<'t>(&self, pattern: &Pattern, text: &'t str) -> Result<Option<&'t str>> {
        let found = pattern.find_all(text)?;
        let n = i64::try_from(found.len())?;
        let index = if self.group_select < 0 {
            n + self.group_select
        } else {
            self.group_select
        };
        let selected = usize::try_from(index).ok().and_then(|index| found.get(index));
        Ok(match selected.map(Vec::as_slice) {
            None => None,
            Some([only]) => Some(python::strip(only)),
            Some(groups) => groups
                .iter()
                .copied()
                .find(|group| !group.is_empty())
                .map(python::strip),
        })
    }
}

impl ChoiceFilter {
    /// The pattern, else the text of a choice, else a letter behind a colon; a choice is `(A)`, `(B)` and so on.
    fn apply(&self, text: &str, doc: &Value) -> Result<String> {
        if let Some(found) = self.find(&self.found.pattern, text)? {
            return Ok(found.to_owned());
        }
        let choices = doc["choices"]
            .as_array()
            .context("`multi_choice_regex` needs a list `choices`")?;
        let letters: Vec<String> = ('A'..='Z').take(choices.len()).map(String::from).collect();
        let mut texts = Vec::new();
        for choice in choices {
            texts.push(self.cleaned(python::strip(
                choice.as_str().context("one of its `choices` is no text")?,
            ))?);
        }
        let any: Vec<String> = texts.iter().map(|text| escaped(text)).collect();
        let by_text = Pattern::new(&any.join("|"))?;
        if let Some(found) = self.find(&by_text, &self.cleaned(text)?)? {
            let at = texts.iter().rposition(|text| text == found);
            return Ok(match at.and_then(|at| letters.get(at)) {
                Some(letter) => format!("({letter})"),
                None => found.to_owned(),
            });
        }
        let by_letter = Pattern::new(&format!(r":[\s]*({})", letters.join("|")))?;
        Ok(match self.find(&by_letter, text)? {
            Some(letter) => format!("({letter})"),
            None => self.found.fallback.clone(),
        })
    }

    fn find<'t>(&self, pattern: &Pattern, text: &'t str) -> Result<Option<&'t str>> {
        Ok(self.found.find(pattern, text)?.filter(|found| !found.is_empty()))
    }

    fn cleaned(&self, text: &str) -> Result<String> {
        let mut text = text.to_owned();
        for pattern in &self.ignored {
            text = pattern.remove(&text)?;
        }
        if self.ignore_case {
            text = text.to_lowercase();
        }
        match &self.punctuation {
            Some(punctuation) => punctuation.remove(&text),
            None => Ok(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn filtered(steps: Vec<Filter>, text: &str, doc: &Value) -> String {
        let pipeline = FilterPipeline {
            name: "f".to_owned(),
            steps,
        };
        Pipeline::new(&pipeline).unwrap().apply(text, doc).unwrap()
    }

    fn extraction(pattern: &str, group_select: i64) -> Extraction {
        Extraction {
            pattern: pattern.to_owned(),
            group_select,
            fallback: "[invalid]".to_owned(),
        }
    }

    #[test]
    fn gsm8k_finds_its_answers() {
        let strict = |text: &str| {
            let regex = Filter::Regex(extraction(r"#### (\-?[0-9\.\,]+)", 0));
            filtered(vec![regex, Filter::TakeFirst], text, &Value::Null)
        };
        let flexible = |text: &str| {
            let regex = Filter::Regex(extraction(r"(-?[$0-9.,]{2,})|(-?[0-9]+)", -1));
            filtered(vec![regex, Filter::TakeFirst], text, &Value::Null)
        };
        let answer = "So 3 * 4 = 12.\n#### 1,200\n\nAnd 5";
        assert_eq!((strict(answer).as_str(), flexible(answer).as_str()), ("1,200", "5"));
        assert_eq!(flexible("it costs $18.50"), "$18.50");
        assert_eq!(
            (strict("none"), flexible("none")),
            ("[invalid]".to_owned(), "[invalid]".to_owned())
        );
    }

    #[test]
    fn the_other_filters_are_lm_evals() {
        let steps = vec![Filter::RemoveWhitespace, Filter::Lowercase, Filter::TakeFirst];
        assert_eq!(filtered(steps, " \n Yes\u{1d}", &Value::Null), "yes");
        assert_eq!(filtered(vec![Filter::Uppercase], "straße", &Value::Null), "STRASSE");
        let mapping: Map<String, Value> = [("a".to_owned(), json!(1))].into_iter().collect();
        let map = |text: &str| {
            let filter = Filter::Map {
                mapping: mapping.clone(),
                default: Value::Null,
            };
            filtered(vec![filter], text, &Value::Null)
        };
        assert_eq!((map("a"), map("b")), ("1".to_owned(), "None".to_owned()));
    }

    #[test]
    fn a_choice_is_found_by_pattern_text_or_letter() {
        let doc = json!({"choices": ["a cat.", "a dog"]});
        let choice = |text: &str| {
            let filter = Filter::MultiChoiceRegex {
                extraction: extraction(r"(\([A-Z]\))", 0),
                ignore_case: true,
                ignore_punctuation: true,
                regexes_to_ignore: vec!["the ".to_owned()],
            };
            filtered(vec![filter], text, &doc)
        };
        assert_eq!(choice("I say (B)"), "(B)");
        assert_eq!(choice("It is A CAT, of course"), "(A)");
        assert_eq!(choice("Answer: B"), "(B)");
        assert_eq!(choice("who knows"), "[invalid]");
    }
}
