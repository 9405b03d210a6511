//! Words to ids, and the same as a tokenizer.json that every reader of the Hub's format takes.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::grammar::Grammar;

/// The token that begins a text.
pub const BOS: &str = "<s>";
/// The token that ends a text.
pub const EOS: &str = "</s>";
const UNKNOWN: &str = "<unk>";

/// The id of [`BOS`].
pub const BOS_ID: u32 = 0;
/// The id of [`EOS`].
pub const EOS_ID: u32 = 1;
const UNKNOWN_ID: u32 = 2;

/// The words of the demo's language.
#[derive(Debug, Clone)]
pub struct Vocabulary {
    ids: HashMap<&'static str, u32>,
}

impl Vocabulary {
    /// The special tokens first, then all words in their order.
    pub fn of_grammar() -> Self {
        let words = [BOS, EOS, UNKNOWN].into_iter().chain(Grammar::words());
        Self {
            ids: words.zip(0..).collect(),
        }
    }

    /// Tokens of it.
    pub fn size(&self) -> usize {
        self.ids.len()
    }

    /// The ids of a text's words.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        let id = |word: &str| self.ids.get(word).copied().unwrap_or(UNKNOWN_ID);
        text.split_whitespace().map(id).collect()
    }

    /// The same as tokenizer.json: words split at white space, BOS in front.
    pub fn tokenizer_json(&self) -> Value {
        let special = |content: &str, id: u32| {
            json!({
                "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true
            })
        };
        let (bos, first) = (
            json!({"SpecialToken": {"id": BOS, "type_id": 0}}),
            json!({"Sequence": {"id": "A", "type_id": 0}}),
        );
        let second = json!({"Sequence": {"id": "B", "type_id": 1}});
        let mut vocabulary: Vec<(&str, u32)> = self.ids.iter().map(|(word, id)| (*word, *id)).collect();
        vocabulary.sort_unstable_by_key(|(_, id)| *id);
        let vocabulary: serde_json::Map<String, Value> = vocabulary
            .into_iter()
            .map(|(word, id)| (word.to_owned(), id.into()))
            .collect();
        json!({
            "version": "1.0", "truncation": null, "padding": null,
            "added_tokens": [special(BOS, BOS_ID), special(EOS, EOS_ID), special(UNKNOWN, UNKNOWN_ID)],
            "normalizer": null,
            "pre_tokenizer": {"type": "WhitespaceSplit"},
            "post_processor": {
                "type": "TemplateProcessing",
                "single": [bos, first],
                "pair": [bos, first, second],
                "special_tokens": {BOS: {"id": BOS, "ids": [BOS_ID], "tokens": [BOS]}}
            },
            "decoder": null,
            "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": UNKNOWN}
        })
    }

    /// tokenizer_config.json.
    pub fn tokenizer_config_json(&self, max_length: usize) -> Value {
        json!({
            "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": max_length,
            "bos_token": BOS, "eos_token": EOS, "unk_token": UNKNOWN
        })
    }
}
