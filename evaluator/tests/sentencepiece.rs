//! tokenizer.model against the `sentencepiece` package: its ids of hard texts by two small models, which
//! `tests/full/checkpoints/sentencepieces.py` wrote; the full ring compares 10,000 texts by many models.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use fineline_evaluator::config::Config;
use fineline_evaluator::tokenizer::Tokenizer;
use fineline_evaluator::tokenizer::sentencepiece::SentencePiece;
use proptest::prelude::*;
use serde_json::{Value, json};

fn model(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sentencepiece");
    dir.join(name).join("tokenizer.model")
}

fn bytes(name: &str) -> Vec<u8> {
    std::fs::read(model(name)).unwrap()
}

/// The tokenizer of the model `llama` with a tokenizer_config.json beside it.
fn tokenizer(settings: &Value) -> anyhow::Result<Tokenizer> {
    tokenizer_with(&[("tokenizer_config.json", settings)])
}

/// The same with other files beside it.
fn tokenizer_with(files: &[(&str, &Value)]) -> anyhow::Result<Tokenizer> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(model("llama"), dir.path().join("tokenizer.model")).unwrap();
    for (name, json) in files {
        std::fs::write(dir.path().join(name), json.to_string()).unwrap();
    }
    let config =
        r#"{"hidden_size":8,"intermediate_size":8,"num_hidden_layers":1,"num_attention_heads":1,"vocab_size":700}"#;
    Tokenizer::load(dir.path(), &Config::parse(config.as_bytes()).unwrap())
}

#[test]
fn ids_are_sentencepieces() {
    let lines = include_str!("sentencepiece/ids.jsonl");
    for name in ["llama", "rules"] {
        let model = SentencePiece::parse(&bytes(name)).unwrap();
        let mut n = 0;
        for line in lines.lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            let ids = model.encode(line["text"].as_str().unwrap(), true);
            assert_eq!(json!(ids), line[name], "{name}: {}", line["text"]);
            n += 1;
        }
        assert!(n > 150, "{n} texts");
    }
}

#[test]
fn old_files_of_added_tokens_are_read_where_transformers_reads_them() {
    let config = json!({"tokenizer_class": "LlamaTokenizer", "pad_token": "</s>"});
    let (map, added) = (json!({"pad_token": "<pad>"}), json!({"<pad>": 700}));
    let old = [
        ("tokenizer_config.json", &config),
        ("special_tokens_map.json", &map),
        ("added_tokens.json", &added),
    ];
    let ids = |tokenizer: &Tokenizer| tokenizer.encode("<pad>").unwrap();
    let begun = tokenizer_with(&old[..1]).unwrap();
    let bos = ids(&begun)[0];
    assert!(ids(&begun).len() > 2, "no token is added");
    assert_eq!(ids(&tokenizer_with(&old).unwrap()), [bos, 700]);
    // A newer tokenizer_config.json says all itself.
    let newer = json!({"tokenizer_class": "LlamaTokenizer", "added_tokens_decoder": {}});
    let files = [("tokenizer_config.json", &newer), old[2]];
    assert_eq!(ids(&tokenizer_with(&files).unwrap()), ids(&begun));
    let error = tokenizer_with(&[old[0], old[2]]).unwrap_err().to_string();
    assert!(
        error.contains("`<pad>` in added_tokens.json is no special token"),
        "{error}"
    );
}

#[test]
fn special_tokens_are_added_and_found_as_transformers_does() {
    let llama = |fields: Value| {
        let mut settings = json!({"tokenizer_class": "LlamaTokenizer"});
        settings
            .as_object_mut()
            .unwrap()
            .extend(fields.as_object().unwrap().clone());
        tokenizer(&settings).unwrap()
    };
    let ids = |tokenizer: &Tokenizer, text: &str| tokenizer.encode(text).unwrap();
    // BOS unless it is said otherwise, EOS when it is said; neither before a text that begins with BOS.
    assert_eq!(ids(&llama(json!({})), "b"), [1, 279]);
    assert_eq!(ids(&llama(json!({"add_bos_token": false})), "b"), [279]);
    assert_eq!(ids(&llama(json!({"add_eos_token": true})), "b"), [1, 279, 2]);
    assert_eq!(ids(&llama(json!({"add_eos_token": true})), "<s>b"), [1, 419]);
    assert_eq!(ids(&llama(json!({})), ""), [1]);
    // Of `legacy`: a space before what follows a special token.
    assert_eq!(ids(&llama(json!({})), "a <unk> b</s>b"), [1, 261, 396, 0, 279, 2, 419]);
    assert_eq!(
        ids(&llama(json!({"legacy": true})), "a <unk> b</s>b"),
        [1, 261, 396, 0, 259, 419, 2, 279]
    );
    assert_eq!(ids(&tokenizer(&json!({})).unwrap(), "<s>b"), [1, 279]);
    // A token that was added is found, the longest first.
    let added = json!({"added_tokens_decoder": {
        "700": {"content": "<x>", "special": false}, "701": {"content": "<x>y", "special": true},
    }});
    let added = llama(added);
    assert_eq!(ids(&added, "b<x>b<x>y"), [1, 279, 700, 419, 701]);
    assert_eq!(added.decode(&[279, 700, 419, 701]).unwrap(), "b<x>b");
    let stripping = json!({"added_tokens_decoder": {"700": {"content": "<x>", "rstrip": true}}});
    let error = tokenizer(&stripping).unwrap_err().to_string();
    assert!(
        error.contains("`added_tokens_decoder.700`") && error.contains("`rstrip`"),
        "{error}"
    );
    // What stands for an empty context, and what a context and its continuation become.
    let tokenizer = llama(json!({}));
    assert_eq!(tokenizer.prefix(), 1);
    assert!(tokenizer.is_end(2) && !tokenizer.is_end(1));
    assert_eq!(tokenizer.encode_pair("", " b").unwrap(), (vec![1], vec![259, 419]));
    assert_eq!(tokenizer.encode_pair("a ", "b").unwrap(), (vec![1, 261], vec![279]));
}

#[test]
fn texts_come_back_from_their_ids() {
    let llama = tokenizer(&json!({})).unwrap();
    for text in ["Hello  world", " a ", "", "é 日本 👩‍👩‍👧‍👦", "\u{0}\t\n", "a▁b"] {
        let ids = llama.encode(text).unwrap();
        assert_eq!(llama.decode(&ids).unwrap(), text.replace('▁', " "), "{ids:?}");
    }
    // Bytes beside each other that are no text are U+FFFD each.
    assert_eq!(
        llama.decode(&[279, 233, 154, 279, 233, 154, 168]).unwrap(),
        "b\u{fffd}\u{fffd} b日"
    );
}

#[test]
fn what_is_not_read_is_refused_with_the_way_out() {
    let joined = |tail: &[u8]| [bytes("llama"), tail.to_vec()].concat();
    for (words, bytes) in [
        // A later `trainer_spec` with another `model_type` counts.
        (
            "it is a Unigram model, and BPE alone is read",
            joined(&[0x12, 2, 0x18, 1]),
        ),
        ("it is a word model", joined(&[0x12, 2, 0x18, 3])),
        // A `denormalizer_spec` and a `normalizer_spec` with a table.
        ("`denormalizer_spec` has rules", joined(&[0x2a, 3, 0x12, 1, 0])),
        ("rules is cut short", joined(&[0x1a, 3, 0x12, 1, 0])),
        ("rules is cut short", joined(&[0x1a, 7, 0x12, 5, 8, 0, 0, 0, 1])),
        // A second unknown piece, a piece that stands there already, one without a text, one with the score NaN.
        ("2 unknown pieces", joined(&[0x0a, 5, 0x0a, 1, 7, 0x18, 2])),
        ("its piece 700 stands there twice", joined(&[0x0a, 3, 0x0a, 1, b'a'])),
        ("its piece 700 is empty", joined(&[0x0a, 2, 0x18, 1])),
        (
            "has the score NaN",
            joined(&[0x0a, 8, 0x0a, 1, 7, 0x15, 0, 0, 0xc0, 0x7f]),
        ),
        ("is no SentencePiece model", b"IQ== 0\nIg== 1\n".to_vec()),
        ("is no SentencePiece model", Vec::new()),
        ("is no SentencePiece model", bytes("llama")[..5000].to_vec()),
    ] {
        let error = format!("{:#}", SentencePiece::parse(&bytes).unwrap_err());
        assert!(error.contains(words), "`{words}`: {error}");
        assert!(error.contains("save_pretrained"), "{error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_damaged_model_is_refused_or_encodes(
        at in 0..10_000_usize, byte in any::<u8>(), cut in 0..2_000_usize, text in any::<String>(),
    ) {
        let mut bytes = bytes("rules");
        // The table of rules and the settings lie at the end.
        let at = bytes.len() - 1 - at % bytes.len();
        bytes[at] = byte;
        bytes.truncate(bytes.len() - cut.saturating_sub(1_000));
        if let Ok(model) = SentencePiece::parse(&bytes) {
            model.encode(&text, true);
        }
    }
}
