//! A tokenizer.model with the special tokens that stand beside it, as transformers' `LlamaTokenizer` takes them: they are
//! found in the text first, what is between them is SentencePiece's.
//!
//! Of `legacy`: with it a space is put before every part between special tokens, without it before a text's beginning alone.
//! A text without special tokens is the same either way. Where it is not said, it is as transformers 5 has it: off for the
//! class `LlamaTokenizer`, else on.

use std::collections::{HashMap, HashSet};

use anyhow::Result;

use super::matcher::Matcher;
use super::sentencepiece::SentencePiece;
use super::settings::Settings;

/// What stands for bytes that are no text.
const REPLACEMENT: char = '\u{fffd}';

/// A SentencePiece model and its special tokens.
#[derive(Debug)]
pub(super) struct Llama {
    model: SentencePiece,
    /// Tokens that are found in texts.
    ids: HashMap<String, u32>,
    matcher: Matcher,
    /// The texts of those that have another than their piece.
    texts: HashMap<u32, String>,
    /// Those that stand for no text.
    special: HashSet<u32>,
    is_legacy: bool,
}

impl Llama {
    pub(super) fn new(model: SentencePiece, settings: &Settings) -> Result<Self> {
        let (mut ids, mut texts) = (HashMap::new(), HashMap::new());
        let mut special = HashSet::new();
        for (id, text) in model.special() {
            ids.insert(text.to_owned(), id);
            special.insert(id);
        }
        for added in settings.added()? {
            if added.is_special {
                special.insert(added.id);
            }
            ids.insert(added.text.clone(), added.id);
            texts.insert(added.id, added.text);
        }
        for text in settings.special() {
            if let Some(id) = ids.get(text).copied().or_else(|| model.id(text)) {
                ids.insert(text.to_owned(), id);
                special.insert(id);
            }
        }
        Ok(Self {
            matcher: Matcher::new(ids.keys().map(String::as_str)),
            is_legacy: settings.flag("legacy")?.unwrap_or(!settings.is_llama()),
            model,
            ids,
            texts,
            special,
        })
    }

    /// The ids of a text, without any that is added to it.
    pub(super) fn encode(&self, text: &str) -> Vec<u32> {
        let mut ids = Vec::new();
        let (mut begin, mut at) = (0, 0);
        let between = |ids: &mut Vec<u32>, part: &str, begin: usize| {
            ids.extend(self.model.encode(part, self.is_legacy || begin == 0));
        };
        while at < text.len() {
            let Some(n) = self.matcher.longest(&text.as_bytes()[at..]) else {
                at += 1;
                continue;
            };
            between(&mut ids, &text[begin..at], begin);
            ids.extend(self.ids.get(&text[at..at + n]));
            at += n;
            begin = at;
        }
        between(&mut ids, &text[begin..], begin);
        ids
    }

    /// The text of ids without special ones. Bytes beside each other are a text if they are UTF-8, else each is U+FFFD, as
    /// the `tokenizers` crate's `ByteFallback` has it; the space that was put before the text is taken away.
    pub(super) fn decode(&self, ids: &[u32]) -> String {
        let mut text = String::new();
        let mut bytes = Vec::new();
        for &id in ids.iter().filter(|id| !self.special.contains(id)) {
            let piece = self.text(id).unwrap_or_default();
            if let Some(byte) = byte(piece) {
                bytes.push(byte);
                continue;
            }
            end_bytes(&mut text, &mut bytes);
            text.push_str(&piece.replace('\u{2581}', " "));
        }
        end_bytes(&mut text, &mut bytes);
        if self.model.adds_prefix() && text.starts_with(' ') {
            text.remove(0);
        }
        text
    }

    pub(super) fn text(&self, id: u32) -> Option<&str> {
        self.texts.get(&id).map(String::as_str).or_else(|| self.model.piece(id))
    }

    pub(super) fn id(&self, text: &str) -> Option<u32> {
        self.ids.get(text).copied().or_else(|| self.model.id(text))
    }

    pub(super) fn model(&self) -> &SentencePiece {
        &self.model
    }
}

/// The byte that a piece stands for.
fn byte(piece: &str) -> Option<u8> {
    let hex = piece.strip_prefix("<0x")?.strip_suffix('>')?;
    if hex.len() != 2 {
        return None;
    }
    u8::from_str_radix(hex, 16).ok()
}

fn end_bytes(text: &mut String, bytes: &mut Vec<u8>) {
    match std::str::from_utf8(bytes) {
        Ok(whole) => text.push_str(whole),
        Err(_) => text.extend(bytes.iter().map(|_| REPLACEMENT)),
    }
    bytes.clear();
}
