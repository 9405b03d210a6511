//! A SentencePiece model of byte pair encoding, read from its `tokenizer.model`: texts to the ids that the `sentencepiece`
//! package gives.
//!
//! Ours and not a conversion to the `tokenizers` crate: that knows neither all normalisation rules nor SentencePiece's
//! order among equal merges, and gives other ids for texts with runs of spaces (which is why OpenLLaMA advises against its
//! converted tokenizer). Unigram, word and character models are refused.
//!
//! **Invariant:** nothing here is a matter of taste: `evaluator/tests/sentencepiece.rs` compares ids with the package's.

mod merge;
mod normalizer;
mod proto;

use std::collections::HashMap;

use anyhow::{Context, Result, anyhow, bail, ensure};
use prost::Message;

use normalizer::Normalizer;
use proto::{Kind, ModelProto, ModelType};

use super::matcher::Matcher;

/// The most bytes of a model that is read.
pub const MAX_MODEL_BYTES: u64 = 64 << 20;

/// What to do about a model that is not read.
const WAY_OUT: &str = "convert it (transformers' `AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)`) and push the \
                       tokenizer.json";

/// A model.
#[derive(Debug)]
pub struct SentencePiece {
    pieces: Pieces,
    normalizer: Normalizer,
    /// Pieces that a text is cut at before anything else.
    whole: Matcher,
    /// The ids of the 256 bytes, when characters without a piece become bytes.
    bytes: Option<Vec<u32>>,
    unknown: u32,
    /// The id that begins a text.
    pub bos: Option<u32>,
    /// The id that ends one.
    pub eos: Option<u32>,
}

/// A model's pieces by id and by text.
#[derive(Debug)]
struct Pieces {
    all: Vec<(String, f32, Kind)>,
    /// What neighbours may be joined to.
    mergeable: HashMap<Vec<u8>, u32>,
    /// Control pieces, bytes and the unknown one.
    reserved: HashMap<Vec<u8>, u32>,
}

impl Pieces {
    fn new(pieces: Vec<proto::Piece>) -> Result<Self> {
        let mut found = Self {
            all: Vec::with_capacity(pieces.len()),
            mergeable: HashMap::new(),
            reserved: HashMap::new(),
        };
        for (id, piece) in pieces.into_iter().enumerate() {
            let (kind, score) = (piece.kind(), piece.score());
            let text = piece.piece.filter(|text| !text.is_empty());
            let text = text.with_context(|| format!("its piece {id} is empty"))?;
            ensure!(score.is_finite(), "its piece {id} has the score {score}");
            let by_text = match kind {
                Kind::Normal | Kind::UserDefined | Kind::Unused => &mut found.mergeable,
                Kind::Unknown | Kind::Control | Kind::Byte => &mut found.reserved,
            };
            let is_new = by_text.insert(text.as_bytes().to_vec(), id as u32).is_none();
            ensure!(is_new, "its piece {id} stands there twice");
            found.all.push((text, score, kind));
        }
        Ok(found)
    }

    fn mergeable(&self, text: &[u8]) -> Option<u32> {
        self.mergeable.get(text).copied()
    }

    fn is_unused(&self, id: u32) -> bool {
        self.all[id as usize].2 == Kind::Unused
    }

    fn score(&self, id: u32) -> f32 {
        self.all[id as usize].1
    }

    fn of_kind(&self, kind: Kind) -> impl Iterator<Item = (u32, &str)> {
        let all = (0..).zip(&self.all);
        all.filter(move |(_, piece)| piece.2 == kind)
            .map(|(id, piece)| (id, piece.0.as_str()))
    }

    fn id(&self, text: &[u8]) -> Option<u32> {
        self.reserved.get(text).copied().or_else(|| self.mergeable(text))
    }
}

impl SentencePiece {
    /// Reads a model.
    ///
    /// # Errors
    /// What in it is damaged or not computed exactly, and what to do.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let model = ModelProto::decode(bytes).ok().filter(|model| !model.pieces.is_empty());
        let Some(model) = model else {
            bail!("`tokenizer.model` is no SentencePiece model, or is damaged: {WAY_OUT}")
        };
        Self::new(model).map_err(|error| anyhow!("`tokenizer.model` can't be used, since {error:#}: {WAY_OUT}"))
    }

    fn new(model: ModelProto) -> Result<Self> {
        let spec = model.trainer_spec.unwrap_or_default();
        let name = match spec.model_type() {
            ModelType::Bpe => None,
            ModelType::Unigram => Some("Unigram"),
            ModelType::Word => Some("word"),
            ModelType::Char => Some("character"),
        };
        if let Some(name) = name {
            bail!("it is a {name} model, and BPE alone is read");
        }
        let denormalizes = model
            .denormalizer_spec
            .is_some_and(|spec| !spec.precompiled_charsmap().is_empty());
        ensure!(!denormalizes, "its `denormalizer_spec` has rules, which are not read");
        let pieces = Pieces::new(model.pieces)?;
        let unknown: Vec<u32> = pieces.of_kind(Kind::Unknown).map(|(id, _)| id).collect();
        let &[unknown] = unknown.as_slice() else {
            bail!("it has {} unknown pieces and must have 1", unknown.len())
        };
        let byte = |byte: u8| {
            let id = pieces.id(format!("<0x{byte:02X}>").as_bytes());
            id.with_context(|| format!("byte {byte} has no piece, and `byte_fallback` is set"))
        };
        let control = |id: i32| {
            let id = u32::try_from(id).ok();
            id.filter(|&id| {
                pieces
                    .all
                    .get(id as usize)
                    .is_some_and(|piece| piece.2 == Kind::Control)
            })
        };
        let normalizer = model.normalizer_spec.unwrap_or_default();
        Ok(Self {
            normalizer: Normalizer::new(&normalizer, spec.treat_whitespace_as_suffix())?,
            whole: Matcher::new(pieces.of_kind(Kind::UserDefined).map(|(_, text)| text)),
            bytes: match spec.byte_fallback() {
                true => Some((0..=u8::MAX).map(byte).collect::<Result<_>>()?),
                false => None,
            },
            unknown,
            bos: control(spec.bos_id()),
            eos: control(spec.eos_id()),
            pieces,
        })
    }

    /// The ids of a text. `is_first` is whether it begins what is encoded, as it always does in SentencePiece's own
    /// reading: only then is a space put before it.
    pub fn encode(&self, text: &str, is_first: bool) -> Vec<u32> {
        let normalized = self.normalizer.normalize(text, &self.whole, is_first);
        let mut ids = Vec::with_capacity(normalized.len() / 3);
        let mut after_unknown = false;
        for part in merge::merge(&normalized, &self.pieces, &self.whole) {
            let id = self.pieces.id(part).unwrap_or(self.unknown);
            let is_unknown = id == self.unknown;
            match &self.bytes {
                Some(bytes) if is_unknown => ids.extend(part.iter().map(|&byte| bytes[usize::from(byte)])),
                // Unknown characters beside each other are one.
                _ if is_unknown && after_unknown => {}
                _ => ids.push(id),
            }
            after_unknown = is_unknown;
        }
        ids
    }

    /// Whether a space is put before a text.
    pub fn adds_prefix(&self) -> bool {
        self.normalizer.adds_prefix()
    }

    /// The piece of an id.
    pub fn piece(&self, id: u32) -> Option<&str> {
        self.pieces.all.get(id as usize).map(|piece| piece.0.as_str())
    }

    /// The id of a piece.
    pub fn id(&self, piece: &str) -> Option<u32> {
        self.pieces.id(piece.as_bytes())
    }

    /// Ids that stand for no text: control pieces and the unknown one.
    pub fn special(&self) -> impl Iterator<Item = (u32, &str)> {
        let control = self.pieces.of_kind(Kind::Control);
        control.chain(self.pieces.of_kind(Kind::Unknown))
    }
}
