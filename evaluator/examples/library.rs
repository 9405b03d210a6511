//! What tasks of the library ask and make of answers, for a comparison with lm-eval: `library DATA OUT NAME [SHOTS [LIMIT]]`.
//! OUT becomes a folder with `samples_TASK.jsonl` and `results.json`, scores and groups. The answers follow from a hash of
//! what is asked, as those of `tests/full/library/fake.py` do.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use fineline_client::{DataSource, LoadedSuite, SuiteOptions};
use fineline_evaluator::engine::{Answer, Description, Engine, Generation, Progress};
use fineline_evaluator::task::{Overrides, PreparedTask};
use fineline_format::Digest;
use fineline_format::suite::EvalDtype;
use serde_json::json;

/// Knows nothing and says always the same.
struct Fake;

/// A number from 0 to 1 of a text.
fn chance(parts: &[&str]) -> f64 {
    let digest = Digest::of(parts.join("\0").as_bytes()).to_string();
    let hex = digest.split(':').next_back().unwrap_or_default();
    u64::from_str_radix(&hex[..12], 16).unwrap_or_default() as f64 / (1u64 << 48) as f64
}

fn n_chars(text: &str) -> f64 {
    text.chars().count() as f64
}

impl Engine for Fake {
    fn loglikelihood(&mut self, requests: &[(String, String)], _: Progress<'_>) -> Result<Vec<Answer>> {
        let answer = |(context, continuation): &(String, String)| Answer {
            log_likelihood: -0.5 - chance(&["ll", context, continuation]) * n_chars(continuation) / 3.0,
            is_greedy: chance(&["greedy", context, continuation]) < 0.3,
        };
        Ok(requests.iter().map(answer).collect())
    }

    fn loglikelihood_rolling(&mut self, documents: &[String], _: Progress<'_>) -> Result<Vec<f64>> {
        Ok(documents
            .iter()
            .map(|document| -chance(&["rolling", document]) * n_chars(document))
            .collect())
    }

    fn generate_until(&mut self, requests: &[Generation], _: Progress<'_>) -> Result<Vec<String>> {
        let said = |request: &Generation| {
            let prompt = request.prompt.as_str();
            let numbers: Vec<&str> = prompt
                .split(|c: char| !c.is_ascii_digit())
                .filter(|part| !part.is_empty())
                .collect();
            let words: Vec<&str> = prompt.split(' ').filter(|word| !word.is_empty()).collect();
            let pick = |name: &str, n: usize| (chance(&[name, prompt]) * n as f64) as usize;
            let number = numbers.get(pick("number", numbers.len())).unwrap_or(&"7");
            match pick("kind", 6) {
                0 => format!("Let me see.\n#### {number}."),
                1 => format!("the answer is ${number},000.50"),
                2 => format!(" {} ", words.get(pick("word", words.len())).unwrap_or(&"none")),
                3 => "December 1972".to_owned(),
                4 => format!("#### -{number}, or {number}"),
                _ => "none at all".to_owned(),
            }
        };
        Ok(requests.iter().map(said).collect())
    }

    fn describe(&self) -> Description {
        Description {
            max_length: 1,
            bos_policy: "none".to_owned(),
            dtype: EvalDtype::Float32,
            computed_in: EvalDtype::Float32,
            n_parameters: 0,
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [data, out, name, rest @ ..] = arguments.as_slice() else {
        anyhow::bail!("library DATA OUT NAME [SHOTS [LIMIT]]");
    };
    let number = |at: usize| {
        rest.get(at)
            .filter(|text| *text != "-")
            .map(|text| text.parse::<u32>())
            .transpose()
    };
    let options = SuiteOptions {
        data: Some(DataSource::Local(data.into())),
        num_fewshot: number(0)?,
        limit: number(1)?.map(u64::from),
        ..SuiteOptions::default()
    };
    let suite = LoadedSuite::load(Path::new(name), &options).await?;
    let out = PathBuf::from(out);
    std::fs::create_dir_all(&out)?;
    let read = |digest| suite.blob(digest).context("a file of the suite is not there");
    let mut scores = serde_json::Map::new();
    for task in &suite.definition().tasks {
        let yaml = std::str::from_utf8(read(task.yaml.digest)?)?;
        let mut files: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
        for (split, blobs) in &task.data {
            let bytes = blobs.iter().map(|blob| Ok(read(blob.digest)?.to_vec()));
            files.insert(split.clone(), bytes.collect::<Result<_>>()?);
        }
        let overrides = Overrides {
            limit: suite.definition().limit,
            num_fewshot: suite.definition().num_fewshot,
        };
        let prepared = PreparedTask::new(yaml, &files, overrides)?;
        let result = prepared.run(&mut Fake, &mut |_| Ok(()))?;
        std::fs::write(out.join(format!("samples_{}.jsonl", task.task)), &result.samples_jsonl)?;
        let requests = prepared.n_requests();
        scores.insert(
            task.task.clone(),
            json!({ "n_requests": requests, "scores": result.scores }),
        );
    }
    let results = json!({ "tasks": scores, "groups": suite.definition().groups });
    std::fs::write(out.join("results.json"), results.to_string())?;
    Ok(())
}
