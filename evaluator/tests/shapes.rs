//! LLaMA's shapes against transformers' logits, which `tests/full/checkpoints/shapes.py` wrote (and holds against transformers
//! again): rope scaling in both forms, grouped heads, own head widths, tied and untied, biases. Weights follow from their names.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use fineline_evaluator::candle::batch::Batch;
use fineline_evaluator::candle::engine::CandleEngine;
use fineline_evaluator::candle::llama::Llama;
use fineline_evaluator::config::Config;
use fineline_evaluator::engine::{Asked, Engine, EngineOptions, Generation, NotFinite, Unanswerable};
use fineline_evaluator::task::{Overrides, PreparedTask};
use fineline_evaluator::weights::Weights;
use serde_json::{Value, json};

/// Numbers in [-1/2, 1/2) that follow from a name: FNV-1a, then Knuth's MMIX generator.
fn numbers(name: &str, n: usize) -> Vec<f32> {
    let hash = |state: u64, byte: u8| (state ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    let mut state = name.bytes().fold(0xcbf2_9ce4_8422_2325, hash);
    let next = |_| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((state >> 40) as f64 / f64::from(1 << 24) - 0.5) as f32
    };
    (0..n).map(next).collect()
}

/// The weights of a shape by transformers' names.
fn weights(config: &Config) -> HashMap<String, Tensor> {
    let (h, m, d) = (config.hidden_size, config.intermediate_size, config.head_dim);
    let (q, kv) = (config.n_heads * d, config.n_kv_heads * d);
    let mut shapes = vec![
        ("model.embed_tokens.weight".to_owned(), vec![config.vocab_size, h]),
        ("model.norm.weight".to_owned(), vec![h]),
    ];
    if !config.tied {
        shapes.push(("lm_head.weight".to_owned(), vec![config.vocab_size, h]));
    }
    for i in 0..config.n_layers {
        for (name, shape) in [
            ("input_layernorm", vec![h]),
            ("post_attention_layernorm", vec![h]),
            ("self_attn.q_proj", vec![q, h]),
            ("self_attn.k_proj", vec![kv, h]),
            ("self_attn.v_proj", vec![kv, h]),
            ("self_attn.o_proj", vec![h, q]),
            ("mlp.gate_proj", vec![m, h]),
            ("mlp.up_proj", vec![m, h]),
            ("mlp.down_proj", vec![h, m]),
        ] {
            let has_bias = (name.starts_with("self_attn") && config.attention_bias)
                || (name.starts_with("mlp") && config.mlp_bias);
            if has_bias {
                shapes.push((format!("model.layers.{i}.{name}.bias"), vec![shape[0]]));
            }
            shapes.push((format!("model.layers.{i}.{name}.weight"), shape));
        }
    }
    let tensor = |(name, shape): (String, Vec<usize>)| {
        let mut values = numbers(&name, shape.iter().product());
        if shape.len() == 1 {
            values.iter_mut().for_each(|value| *value = 1.0 + 0.5 * *value);
        }
        (name, Tensor::from_vec(values, shape, &Device::Cpu).unwrap())
    };
    shapes.into_iter().map(tensor).collect()
}

/// What transformers says.
fn reference() -> Value {
    serde_json::from_str(include_str!("shapes.json")).unwrap()
}

fn config(shape: &Value) -> (Vec<u8>, Config) {
    let json = shape["config"].to_string().into_bytes();
    let config = Config::parse(&json).unwrap();
    (json, config)
}

fn save(dir: &Path, tensors: &HashMap<String, Tensor>) {
    candle_core::safetensors::save(tensors, dir.join("model.safetensors")).unwrap();
}

#[test]
fn logits_are_transformers() {
    let reference = reference();
    let ids: Vec<u32> = serde_json::from_value(reference["tokens"].clone()).unwrap();
    let positions: Vec<u32> = serde_json::from_value(reference["positions"].clone()).unwrap();
    for shape in reference["shapes"].as_array().unwrap() {
        let (_, config) = config(shape);
        let dir = tempfile::tempdir().unwrap();
        save(dir.path(), &weights(&config));
        let load = || {
            let weights = Weights::open(dir.path(), DType::F32, &Device::Cpu).unwrap();
            Llama::load(&config, weights, DType::F32, &Device::Cpu).unwrap()
        };
        let positions = Tensor::new(positions.as_slice(), &Device::Cpu).unwrap();
        let expected: Vec<Vec<f32>> = serde_json::from_value(shape["logits"].clone()).unwrap();
        for (way, model) in [("as the CPU does", load()), ("as a card does", load().by_tables())] {
            let mut cache = model.cache(0).unwrap();
            let hidden = model.forward(&Batch::of(&ids), &mut cache, &mut || Ok(())).unwrap();
            let logits = model.logits(&hidden.index_select(&positions, 0).unwrap()).unwrap();
            let logits: Vec<Vec<f32>> = logits.to_vec2().unwrap();
            assert_eq!(logits.len(), expected.len());
            for (ours, theirs) in logits.iter().flatten().zip(expected.iter().flatten()) {
                let allowed = 1e-4 + 1e-4 * theirs.abs();
                assert!(
                    (ours - theirs).abs() <= allowed,
                    "{} {way}: {ours} against {theirs}",
                    shape["name"]
                );
            }
        }
    }
}

/// A checkpoint of the reference's first shape, with the real tokenizer of four pieces that it needs to be an engine.
fn checkpoint(change: impl FnOnce(&mut HashMap<String, Tensor>, &mut Value)) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut shape = reference()["shapes"][0].take();
    let mut tensors = weights(&config(&shape).1);
    change(&mut tensors, &mut shape["config"]);
    save(dir.path(), &tensors);
    std::fs::write(dir.path().join("config.json"), shape["config"].to_string()).unwrap();
    let vocabulary = json!({"<unk>": 0, "<s>": 1, "</s>": 2, "a": 3, "b": 4});
    let model = json!({"type": "WordLevel", "vocab": vocabulary, "unk_token": "<unk>"});
    let tokenizer =
        json!({"version": "1.0", "model": model, "pre_tokenizer": {"type": "Whitespace"}, "added_tokens": []});
    std::fs::write(dir.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
    let special = json!({"bos_token": "<s>", "eos_token": "</s>"});
    std::fs::write(dir.path().join("tokenizer_config.json"), special.to_string()).unwrap();
    dir
}

fn load(dir: &tempfile::TempDir) -> anyhow::Result<CandleEngine> {
    CandleEngine::load(dir.path(), &Device::Cpu, EngineOptions::default())
}

#[test]
fn what_does_not_fit_together_is_refused_by_the_tensors_name() {
    let refused = |change: fn(&mut HashMap<String, Tensor>, &mut Value)| {
        let error = load(&checkpoint(change)).unwrap_err();
        format!("{error:#}")
    };
    for (words, said) in [
        (
            "tensor `model.layers.1.mlp.up_proj.weight` is missing: it should have shape [56, 48]",
            refused(|tensors, _| drop(tensors.remove("model.layers.1.mlp.up_proj.weight"))),
        ),
        (
            "tensor `model.norm.weight` has shape [3] and should have [48]",
            refused(|tensors, _| {
                let small = Tensor::zeros(3, DType::F32, &Device::Cpu).unwrap();
                tensors.insert("model.norm.weight".to_owned(), small);
            }),
        ),
        (
            "tensor `model.norm.weight` is I64: weights are F32, F16 or BF16",
            refused(|tensors, _| {
                let whole = Tensor::zeros(48, DType::I64, &Device::Cpu).unwrap();
                tensors.insert("model.norm.weight".to_owned(), whole);
            }),
        ),
        (
            "tensor `model.layers.0.self_attn.q_proj.bias` is no part",
            refused(|tensors, _| {
                let bias = Tensor::zeros(132, DType::F32, &Device::Cpu).unwrap();
                tensors.insert("model.layers.0.self_attn.q_proj.bias".to_owned(), bias);
            }),
        ),
        (
            "tensor `model.layers.0.mlp.gate_proj.bias` is missing: it should have shape [56]",
            refused(|_, config| config["mlp_bias"] = json!(true)),
        ),
        (
            "tensor `model.layers.0.self_attn.k_proj.weight` has shape [44, 48] and should have [132, 48]",
            refused(|_, config| config["num_key_value_heads"] = json!(6)),
        ),
        (
            "GiB of memory",
            refused(|_, config| {
                config["hidden_size"] = json!(98_304);
                config["num_hidden_layers"] = json!(9_000);
            }),
        ),
    ] {
        assert!(said.contains(words), "`{words}`: {said}");
    }
}

#[test]
fn a_file_that_is_cut_is_refused() {
    let dir = checkpoint(|_, _| {});
    load(&dir).unwrap();
    let path = dir.path().join("model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    for size in [0, 7, 1000, bytes.len() - 1] {
        std::fs::write(&path, &bytes[..size]).unwrap();
        let error = format!("{:#}", load(&dir).unwrap_err());
        assert!(error.contains("model.safetensors"), "{size} bytes: {error}");
    }
}

/// A task that asks for the likeliest of the choices behind each text.
fn choose(choices: &Value, texts: &[&str]) -> PreparedTask {
    let yaml = json!({
        "task": "t", "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": "t.jsonl"}}, "test_split": "test",
        "output_type": "multiple_choice", "doc_to_text": "q", "doc_to_target": 0, "doc_to_choice": choices,
    });
    let documents: Vec<String> = texts.iter().map(|text| json!({"q": text}).to_string()).collect();
    let data = BTreeMap::from([("test".to_owned(), vec![documents.join("\n").into_bytes()])]);
    PreparedTask::new(&yaml.to_string(), &data, Overrides::default()).unwrap()
}

#[test]
fn what_has_no_log_likelihood_is_refused_and_named() {
    let mut engine = load(&checkpoint(|_, config| config["max_position_embeddings"] = json!(8))).unwrap();
    let mut ask = |context: &str, continuation: &str| {
        let requests = [("a", " b"), (context, continuation)].map(|(a, b)| (a.to_owned(), b.to_owned()));
        engine.loglikelihood(&requests, &mut |_| Ok(()))
    };
    let long = |n: usize| " a".repeat(n);
    for (context, continuation) in [("a", long(8)), (&long(20), long(1)), ("", long(1))] {
        let answers = ask(context, &continuation).unwrap();
        assert!(answers.iter().all(|answer| answer.log_likelihood < 0.0));
    }
    for (context, continuation, said) in [
        ("a", "", "has a continuation without a token"),
        ("a", " ", "has a continuation without a token"),
        (" ", "b", "has a context without a token"),
        ("a", &long(9), "has a continuation of 9 tokens, and the model reads 8"),
    ] {
        let error = ask(context, continuation).unwrap_err();
        let named = error.downcast_ref::<Unanswerable>().unwrap();
        assert_eq!((named.request, named.what.as_str()), (1, said));
    }
    // A task names the document.
    let task = choose(&json!(["a", ""]), &["a", "b"]);
    let error = format!("{:#}", task.run(&mut engine, &mut |_| Ok(())).unwrap_err());
    assert!(
        error.contains("task `t`: document 0: ") && error.contains("without a token"),
        "{error}"
    );
}

#[test]
fn a_batch_that_the_device_lacks_memory_for_is_made_smaller_once() {
    let dir = checkpoint(|_, _| {});
    let pairs: Vec<_> = (1..30).map(|n| ("a b ".repeat(n), "a b".to_owned())).collect();
    let sound = load(&dir).unwrap().loglikelihood(&pairs, &mut |_| Ok(())).unwrap();
    // What candle says of a card, once it has begun to compute.
    let too_much = || {
        let said = "DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")";
        Err(candle_core::Error::Cuda(said.into()).into())
    };
    let options = EngineOptions {
        max_batch_tokens: 64,
        by_tables: true,
        ..EngineOptions::default()
    };
    let engine = || CandleEngine::load(dir.path(), &Device::Cpu, options.clone()).unwrap();

    let (mut n_failures, mut largest, mut before) = (0, 0, 0);
    let answers = engine().loglikelihood(&pairs, &mut |done| {
        if n_failures == 0 && done.n_tokens > 100 {
            n_failures = 1;
            return too_much();
        }
        if n_failures == 1 {
            largest = largest.max(done.n_tokens.saturating_sub(before));
            before = done.n_tokens;
        }
        Ok(())
    });
    for (answer, sound) in answers.unwrap().iter().zip(&sound) {
        assert!((answer.log_likelihood - sound.log_likelihood).abs() < 1e-4);
        assert_eq!(answer.is_greedy, sound.is_greedy);
    }
    assert_eq!((n_failures, largest), (1, 16), "a quarter of the batch");

    let error = engine()
        .loglikelihood(&pairs, &mut |done| if done.n_tokens > 0 { too_much() } else { Ok(()) })
        .unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("batches of 16 tokens") && text.contains("--batch-tokens"),
        "{text}"
    );
    assert!(error.is::<std::io::Error>(), "another worker may have more");
}

#[test]
fn what_is_no_longer_looked_back_at_leaves_its_room() {
    let dir = checkpoint(|_, config| config["max_position_embeddings"] = json!(128));
    // The second begins as the first fifteen tokens of the first, of which a whole batch was kept.
    let pairs = [
        ("a ".repeat(71), " b".to_owned()),
        ("a ".repeat(15) + &"b ".repeat(51), " b".to_owned()),
    ];
    let options = |by_tables| EngineOptions {
        max_batch_tokens: 48,
        by_tables,
        ..EngineOptions::default()
    };
    let answers = |by_tables| {
        let mut engine = CandleEngine::load(dir.path(), &Device::Cpu, options(by_tables)).unwrap();
        engine.loglikelihood(&pairs, &mut |_| Ok(())).unwrap()
    };
    for (a, b) in answers(true).iter().zip(answers(false)) {
        assert!((a.log_likelihood - b.log_likelihood).abs() < 1e-4);
    }
}

#[test]
fn what_is_expected_is_answered_as_if_it_was_not() {
    let dir = checkpoint(|_, config| config["max_position_embeddings"] = json!(8));
    let options = EngineOptions {
        by_tables: true,
        ..EngineOptions::default()
    };
    let mut engine = CandleEngine::load(dir.path(), &Device::Cpu, options).unwrap();
    let pairs = |texts: &[&str]| -> Vec<(String, String)> {
        texts.iter().map(|text| ((*text).to_owned(), " b".to_owned())).collect()
    };
    let (first, second) = (pairs(&["a", "a b a"]), pairs(&["b b", "a"]));
    let documents = vec!["a b a b a b a b a b".to_owned()];
    let mut ask = |expected: bool| {
        let n_told = Cell::new(0);
        let tell = &mut |_| {
            n_told.set(n_told.get() + 1);
            Ok(())
        };
        let expect = |engine: &mut CandleEngine, asked: Asked| {
            if expected {
                engine.expect(&|| asked.clone());
            }
        };
        expect(&mut engine, Asked::Pairs(second.clone()));
        let of_first = engine.loglikelihood(&first, tell).unwrap();
        expect(&mut engine, Asked::Documents(documents.clone()));
        let of_second = engine.loglikelihood(&second, tell).unwrap();
        let of_documents = engine.loglikelihood_rolling(&documents, tell).unwrap();
        ((of_first, of_second, of_documents), n_told.get())
    };
    let ((as_expected, n_told), (unexpected, n_told_otherwise)) = (ask(true), ask(false));
    assert_eq!(as_expected, unexpected);
    assert_eq!(
        n_told + 2,
        n_told_otherwise,
        "what was read before is not read when it is asked"
    );
    // What has no answer says so when it is asked, and not before.
    engine.expect(&|| Asked::Pairs(vec![("a".to_owned(), String::new())]));
    assert_eq!(engine.loglikelihood(&first, &mut |_| Ok(())).unwrap().len(), 2);
    let error = engine.loglikelihood(&[("a".to_owned(), String::new())], &mut |_| Ok(()));
    assert_eq!(error.unwrap_err().downcast_ref::<Unanswerable>().unwrap().request, 0);
}

#[test]
fn a_contexts_end_is_spaces_as_python_has_them() {
    // U+001F, which Python strips and Rust does not, is this tokenizer's unknown word.
    let mut engine = load(&checkpoint(|_, _| {})).unwrap();
    let pairs = [("a\u{1f}", " b"), ("a", "\u{1f} b"), ("a", " b")].map(|(a, b)| (a.to_owned(), b.to_owned()));
    let answers = engine.loglikelihood(&pairs, &mut |_| Ok(())).unwrap();
    assert_eq!(answers[0], answers[1]);
    assert_ne!(answers[0], answers[2]);
}

#[test]
fn numbers_that_are_none_name_the_request() {
    // The embedding of "b" alone is broken, so that only the request with it is.
    let dir = checkpoint(|tensors, _| {
        let embedding = tensors["model.embed_tokens.weight"].clone();
        let mut rows: Vec<Vec<f32>> = embedding.to_vec2().unwrap();
        rows[4][0] = f32::NAN;
        let broken = Tensor::new(rows, &Device::Cpu).unwrap();
        // Untied: the output matrix is whole.
        tensors.insert("lm_head.weight".to_owned(), embedding);
        tensors.insert("model.embed_tokens.weight".to_owned(), broken);
    });
    let fields = std::fs::read_to_string(dir.path().join("config.json")).unwrap();
    let fields = fields.replace(r#""tie_word_embeddings":true"#, r#""tie_word_embeddings":false"#);
    std::fs::write(dir.path().join("config.json"), fields).unwrap();
    let mut engine = load(&dir).unwrap();
    let request = |error: anyhow::Error| error.downcast_ref::<NotFinite>().map(|at| at.request);

    // A task names the document of the request.
    let task = choose(&json!(["a", "a a"]), &["a", "a b", "b"]);
    let error = format!("{:#}", task.run(&mut engine, &mut |_| Ok(())).unwrap_err());
    assert!(
        error.contains("task `t`: document 1: ") && error.contains("request 2 are not finite"),
        "{error}"
    );

    let pairs = ["a a", "a", "b a", "b"].map(|context| (context.to_owned(), " a".to_owned()));
    let sound = engine.loglikelihood(&pairs[..2], &mut |_| Ok(())).unwrap();
    assert!(sound.iter().all(|answer| answer.log_likelihood.is_finite()));
    let error = engine.loglikelihood(&pairs, &mut |_| Ok(())).unwrap_err();
    assert_eq!(request(error), Some(2));
    let documents = ["a a a", "a b a"].map(str::to_owned);
    assert_eq!(
        request(engine.loglikelihood_rolling(&documents, &mut |_| Ok(())).unwrap_err()),
        Some(1)
    );
    let generation = |prompt: &str| Generation {
        prompt: prompt.to_owned(),
        until: Vec::new(),
        max_tokens: 3,
    };
    let prompts = ["a", "a a", "b"].map(generation);
    assert_eq!(
        request(engine.generate_until(&prompts, &mut |_| Ok(())).unwrap_err()),
        Some(2)
    );
}
