//! An engine of known numbers, and what every engine must do.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use fineline_evaluator::engine::{Answer, Description, Done, Engine, Generation, Progress};
use fineline_evaluator::worker::LoadEngine;
use fineline_format::suite::EvalDtype;

/// Says of every continuation the same log-probability a byte, so that the shortest choice is the likeliest.
#[derive(Debug)]
pub struct FakeEngine;

/// Loads it for every model.
pub fn load_fake() -> LoadEngine {
    Arc::new(|_: &Path, _| Ok(Box::new(FakeEngine)))
}

/// Natural log-probability of a byte.
const PER_BYTE: f64 = -0.5;

fn done(n_requests: usize) -> Done {
    Done {
        n_requests: n_requests as u64,
        n_tokens: 0,
    }
}

impl Engine for FakeEngine {
    fn loglikelihood(&mut self, requests: &[(String, String)], progress: Progress<'_>) -> Result<Vec<Answer>> {
        let answer = |(_, continuation): &(String, String)| Answer {
            log_likelihood: PER_BYTE * continuation.len() as f64,
            is_greedy: continuation.is_empty(),
        };
        progress(done(requests.len()))?;
        Ok(requests.iter().map(answer).collect())
    }

    fn loglikelihood_rolling(&mut self, documents: &[String], progress: Progress<'_>) -> Result<Vec<f64>> {
        progress(done(documents.len()))?;
        Ok(documents
            .iter()
            .map(|document| PER_BYTE * document.len() as f64)
            .collect())
    }

    fn generate_until(&mut self, requests: &[Generation], progress: Progress<'_>) -> Result<Vec<String>> {
        progress(done(requests.len()))?;
        let last_word = |request: &Generation| request.prompt.split(' ').next_back().unwrap_or_default().to_owned();
        Ok(requests.iter().map(last_word).collect())
    }

    fn describe(&self) -> Description {
        Description {
            max_length: 64,
            bos_policy: "none".to_owned(),
            dtype: EvalDtype::Float32,
            computed_in: EvalDtype::Float32,
            n_parameters: 0,
        }
    }
}

/// What every engine must do, whatever computes it: an answer a request in their order, none above certainty, a longer
/// continuation never likelier than its beginning, the same again for the same, and progress up to the end.
pub fn engine_suite(engine: &mut dyn Engine) {
    let pair = |context: &str, continuation: &str| (context.to_owned(), continuation.to_owned());
    let requests = [
        pair("Once upon a time", " there was"),
        pair("Once upon a time", " there was a little girl"),
        pair("", "Once"),
        pair("Once upon a time", " there was"),
    ];
    let mut done = Vec::new();
    let mut tell = |said: Done| {
        done.push(said.n_requests);
        Ok(())
    };
    let answers = engine.loglikelihood(&requests, &mut tell).expect("answers");
    assert_eq!(answers.len(), requests.len());
    assert!(
        answers
            .iter()
            .all(|answer| answer.log_likelihood.is_finite() && answer.log_likelihood < 0.0)
    );
    assert!(answers[1].log_likelihood < answers[0].log_likelihood);
    assert_eq!(answers[0], answers[3]);
    assert!(
        done.is_sorted() && done.last() == Some(&(requests.len() as u64)),
        "{done:?}"
    );
    assert!(
        engine
            .loglikelihood(&[], &mut |_| Ok(()))
            .expect("no answers")
            .is_empty()
    );
    let stopped = engine.loglikelihood(&requests, &mut |_| anyhow::bail!("nobody wants it"));
    assert_eq!(stopped.expect_err("it stops").to_string(), "nobody wants it");

    let long = "Once upon a time there was a little girl. ".repeat(40);
    let documents = ["Once upon a time.".to_owned(), long];
    let mut sums = || engine.loglikelihood_rolling(&documents, &mut |_| Ok(())).expect("sums");
    let first = sums();
    assert!(first.len() == 2 && first[1] < first[0] && first[0] < 0.0, "{first:?}");
    assert_eq!(first, sums());
    assert!(engine.describe().max_length > 0);
}
