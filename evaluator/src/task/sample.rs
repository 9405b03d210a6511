//! The per-sample log, a JSON object a line, in lm-eval's fields.

use anyhow::Result;
use fineline_format::Digest;
use fineline_format::task::{Metric, OutputType, TaskFile};
use serde_json::{Map, Value, json};

use super::Sample;
use super::outcome::Item;
use crate::engine::Answer;

/// The order in which lm-eval works metrics out, whatever the task's own: it logs them in this one.
const LOGGED: &[Metric] = &[
    Metric::Perplexity,
    Metric::Acc,
    Metric::F1,
    Metric::Mcc,
    Metric::AccNorm,
    Metric::AccBytes,
    Metric::ExactMatch,
    Metric::AccMutualInfo,
    Metric::WordPerplexity,
    Metric::BytePerplexity,
    Metric::BitsPerByte,
    Metric::LikelihoodDiff,
    Metric::PctStereotype,
];

/// What a model said of a sample.
#[derive(Debug, Clone, Copy)]
pub(super) enum Said<'a> {
    /// Log-likelihoods of its requests.
    Answers(&'a [Answer]),
    /// A text, and what a filter made of it.
    Text(&'a str, &'a str),
}

/// Writes the line of a sample under a filter.
pub(super) fn write(
    out: &mut Vec<u8>,
    file: &TaskFile,
    filter: &str,
    doc_id: usize,
    sample: &Sample,
    said: Said<'_>,
    items: &[Item],
) -> Result<()> {
    let rolling = file.output_type == OutputType::LoglikelihoodRolling;
    let argument = |(context, continuation): &(String, String)| match &file.generating {
        Some(generating) => json!({ "arg_0": context, "arg_1": generating.kwargs }),
        None if rolling => json!({ "arg_0": context }),
        None => json!({ "arg_0": context, "arg_1": continuation }),
    };
    let arguments: Map<String, Value> = sample
        .requests
        .iter()
        .enumerate()
        .map(|(i, request)| (format!("gen_args_{i}"), argument(request)))
        .collect();
    let response = |answer: &Answer| match rolling {
        true => json!(answer.log_likelihood),
        false => json!([answer.log_likelihood, answer.is_greedy]),
    };
    let (responses, filtered): (Vec<Value>, Vec<Value>) = match said {
        Said::Answers(answers) => {
            let responses: Vec<Value> = answers.iter().map(response).collect();
            (responses.clone(), responses)
        }
        Said::Text(text, filtered) => (vec![json!(text)], vec![json!(filtered)]),
    };
    let target = &sample.logged_target;
    // lm-eval hashes Python's json.dumps(doc, indent=2, ensure_ascii=False), which serde_json's pretty form equals.
    let doc_hash = Digest::of(serde_json::to_string_pretty(&sample.doc)?.as_bytes()).to_hex();
    let mut line = Map::new();
    line.insert("doc_id".to_owned(), json!(doc_id));
    line.insert("doc".to_owned(), sample.doc.clone());
    line.insert("target".to_owned(), json!(target));
    line.insert("arguments".to_owned(), Value::Object(arguments));
    line.insert(
        "resps".to_owned(),
        responses.into_iter().map(|response| json!([response])).collect(),
    );
    line.insert("filtered_resps".to_owned(), Value::Array(filtered));
    line.insert("filter".to_owned(), json!(filter));
    let mut metrics: Vec<(Metric, &Item)> = file.metrics.iter().copied().zip(items).collect();
    metrics.sort_by_key(|(metric, _)| LOGGED.iter().position(|logged| logged == metric));
    let names: Vec<&str> = metrics.iter().map(|(metric, _)| metric.as_str()).collect();
    line.insert("metrics".to_owned(), json!(names));
    line.insert("doc_hash".to_owned(), json!(doc_hash));
    line.insert(
        "prompt_hash".to_owned(),
        json!(Digest::of(sample.requests[0].0.as_bytes()).to_hex()),
    );
    line.insert("target_hash".to_owned(), json!(Digest::of(target.as_bytes()).to_hex()));
    for (metric, item) in metrics {
        line.insert(metric.as_str().to_owned(), item.logged());
    }
    serde_json::to_writer(&mut *out, &line)?;
    out.push(b'\n');
    Ok(())
}
