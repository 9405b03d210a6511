//! SentencePiece's normalisation: longest matches of a table of rules, then the rules for spaces, in its own order
//! (`normalizer.cc`).
//!
//! The table is a double array (Yata et al., 2007) as darts-clone writes it, with the texts that it points to behind it;
//! it is read where it lies, and an index that leads out of it matches nothing.

use anyhow::{Result, ensure};

use super::proto::NormalizerSpec;
use crate::tokenizer::matcher::Matcher;

/// What stands for a space in pieces: U+2581.
pub(super) const SPACE: &[u8] = "\u{2581}".as_bytes();

/// How texts are made alike before they are cut.
#[derive(Debug)]
pub(super) struct Normalizer {
    rules: Option<Rules>,
    adds_space: bool,
    /// Whether that space comes at the end.
    at_end: bool,
    removes_spaces: bool,
    escapes_spaces: bool,
}

impl Normalizer {
    pub(super) fn new(spec: &NormalizerSpec, at_end: bool) -> Result<Self> {
        let table = spec.precompiled_charsmap();
        Ok(Self {
            rules: if table.is_empty() {
                None
            } else {
                Some(Rules::new(table)?)
            },
            adds_space: spec.add_dummy_prefix(),
            at_end,
            removes_spaces: spec.remove_extra_whitespaces(),
            escapes_spaces: spec.escape_whitespaces(),
        })
    }

    /// Whether a text is encoded with a space before it.
    pub(super) fn adds_prefix(&self) -> bool {
        self.adds_space && !self.at_end
    }

    /// The text that is cut into pieces. `whole` are pieces that no rule touches; `is_first` is whether the text begins
    /// what is encoded, without which no space is put before it.
    pub(super) fn normalize(&self, text: &str, whole: &Matcher, is_first: bool) -> Vec<u8> {
        let mut rest = text.as_bytes();
        if self.removes_spaces {
            while let (b" ", n) = self.next(rest, whole) {
                rest = &rest[n..];
            }
        }
        if rest.is_empty() {
            return Vec::new();
        }
        let space = if self.escapes_spaces { SPACE } else { b" " };
        let mut out = Vec::with_capacity(rest.len() + rest.len() / 2 + 8);
        if self.adds_prefix() && is_first {
            out.extend_from_slice(space);
        }
        let mut after_space = self.removes_spaces;
        while !rest.is_empty() {
            let (mut found, n) = self.next(rest, whole);
            while let (true, Some(tail)) = (after_space, found.strip_prefix(b" ")) {
                found = tail;
            }
            if let Some(&last) = found.last() {
                for &byte in found {
                    match byte {
                        b' ' => out.extend_from_slice(space),
                        _ => out.push(byte),
                    }
                }
                after_space = self.removes_spaces && last == b' ';
            }
            rest = &rest[n..];
        }
        if self.removes_spaces {
            while out.ends_with(space) {
                out.truncate(out.len() - space.len());
            }
        }
        if self.adds_space && self.at_end {
            out.extend_from_slice(space);
        }
        out
    }

    /// What the beginning of a text becomes, and how many bytes of it do.
    fn next<'a>(&'a self, text: &'a [u8], whole: &Matcher) -> (&'a [u8], usize) {
        if let Some(n) = whole.longest(text) {
            return (&text[..n], n);
        }
        if let Some((n, becomes)) = self.rules.as_ref().and_then(|rules| rules.longest(text)) {
            return (becomes, n);
        }
        let n = char_len(text);
        (&text[..n], n)
    }
}

/// Bytes of a text's first character.
pub(super) fn char_len(text: &[u8]) -> usize {
    let n = match text.first() {
        None => 0,
        Some(0xf0..) => 4,
        Some(0xe0..) => 3,
        Some(0xc0..) => 2,
        Some(_) => 1,
    };
    n.min(text.len())
}

/// The rules of a model: what becomes of which beginnings.
#[derive(Debug)]
struct Rules {
    units: Vec<u32>,
    /// Each ends with NUL.
    texts: Vec<u8>,
}

impl Rules {
    fn new(table: &[u8]) -> Result<Self> {
        let size = table.split_first_chunk::<4>();
        let size = size.and_then(|(size, rest)| rest.split_at_checked(u32::from_le_bytes(*size) as usize));
        let Some((units, texts)) = size.filter(|(units, _)| units.len().is_multiple_of(4)) else {
            anyhow::bail!("its table of normalisation rules is cut short");
        };
        ensure!(!units.is_empty(), "its table of normalisation rules is empty");
        let unit = |unit: &[u8; 4]| u32::from_le_bytes(*unit);
        Ok(Self {
            units: units.as_chunks::<4>().0.iter().map(unit).collect(),
            texts: texts.to_vec(),
        })
    }

    /// The longest rule that a text begins with: its bytes, and what they become.
    fn longest(&self, text: &[u8]) -> Option<(usize, &[u8])> {
        let mut at = offset(*self.units.first()?);
        let mut found = None;
        for (i, &byte) in text.iter().enumerate() {
            at ^= usize::from(byte);
            let Some(&unit) = self.units.get(at) else { break };
            // A leaf has the highest bit, which no byte has.
            if unit & 0x8000_00ff != u32::from(byte) {
                break;
            }
            at ^= offset(unit);
            if unit >> 8 & 1 == 1 {
                let leaf = self.units.get(at).map(|leaf| (leaf & 0x7fff_ffff) as usize);
                found = leaf.map(|leaf| (i + 1, leaf)).or(found);
            }
        }
        let (n, begin) = found?;
        let text = self.texts.get(begin..)?;
        let end = text.iter().position(|&byte| byte == 0).unwrap_or(text.len());
        Some((n, &text[..end]))
    }
}

fn offset(unit: u32) -> usize {
    ((unit >> 10) << ((unit & 0x200) >> 6)) as usize
}
