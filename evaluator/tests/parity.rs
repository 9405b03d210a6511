//! lm-eval's own numbers on real models: log-likelihood and greedy flag of every logged response of a few tasks.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking and says why it skips"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::Device;
use fineline_evaluator::candle::engine::CandleEngine;
use fineline_evaluator::engine::{Engine, EngineOptions, Generation};
use fineline_evaluator::task::{Overrides, PreparedTask};
use fineline_format::task::TaskFile;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::Value;

/// Samples of a task that are compared here; the acceptance script compares all.
const N_SAMPLES: u64 = 12;

fn data() -> Option<PathBuf> {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    if data.join("run").is_dir() {
        return Some(data);
    }
    println!("skipped: evaluator/parity: there is no ../shared/data beside the clone");
    None
}

fn prepare(yaml_path: &Path, limit: u64, num_fewshot: Option<u32>) -> PreparedTask {
    let yaml = std::fs::read_to_string(yaml_path).unwrap();
    // The references were generated with fewer tokens than the task asks for.
    let yaml = yaml.replace("  temperature: 0.0\n", "  temperature: 0.0\n  max_gen_toks: 64\n");
    let read = |path: &String| std::fs::read(yaml_path.parent().unwrap().join(path)).unwrap();
    let files = TaskFile::parse(&yaml).unwrap().data_files;
    let data: BTreeMap<_, _> = files
        .iter()
        .map(|(split, paths)| (split.clone(), paths.iter().map(read).collect()))
        .collect();
    PreparedTask::new(
        &yaml,
        &data,
        Overrides {
            limit: Some(limit),
            num_fewshot,
        },
    )
    .unwrap()
}

fn lines(bytes: &[u8]) -> Vec<Value> {
    std::str::from_utf8(bytes)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn number(value: &Value) -> f64 {
    value
        .as_f64()
        .unwrap_or_else(|| value.as_str().unwrap().parse().unwrap())
}

/// (log-likelihood, greedy flag where there is one) of each response.
fn responses(sample: &Value) -> Vec<(f64, Option<bool>)> {
    let response = |response: &Value| match &response[0] {
        Value::Array(pair) => {
            let greedy = pair[1].as_bool().unwrap_or_else(|| pair[1] == "True");
            (number(&pair[0]), Some(greedy))
        }
        value => (number(value), None),
    };
    sample["resps"].as_array().unwrap().iter().map(response).collect()
}

#[test]
fn log_likelihoods_and_requests_are_lm_evals() {
    let Some(data) = data() else { return };
    let models = [
        (
            "models/stories260K",
            "stories260K",
            &["mmlu_anatomy", "val_rolling", "arc_easy", "boolq", "copa", "winogrande"][..],
        ),
        (
            "run/step-003000",
            "run-step-003000",
            &[
                "lambada",
                "blimp_anaphor_gender_agreement",
                "piqa",
                "openbookqa",
                "hellaswag",
            ][..],
        ),
    ];
    for (model, reference, tasks) in models {
        let mut engine = CandleEngine::load(&data.join(model), &Device::Cpu, EngineOptions::default()).unwrap();
        for task in tasks {
            let shots = (*task == "mmlu_anatomy").then_some(5);
            let prepared = prepare(&data.join(format!("lm_eval/tasks/{task}.yaml")), N_SAMPLES, shots);
            let result = prepared.run(&mut engine, &mut |_| Ok(())).unwrap();
            let log = data.join(format!(
                "lm_eval/reference/{reference}/samples_{}.jsonl",
                prepared.name()
            ));
            let theirs = lines(&std::fs::read(log).unwrap());
            let ours = lines(&result.samples_jsonl);
            assert_eq!(ours.len() as u64, N_SAMPLES);
            for (ours, theirs) in ours.iter().zip(&theirs) {
                assert_eq!(ours["arguments"], theirs["arguments"], "{task}");
                for hash in ["doc_hash", "prompt_hash", "target_hash"] {
                    assert_eq!(ours[hash], theirs[hash], "{task} {hash}");
                }
                for ((ll, greedy), (their_ll, their_greedy)) in responses(ours).into_iter().zip(responses(theirs)) {
                    assert!(
                        (ll - their_ll).abs() <= 1e-4 + 1e-4 * their_ll.abs(),
                        "{task}: {ll} against {their_ll}"
                    );
                    assert_eq!(greedy, their_greedy, "{task}");
                }
            }
        }
    }
}

#[test]
fn generated_texts_are_lm_evals() {
    let Some(data) = data() else { return };
    for (model, reference) in [
        ("models/stories260K", "stories260K"),
        ("run/step-003000", "run-step-003000"),
    ] {
        let mut engine = CandleEngine::load(&data.join(model), &Device::Cpu, EngineOptions::default()).unwrap();
        let prepared = prepare(&data.join("lm_eval/tasks/gsm8k.yaml"), N_SAMPLES, None);
        let result = prepared.run(&mut engine, &mut |_| Ok(())).unwrap();
        let log = data.join(format!("lm_eval/reference/{reference}/samples_local_gsm8k.jsonl"));
        let theirs = lines(&std::fs::read(log).unwrap());
        // Every document stands there under each of the two filters.
        let ours = lines(&result.samples_jsonl);
        assert_eq!(ours.len() as u64, 2 * N_SAMPLES);
        for ours in &ours {
            let theirs = theirs.iter().find(|sample| {
                let same = |field: &str| sample[field] == ours[field];
                same("doc_id") && same("filter")
            });
            for field in ["arguments", "resps", "filtered_resps", "exact_match"] {
                assert_eq!(ours[field], theirs.unwrap()[field], "{model} {}", ours["doc_id"]);
            }
        }
    }
}

/// How an engine may be made to work.
#[derive(Debug, Clone)]
struct Way {
    max_batch_tokens: usize,
    max_kept_bytes: usize,
    n_threads: usize,
    n_a_call: usize,
    by_tables: bool,
}

/// Texts of every kind: choices that share their context, documents that share five shots, one-token answers, whole texts.
struct Texts {
    pairs: Vec<(String, String)>,
    documents: Vec<String>,
    generations: Vec<Generation>,
}

fn texts(data: &Path) -> Texts {
    let tasks = data.join("lm_eval/tasks");
    let of = |task: &str, limit, shots| prepare(&tasks.join(format!("{task}.yaml")), limit, shots);
    let mut pairs: Vec<(String, String)> = Vec::new();
    for (task, limit, shots) in [("arc_easy", 12, None), ("mmlu_anatomy", 4, Some(5)), ("boolq", 3, None)] {
        pairs.extend(of(task, limit, shots).requests().cloned());
    }
    // One that is there twice, one that is all continuation, one that begins as another does.
    pairs.push(pairs[0].clone());
    pairs.push((String::new(), pairs[1].1.clone()));
    let longer = format!("{} and more", pairs[2].1);
    pairs.push((pairs[2].0.clone(), longer));
    let documents = lines(&std::fs::read(data.join("run/val_docs.jsonl")).unwrap());
    let documents = documents
        .iter()
        .take(3)
        .map(|doc| doc["text"].as_str().unwrap().to_owned());
    let generation = |(prompt, _): &(String, String)| Generation {
        prompt: prompt.clone(),
        until: vec!["\n".to_owned()],
        max_tokens: 12,
    };
    Texts {
        generations: pairs.iter().step_by(9).map(generation).collect(),
        documents: documents.collect(),
        pairs,
    }
}

fn is_close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-5 + 1e-5 * b.abs()
}

#[test]
fn batches_orders_sharing_and_threads_change_nothing() {
    let Some(data) = data() else { return };
    let Texts {
        pairs,
        documents,
        generations,
    } = texts(&data);
    let engine = |max_batch_tokens, max_kept_bytes, by_tables| {
        let options = EngineOptions {
            max_batch_tokens,
            max_kept_bytes: Some(max_kept_bytes),
            by_tables,
            ..EngineOptions::default()
        };
        CandleEngine::load(&data.join("models/stories260K"), &Device::Cpu, options).unwrap()
    };
    // One request a call: nothing is shared, nothing is beside it.
    let mut lone = engine(1, 0, false);
    let (mut alone, mut whole, mut gone_on) = (Vec::new(), Vec::new(), Vec::new());
    for pair in &pairs {
        alone.extend(lone.loglikelihood(std::slice::from_ref(pair), &mut |_| Ok(())).unwrap());
    }
    for document in &documents {
        let one = std::slice::from_ref(document);
        whole.extend(lone.loglikelihood_rolling(one, &mut |_| Ok(())).unwrap());
    }
    for generation in &generations {
        let one = std::slice::from_ref(generation);
        gone_on.extend(lone.generate_until(one, &mut |_| Ok(())).unwrap());
    }
    let ways = (
        1..6000_usize,
        0..(4_usize << 20),
        1..5_usize,
        1..=pairs.len(),
        any::<bool>(),
    )
        .prop_map(
            |(max_batch_tokens, max_kept_bytes, n_threads, n_a_call, by_tables)| Way {
                max_batch_tokens,
                max_kept_bytes,
                n_threads,
                n_a_call,
                by_tables,
            },
        );
    let order = Just((0..pairs.len()).collect::<Vec<_>>()).prop_shuffle();
    let config = Config {
        cases: 12,
        failure_persistence: None,
        ..Config::default()
    };
    let ran = TestRunner::new(config).run(&(order, ways), |(order, way)| {
        let threads = rayon::ThreadPoolBuilder::new()
            .num_threads(way.n_threads)
            .build()
            .unwrap();
        threads.install(|| {
            let mut engine = engine(way.max_batch_tokens, way.max_kept_bytes, way.by_tables);
            for asked in order.chunks(way.n_a_call) {
                let requests: Vec<_> = asked.iter().map(|&i| pairs[i].clone()).collect();
                let answers = engine.loglikelihood(&requests, &mut |_| Ok(())).unwrap();
                for (answer, &i) in answers.iter().zip(asked) {
                    let (a, b) = (answer.log_likelihood, alone[i].log_likelihood);
                    prop_assert!(is_close(a, b), "request {}: {} against {}", i, a, b);
                    prop_assert_eq!(answer.is_greedy, alone[i].is_greedy);
                }
            }
            // The others in that order as well.
            let first = |n: usize| order.iter().copied().filter(|&i| i < n).collect::<Vec<_>>();
            let asked = first(documents.len());
            let requests: Vec<_> = asked.iter().map(|&i| documents[i].clone()).collect();
            let totals = engine.loglikelihood_rolling(&requests, &mut |_| Ok(())).unwrap();
            for (a, &i) in totals.iter().zip(&asked) {
                prop_assert!(is_close(*a, whole[i]), "document {}: {} against {}", i, a, whole[i]);
            }
            for asked in first(generations.len()).chunks(way.n_a_call) {
                let requests: Vec<_> = asked.iter().map(|&i| generations[i].clone()).collect();
                let texts = engine.generate_until(&requests, &mut |_| Ok(())).unwrap();
                for (text, &i) in texts.iter().zip(asked) {
                    prop_assert_eq!(text, &gone_on[i]);
                }
            }
            Ok(())
        })
    });
    ran.unwrap();
    // And beginnings were shared indeed.
    let mut together = engine(2048, 1 << 30, false);
    together.loglikelihood(&pairs, &mut |_| Ok(())).unwrap();
    let counts = together.counts();
    assert!(counts.n_computed * 4 < counts.n_asked * 3, "{counts:?}");
}
