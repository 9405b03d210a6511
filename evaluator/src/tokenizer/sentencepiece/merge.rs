//! Byte pair encoding as SentencePiece does it (`bpe_model.cc`): of all neighbours that together are a piece, those with
//! the highest score are joined first, the leftmost of equals.
//!
//! Ours and not the `tokenizers` crate's: that joins by pairs, so that two ways to the same piece have an order which they
//! do not have here.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashMap};
use std::ops::Range;

use super::Pieces;
use super::normalizer::char_len;
use crate::tokenizer::matcher::Matcher;

/// No symbol.
const NONE: usize = usize::MAX;

/// A part of the text; what was joined to its left neighbour is empty.
struct Symbol {
    range: Range<usize>,
    previous: usize,
    next: usize,
    /// A piece that is never joined.
    is_whole: bool,
}

/// Neighbours that together are a piece.
struct Pair {
    score: f32,
    left: usize,
    right: usize,
    n_bytes: usize,
}

impl Ord for Pair {
    fn cmp(&self, other: &Self) -> Ordering {
        // Scores are finite: the model was checked.
        let by_score = self.score.partial_cmp(&other.score).unwrap_or(Ordering::Equal);
        by_score.then(other.left.cmp(&self.left))
    }
}

impl PartialOrd for Pair {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Pair {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Pair {}

/// Work on one text.
struct Merging<'a> {
    text: &'a [u8],
    pieces: &'a Pieces,
    symbols: Vec<Symbol>,
    agenda: BinaryHeap<Pair>,
    /// Where a piece that is not to be given was joined.
    unused: HashMap<&'a [u8], usize>,
}

/// The parts of a normalised text, each a piece or a character that is none.
pub(super) fn merge<'a>(text: &'a [u8], pieces: &'a Pieces, whole: &Matcher) -> Vec<&'a [u8]> {
    let mut symbols = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        let found = whole.longest(&text[at..]);
        let end = at + found.unwrap_or_else(|| char_len(&text[at..]));
        symbols.push(Symbol {
            range: at..end,
            previous: symbols.len().checked_sub(1).unwrap_or(NONE),
            next: if end < text.len() { symbols.len() + 1 } else { NONE },
            is_whole: found.is_some(),
        });
        at = end;
    }
    let mut merging = Merging {
        text,
        pieces,
        symbols,
        agenda: BinaryHeap::new(),
        unused: HashMap::new(),
    };
    for right in 1..merging.symbols.len() {
        merging.consider(right - 1, right);
    }
    merging.run();
    let mut parts = Vec::new();
    let mut at = if text.is_empty() { NONE } else { 0 };
    while let Some(symbol) = merging.symbols.get(at) {
        merging.give(&text[symbol.range.clone()], &mut parts);
        at = symbol.next;
    }
    parts
}

impl<'a> Merging<'a> {
    fn consider(&mut self, left: usize, right: usize) {
        let (Some(a), Some(b)) = (self.symbols.get(left), self.symbols.get(right)) else {
            return;
        };
        if a.is_whole || b.is_whole {
            return;
        }
        let piece = &self.text[a.range.start..b.range.end];
        let Some(id) = self.pieces.mergeable(piece) else { return };
        if self.pieces.is_unused(id) {
            self.unused.insert(piece, a.range.len());
        }
        self.agenda.push(Pair {
            score: self.pieces.score(id),
            left,
            right,
            n_bytes: piece.len(),
        });
    }

    fn run(&mut self) {
        while let Some(pair) = self.agenda.pop() {
            let (left, right) = (&self.symbols[pair.left].range, &self.symbols[pair.right].range);
            if left.is_empty() || right.is_empty() || left.len() + right.len() != pair.n_bytes {
                continue;
            }
            let end = right.end;
            let next = self.symbols[pair.right].next;
            self.symbols[pair.right].range = end..end;
            self.symbols[pair.left].range.end = end;
            self.symbols[pair.left].next = next;
            if let Some(next) = self.symbols.get_mut(next) {
                next.previous = pair.left;
            }
            self.consider(self.symbols[pair.left].previous, pair.left);
            self.consider(pair.left, next);
        }
    }

    /// Gives a part, or the parts that it was joined of when it is a piece that is not to be given.
    fn give(&self, part: &'a [u8], parts: &mut Vec<&'a [u8]>) {
        let mut open = vec![part];
        while let Some(part) = open.pop() {
            let is_unused = self.pieces.mergeable(part).is_some_and(|id| self.pieces.is_unused(id));
            match self.unused.get(part).filter(|_| is_unused) {
                Some(&at) => open.extend([&part[at..], &part[..at]]),
                None => parts.push(part),
            }
        }
    }
}
