//! How what a model answers becomes what is scored.

use serde_json::Map;
use serde_yaml_ng::Value;

use super::OutputType;
use super::fields::{Fields, Res, json, refuse_functions, strings};

/// Named steps from what was generated to what is scored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterPipeline {
    /// Its name, which stands beside the metric's.
    pub name: String,
    /// The steps, in order.
    pub steps: Vec<Filter>,
}

/// A step of a pipeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filter {
    /// The first of several answers.
    TakeFirst,
    /// The first `k` of several answers.
    TakeFirstK(usize),
    /// The most frequent of several answers.
    MajorityVote,
    /// What a pattern finds.
    Regex(Extraction),
    /// What a pattern finds, else a choice's text, else a letter behind a colon.
    MultiChoiceRegex {
        /// The pattern.
        extraction: Extraction,
        /// Choices are compared in lower case.
        ignore_case: bool,
        /// Choices are compared without punctuation.
        ignore_punctuation: bool,
        /// Choices are compared without what matches these.
        regexes_to_ignore: Vec<String>,
    },
    /// Lower case.
    Lowercase,
    /// Upper case.
    Uppercase,
    /// Without white space around.
    RemoveWhitespace,
    /// By a table.
    Map {
        /// From text to value.
        mapping: Map<String, serde_json::Value>,
        /// What stands for a text that is not there.
        default: serde_json::Value,
    },
}

/// A pattern and what is taken of its matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extraction {
    /// Python's regular expression.
    pub pattern: String,
    /// Which match: from 0 on, or from the end with -1.
    pub group_select: i64,
    /// What stands where nothing matches.
    pub fallback: String,
}

/// The most pipelines of a task, and steps of a pipeline.
const MAX_FILTERS: usize = 32;

impl Fields {
    /// `filter_list`; what does not generate has numbers for answers, of which there is nothing to filter.
    pub(super) fn filters(&mut self, output: OutputType) -> Res<Vec<FilterPipeline>> {
        let list = match self.take("filter_list") {
            None => {
                return Ok(vec![FilterPipeline {
                    name: "none".to_owned(),
                    steps: vec![Filter::TakeFirst],
                }]);
            }
            Some(Value::Sequence(list)) if (1..=MAX_FILTERS).contains(&list.len()) => list,
            Some(_) => return Err(format!("`filter_list` must be a list of 1 to {MAX_FILTERS} pipelines")),
        };
        let mut pipelines: Vec<FilterPipeline> = Vec::new();
        for entry in &list {
            refuse_functions("filter_list", entry)?;
            let pipeline = FilterPipeline::read(entry)?;
            let name = &pipeline.name;
            if output != OutputType::GenerateUntil && pipeline.steps != [Filter::TakeFirst] {
                return Err(format!(
                    "filter `{name}` is for text: `take_first` alone may stand with this output type"
                ));
            }
            if pipelines.iter().any(|other| other.name == *name) {
                return Err(format!("filter `{name}` stands twice"));
            }
            pipelines.push(pipeline);
        }
        Ok(pipelines)
    }
}

impl FilterPipeline {
    fn read(entry: &Value) -> Res<Self> {
        let Value::Mapping(map) = entry else {
            return Err("an entry of `filter_list` is no mapping".to_owned());
        };
        let mut fields = Fields {
            fields: map.clone(),
            within: "filter_list.",
            task: String::new(),
        };
        let name = fields
            .text("name")?
            .filter(|name| (1..=128).contains(&name.len()) && !name.contains(char::is_control))
            .ok_or("an entry of `filter_list` needs a `name` of 1 to 128 bytes")?;
        let Some(Value::Sequence(steps)) = fields.take("filter") else {
            return Err(format!("filter `{name}` needs a list of functions under `filter`"));
        };
        if let Some(key) = fields.fields.keys().next() {
            let key = key.as_str().unwrap_or("?");
            return Err(format!("filter `{name}` has `{key}`, which is not understood"));
        }
        let steps: Vec<Filter> = steps.iter().map(Filter::read).collect::<Res<_>>()?;
        if steps.is_empty() || steps.len() > MAX_FILTERS {
            return Err(format!("filter `{name}` must have 1 to {MAX_FILTERS} functions"));
        }
        // Behind `take_first` lm-eval filters letter by letter, and without it a list is compared.
        if steps.iter().position(|step| *step == Filter::TakeFirst) != Some(steps.len() - 1) {
            return Err(format!("filter `{name}` must end with its only `take_first`"));
        }
        Ok(Self { name, steps })
    }
}

impl Filter {
    fn read(step: &Value) -> Res<Self> {
        let Value::Mapping(map) = step else {
            return Err("a step of a filter is no mapping".to_owned());
        };
        let mut fields = Fields {
            fields: map.clone(),
            within: "filter.",
            task: String::new(),
        };
        let function = fields.text("function")?.ok_or("a step of a filter has no `function`")?;
        let filter = match function.as_str() {
            "take_first" => Self::TakeFirst,
            "take_first_k" => match fields.number("k")? {
                Some(1) => Self::TakeFirstK(1),
                _ => {
                    return Err(
                        "filter function `take_first_k` needs `k: 1`: there is one answer a document".to_owned(),
                    );
                }
            },
            "majority_vote" => Self::MajorityVote,
            "lowercase" => Self::Lowercase,
            "uppercase" => Self::Uppercase,
            "remove_whitespace" => Self::RemoveWhitespace,
            "regex" => Self::Regex(Extraction::read(&mut fields)?),
            "multi_choice_regex" => Self::MultiChoiceRegex {
                extraction: Extraction::read(&mut fields)?,
                ignore_case: fields.flag("ignore_case")?,
                ignore_punctuation: fields.flag("ignore_punctuation")?,
                regexes_to_ignore: match fields.take("regexes_to_ignore") {
                    None => Vec::new(),
                    Some(list) => strings(&list)
                        .filter(|texts| texts.len() <= MAX_FILTERS)
                        .ok_or("`regexes_to_ignore` must be a list of texts")?,
                },
            },
            "map" => {
                let mapping = match fields.take("mapping_dict").as_ref().map(json) {
                    None => Map::new(),
                    Some(Some(serde_json::Value::Object(mapping))) => mapping,
                    Some(_) => return Err("`mapping_dict` of filter function `map` must map texts".to_owned()),
                };
                let default = fields.take("default_value").as_ref().map(json);
                let default = default.unwrap_or(Some(serde_json::Value::Null));
                Self::Map {
                    mapping,
                    default: default.ok_or("`default_value` of filter function `map` is not understood")?,
                }
            }
            other => {
                return Err(format!(
                    "filter function `{other}` is not supported: use take_first, take_first_k, majority_vote, regex, \
                     multi_choice_regex, lowercase, uppercase, remove_whitespace or map"
                ));
            }
        };
        match fields.fields.keys().next() {
            Some(key) => Err(format!(
                "filter function `{function}` has `{}`, which is not understood",
                key.as_str().unwrap_or("?")
            )),
            None => Ok(filter),
        }
    }
}

impl Extraction {
    fn read(fields: &mut Fields) -> Res<Self> {
        let group_select = match fields.take("group_select") {
            None => 0,
            Some(number) => number.as_i64().ok_or("`group_select` must be a whole number")?,
        };
        Ok(Self {
            pattern: fields
                .text("regex_pattern")?
                .unwrap_or_else(|| r"#### (\-?[0-9\.\,]+)".to_owned()),
            group_select,
            fallback: fields.text("fallback")?.unwrap_or_else(|| "[invalid]".to_owned()),
        })
    }
}

impl Fields {
    fn flag(&mut self, key: &str) -> Res<bool> {
        match self.take(key) {
            None => Ok(false),
            Some(value) => value.as_bool().ok_or_else(|| format!("`{key}` must be true or false")),
        }
    }
}
