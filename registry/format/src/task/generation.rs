//! How a task that generates asks for its text.

use serde_json::Map;
use serde_yaml_ng::Value;

use super::OutputType;
use super::fields::{Fields, Res, json};

/// Tokens that lm-eval generates at most where a task does not say.
const DEFAULT_MAX_TOKENS: usize = 256;

/// The most that a task may ask for.
const MAX_TOKENS: usize = 32_768;

/// The most texts that may end a generation.
const MAX_UNTIL: usize = 64;

/// What a task asks of greedy generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generating {
    /// `generation_kwargs` with lm-eval's defaults, as it logs them.
    pub kwargs: Map<String, serde_json::Value>,
    /// Texts that end it.
    pub until: Vec<String>,
    /// Tokens at most.
    pub max_tokens: usize,
}

impl Fields {
    /// `generation_kwargs`; any other output type has no use for them.
    pub(super) fn generating(&mut self, output: OutputType, fewshot_delimiter: &str) -> Res<Option<Generating>> {
        let given = self.take("generation_kwargs");
        if output != OutputType::GenerateUntil {
            return Ok(None);
        }
        let mut kwargs = Map::new();
        match given {
            None => {
                kwargs.insert("temperature".to_owned(), 0.0.into());
                kwargs.insert("do_sample".to_owned(), false.into());
                kwargs.insert("max_gen_toks".to_owned(), DEFAULT_MAX_TOKENS.into());
            }
            Some(Value::Mapping(given)) => {
                for (key, value) in &given {
                    let key = key.as_str().ok_or("a key of `generation_kwargs` is no text")?;
                    let value = json(value).ok_or_else(|| format!("`generation_kwargs.{key}` is not understood"))?;
                    kwargs.insert(key.to_owned(), value);
                }
            }
            Some(_) => return Err("`generation_kwargs` is no mapping".to_owned()),
        }
        if let Some(temperature) = kwargs.get_mut("temperature") {
            let number = temperature
                .as_f64()
                .ok_or("`generation_kwargs.temperature` is no number")?;
            *temperature = number.into();
        }
        kwargs
            .entry("until")
            .or_insert_with(|| vec![fewshot_delimiter.to_owned()].into());
        Generating::new(kwargs).map(Some)
    }
}

impl Generating {
    fn new(kwargs: Map<String, serde_json::Value>) -> Res<Self> {
        let (mut until, mut max_tokens) = (None, None);
        let samples = kwargs.get("do_sample").and_then(serde_json::Value::as_bool);
        for (key, value) in &kwargs {
            match key.as_str() {
                "until" => {
                    let texts = match value {
                        serde_json::Value::String(text) => Some(vec![text.clone()]),
                        serde_json::Value::Null => Some(Vec::new()),
                        serde_json::Value::Array(list) => {
                            list.iter().map(|text| text.as_str().map(str::to_owned)).collect()
                        }
                        _ => None,
                    };
                    let texts = texts.filter(|texts| texts.len() <= MAX_UNTIL);
                    until = Some(texts.ok_or_else(|| {
                        format!("`generation_kwargs.until` must be a text or a list of at most {MAX_UNTIL} texts")
                    })?);
                }
                "max_gen_toks" | "max_new_tokens" | "max_tokens" => {
                    let number = value.as_u64().and_then(|number| usize::try_from(number).ok());
                    let number = number.filter(|number| (1..=MAX_TOKENS).contains(number));
                    let number = number
                        .ok_or_else(|| format!("`generation_kwargs.{key}` must be a number from 1 to {MAX_TOKENS}"))?;
                    if max_tokens.replace(number).is_some() {
                        return Err("`generation_kwargs` says twice how many tokens".to_owned());
                    }
                }
                "do_sample" if *value == false => {}
                "do_sample" => {
                    return Err(
                        "`generation_kwargs.do_sample` asks for sampling: only greedy text is generated, \
                                so it may only be false"
                            .to_owned(),
                    );
                }
                "temperature" if value.as_f64() == Some(0.0) || samples == Some(false) => {}
                "temperature" => {
                    return Err(
                        "`generation_kwargs.temperature` asks for sampling: only greedy text is generated, \
                                so it may only be 0"
                            .to_owned(),
                    );
                }
                _ => return Err(format!("`generation_kwargs.{key}` is not understood: take it away")),
            }
        }
        Ok(Self {
            kwargs,
            until: until.unwrap_or_default(),
            max_tokens: max_tokens.unwrap_or(DEFAULT_MAX_TOKENS),
        })
    }
}
