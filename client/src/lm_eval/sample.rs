//! One line of a sample log, reduced to what two logs are compared by.

use fineline_format::Digest;
use serde_json::{Map, Value};

/// What a sample is found by in the other log: document and filter.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) doc_id: String,
    pub(super) doc_hash: String,
    pub(super) filter: String,
}

/// What a model said to a request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Said {
    /// The log-likelihood, and whether all tokens are the greedy ones, where that was asked.
    LogLikelihood(f64, Option<bool>),
    /// The digest of a text that it generated.
    Text(Digest),
}

/// A metric's value of a sample.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Measured {
    Number(f64),
    /// Two numbers: the right choice and the chosen one, or a log-likelihood and the units it is counted by.
    Pair(f64, f64),
}

impl Measured {
    /// Whether it can be a decision: right or wrong, or a choice.
    pub(super) fn may_decide(self) -> bool {
        let is_index = |value: f64| value >= 0.0 && value.fract() == 0.0;
        match self {
            Self::Number(value) => value == 0.0 || value == 1.0,
            Self::Pair(right, chosen) => is_index(right) && is_index(chosen),
        }
    }
}

/// A sample.
#[derive(Debug)]
pub(super) struct Sample {
    pub(super) arguments: Digest,
    pub(super) said: Vec<Said>,
    /// Characters and bytes of what is asked for by each request, without the delimiter.
    pub(super) lengths: Vec<(usize, usize)>,
    pub(super) metrics: Vec<(String, Measured)>,
}

/// Reads a line.
///
/// # Errors
/// Says what is missing of a sample.
pub(super) fn read(line: &Value) -> Result<(Key, Sample), String> {
    let line = line.as_object().ok_or("it is no JSON object")?;
    let doc_id = line.get("doc_id").ok_or("it has no `doc_id`: it is no sample log")?;
    let text = |name: &str| line.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let filter = match text("filter") {
        filter if filter.is_empty() => "none".to_owned(),
        filter => filter,
    };
    let key = Key {
        doc_id: plain(doc_id),
        doc_hash: text("doc_hash"),
        filter,
    };
    let arguments = arguments(line.get("arguments"));
    let generates = arguments
        .iter()
        .any(|request| request.get(1).is_some_and(Value::is_object));
    let sample = Sample {
        arguments: digest(&arguments),
        said: said(line.get("resps").ok_or("it has no `resps`")?, generates)?,
        lengths: arguments.iter().map(|request| length(request)).collect(),
        metrics: metrics(line)?,
    };
    Ok((key, sample))
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Each request's arguments: of `{"gen_args_0": {"arg_0": …}}`, or of lists as lm-eval wrote them at first.
fn arguments(value: Option<&Value>) -> Vec<Vec<Value>> {
    let request = |value: &Value| in_order(value).into_iter().cloned().collect();
    value.map_or_else(Vec::new, |value| in_order(value).into_iter().map(request).collect())
}

/// The members by the number that ends their name, or the items.
fn in_order(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(items) => items.iter().collect(),
        Value::Object(members) => {
            let number = |name: &String| name.rsplit('_').next().and_then(|number| number.parse::<u64>().ok());
            let mut members: Vec<_> = members.iter().collect();
            members.sort_by_key(|(name, _)| (number(name), *name));
            members.into_iter().map(|(_, value)| value).collect()
        }
        other => vec![other],
    }
}

fn digest(arguments: &[Vec<Value>]) -> Digest {
    let sorted: Vec<Vec<Value>> = arguments
        .iter()
        .map(|request| request.iter().map(sorted).collect())
        .collect();
    Digest::of(&serde_json::to_vec(&sorted).expect("values are JSON"))
}

/// With the members of every object by name: their order says nothing.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().map(sorted).collect(),
        Value::Object(members) => {
            let mut members: Vec<_> = members
                .iter()
                .map(|(name, value)| (name.clone(), sorted(value)))
                .collect();
            members.sort_by(|(a, _), (b, _)| a.cmp(b));
            Value::Object(members.into_iter().collect())
        }
        other => other.clone(),
    }
}

fn length(request: &[Value]) -> (usize, usize) {
    let continuation = request.get(1).and_then(Value::as_str).unwrap_or_default();
    let choice = continuation.strip_prefix(' ').unwrap_or(continuation);
    (choice.chars().count(), choice.len())
}

/// `[[[ll, greedy]], …]`, `[[ll], …]` or `[[text], …]`; numbers and flags may be texts, as lm-eval writes them.
fn said(resps: &Value, generates: bool) -> Result<Vec<Said>, String> {
    let of_requests = resps.as_array().ok_or("its `resps` are no list")?;
    let mut said = Vec::with_capacity(of_requests.len());
    for of_request in of_requests {
        for response in of_request.as_array().ok_or("a response in its `resps` is no list")? {
            said.push(match response {
                Value::Array(pair) => {
                    let log_likelihood = pair.first().and_then(number);
                    let log_likelihood = log_likelihood.ok_or("a log-likelihood in its `resps` is no number")?;
                    Said::LogLikelihood(log_likelihood, pair.get(1).and_then(flag))
                }
                other => match number(other).filter(|_| !generates) {
                    Some(log_likelihood) => Said::LogLikelihood(log_likelihood, None),
                    None => Said::Text(Digest::of(plain(other).as_bytes())),
                },
            });
        }
    }
    Ok(said)
}

fn metrics(line: &Map<String, Value>) -> Result<Vec<(String, Measured)>, String> {
    let names = match line.get("metrics") {
        Some(names) => names.as_array().ok_or("its `metrics` are no list")?.as_slice(),
        None => &[],
    };
    let mut metrics = Vec::with_capacity(names.len());
    for name in names {
        let name = name.as_str().ok_or("a name in its `metrics` is no text")?;
        let value = line
            .get(name)
            .ok_or_else(|| format!("it has no `{name}`, which its `metrics` name"))?;
        let measured = match value {
            Value::Array(pair) if pair.len() == 2 => number(&pair[0])
                .zip(number(&pair[1]))
                .map(|(a, b)| Measured::Pair(a, b)),
            other => number(other)
                .or_else(|| flag(other).map(f64::from))
                .map(Measured::Number),
        };
        // What is neither (bleu's texts) is compared by what the model said.
        metrics.extend(measured.map(|measured| (name.to_owned(), measured)));
    }
    Ok(metrics)
}

/// A number, also as the text that Python makes of one.
pub(super) fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
}

fn flag(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(flag) => Some(*flag),
        Value::String(text) if text == "True" => Some(true),
        Value::String(text) if text == "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn our_form_and_lm_evals_are_one() {
        let ours = json!({"doc_id": 3, "doc_hash": "h", "filter": "none", "metrics": ["acc"], "acc": true,
            "arguments": {"gen_args_0": {"arg_0": "q", "arg_1": " é"}}, "resps": [[[-1.5, true]]]});
        let theirs = json!({"doc_id": 3, "doc_hash": "h", "filter": "none", "metrics": ["acc"], "acc": 1.0,
            "arguments": [["q", " é"]], "resps": [[["-1.5", "True"]]]});
        let ((a_key, a), (b_key, b)) = (read(&ours).unwrap(), read(&theirs).unwrap());
        assert_eq!(a_key, b_key);
        assert_eq!((a.arguments, &a.said, &a.metrics), (b.arguments, &b.said, &b.metrics));
        assert_eq!(a.lengths, [(1, 2)]);
    }

    #[test]
    fn a_generated_number_is_a_text() {
        let line = |arguments: Value| json!({"doc_id": 0, "arguments": arguments, "resps": [["18"]]});
        let generated = read(&line(json!({"gen_args_0": {"arg_0": "q", "arg_1": {"until": []}}}))).unwrap();
        assert_eq!(generated.1.said, [Said::Text(Digest::of(b"18"))]);
        let rolling = read(&line(json!({"gen_args_0": {"arg_0": "q"}}))).unwrap();
        assert_eq!(rolling.1.said, [Said::LogLikelihood(18.0, None)]);
    }

    #[test]
    fn requests_are_in_the_order_of_their_numbers() {
        let members = json!({"gen_args_10": 10, "gen_args_2": 2});
        assert_eq!(in_order(&members), [&json!(2), &json!(10)]);
    }

    #[test]
    fn what_is_no_sample_is_told() {
        for (line, told) in [
            (json!([]), "no JSON object"),
            (json!({"a": 1}), "`doc_id`"),
            (json!({"doc_id": 0}), "`resps`"),
            (json!({"doc_id": 0, "resps": [[["x", true]]]}), "log-likelihood"),
            (json!({"doc_id": 0, "resps": [], "metrics": ["acc"]}), "`acc`"),
        ] {
            let error = read(&line).unwrap_err();
            assert!(error.contains(told), "{line}: {error}");
        }
    }
}
