//! What has to be computed of many inputs: a beginning that several share is computed once.
//!
//! Inputs are sorted, so that one which begins as another does stands beside it. Of each only what follows the common
//! beginning becomes a [`Piece`], whose positions look back at the pieces that hold the beginning; what is longer than a batch
//! becomes several, each behind the one before. All requests of a task are planned at once: choices share their context, and
//! documents their shots.
//!
//! **Invariant:** a piece looks back only at earlier pieces, and of those of earlier batches only at what the first piece of
//! its own batch looks back at: that is all that has to be kept between batches.

use std::ops::Range;

/// The shortest beginning of a piece that is worth being looked back at: below it a few tokens computed again cost less.
const MIN_SHARED: usize = 8;

/// An input and the tokens that its last positions are to predict.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) input: Vec<u32>,
    /// The answer that it is for.
    pub(crate) answer: usize,
    /// The tokens, at most as many as the input has.
    pub(crate) targets: Vec<u32>,
}

/// A token that a position is to predict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// The position, counted from the piece's first.
    pub(crate) at: usize,
    pub(crate) answer: usize,
    pub(crate) token: u32,
}

/// Tokens that stand one behind the other in an input, computed once.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) tokens: Vec<u32>,
    /// Where its first token stands in the input.
    pub(crate) position: usize,
    /// What stands before it, from the input's first token on: a piece, and how many of its first tokens.
    pub(crate) before: Vec<(usize, usize)>,
    /// By position.
    pub(crate) wanted: Vec<Wanted>,
}

/// Pieces in the order in which they are computed.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) pieces: Vec<Piece>,
    /// Tokens of all different inputs: what would be computed if nothing were shared.
    pub(crate) n_asked: u64,
}

/// A piece of the input at hand, and the part of the input that it holds.
#[derive(Debug, Clone)]
struct Held {
    piece: usize,
    positions: Range<usize>,
}

impl Plan {
    /// A plan in batches of at most `max_tokens` tokens.
    pub(crate) fn new(rows: &[Row], max_tokens: usize) -> Self {
        let mut rows: Vec<&Row> = rows.iter().collect();
        rows.sort_by(|a, b| a.input.cmp(&b.input).then(a.answer.cmp(&b.answer)));
        let mut plan = Self::default();
        let mut held: Vec<Held> = Vec::new();
        let mut previous: &[u32] = &[];
        for row in rows {
            if row.input != previous || held.is_empty() {
                let common = previous.iter().zip(&row.input).take_while(|(a, b)| a == b).count();
                forget(&mut held, common);
                plan.add(&mut held, &row.input, max_tokens.max(1));
            }
            previous = &row.input;
            plan.want(&held, row);
        }
        for piece in &mut plan.pieces {
            piece.wanted.sort_by_key(|wanted| wanted.at);
        }
        plan
    }

    /// Makes what `held` lacks of an input a piece, or several.
    fn add(&mut self, held: &mut Vec<Held>, input: &[u32], max_tokens: usize) {
        let mut begin = held.last().map_or(0, |last| last.positions.end);
        for tokens in input[begin..].chunks(max_tokens) {
            let before = held.iter().map(|held| (held.piece, held.positions.len())).collect();
            let end = begin + tokens.len();
            held.push(Held {
                piece: self.pieces.len(),
                positions: begin..end,
            });
            self.pieces.push(Piece {
                tokens: tokens.to_vec(),
                position: begin,
                before,
                wanted: Vec::new(),
            });
            begin = end;
        }
        self.n_asked += input.len() as u64;
    }

    /// Notes what the pieces of a row's input are to predict.
    fn want(&mut self, held: &[Held], row: &Row) {
        let first = row.input.len() - row.targets.len();
        for (position, &token) in (first..).zip(&row.targets) {
            let holder = held.iter().rev().find(|held| held.positions.contains(&position));
            let holder = holder.expect("the pieces hold the whole input");
            self.pieces[holder.piece].wanted.push(Wanted {
                at: position - holder.positions.start,
                answer: row.answer,
                token,
            });
        }
    }

    /// The pieces of each batch: of at most so many tokens, with which the plan was made.
    pub(crate) fn batches(&self, max_tokens: usize) -> Vec<Range<usize>> {
        let mut batches: Vec<Range<usize>> = Vec::new();
        let mut n_tokens = 0;
        for (i, piece) in self.pieces.iter().enumerate() {
            n_tokens += piece.tokens.len();
            match batches.last_mut() {
                Some(batch) if n_tokens <= max_tokens => batch.end = i + 1,
                _ => {
                    batches.push(i..i + 1);
                    n_tokens = piece.tokens.len();
                }
            }
        }
        batches
    }

    /// The most tokens whose keys and values are kept at once: while a batch is computed, what it looks back at and what it keeps.
    pub(crate) fn max_kept(&self, batches: &[Range<usize>]) -> usize {
        let kept = |batch: &Range<usize>| -> usize {
            let (before, behind) = (self.kept_before(batch.start), self.kept_before(batch.end));
            let is_new = |(piece, _): &&(usize, usize)| before.iter().all(|(known, _)| known != piece);
            before.iter().chain(behind.iter().filter(is_new)).map(|(_, n)| n).sum()
        };
        batches.iter().map(kept).max().unwrap_or(0)
    }

    /// What has to outlive the batch that ends before a piece: pieces, and how many of their first tokens.
    pub(crate) fn kept_before(&self, piece: usize) -> &[(usize, usize)] {
        self.pieces.get(piece).map_or(&[], |piece| &piece.before)
    }
}

/// Leaves of the held pieces what another input has in common with theirs.
fn forget(held: &mut Vec<Held>, common: usize) {
    while let Some(last) = held.last_mut() {
        if last.positions.start + MIN_SHARED <= common {
            last.positions.end = last.positions.end.min(common);
            return;
        }
        held.pop();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn row(answer: usize, input: &[u32], n_targets: usize) -> Row {
        Row {
            input: input.to_vec(),
            answer,
            targets: (0..n_targets as u32).map(|i| 1000 + i).collect(),
        }
    }

    /// What a position of a piece sees, from the first token to its own.
    fn seen(plan: &Plan, piece: usize, at: usize) -> Vec<u32> {
        let mine = &plan.pieces[piece];
        let before = mine
            .before
            .iter()
            .flat_map(|&(other, n)| &plan.pieces[other].tokens[..n]);
        before.chain(&mine.tokens[..=at]).copied().collect()
    }

    fn n_computed(plan: &Plan) -> u64 {
        plan.pieces.iter().map(|piece| piece.tokens.len() as u64).sum()
    }

    #[test]
    fn choices_of_a_context_share_it_and_one_of_one_token_costs_nothing() {
        let context: Vec<u32> = (0..20).collect();
        let longer: Vec<u32> = context.iter().copied().chain([7, 8]).collect();
        let rows = || vec![row(0, &longer, 3), row(1, &context, 1), row(2, &context, 1)];
        let plan = Plan::new(&rows(), 64);
        assert_eq!((plan.n_asked, n_computed(&plan)), (42, 22));
        assert_eq!(plan.pieces[1].before, [(0, 20)]);
        let wanted: Vec<_> = plan.pieces[0].wanted.iter().map(|w| (w.at, w.answer)).collect();
        assert_eq!(wanted, [(19, 1), (19, 2), (19, 0)]);
        // What is longer than a batch is computed in parts.
        let plan = Plan::new(&rows(), 9);
        let sizes: Vec<_> = plan.pieces.iter().map(|piece| piece.tokens.len()).collect();
        assert_eq!(sizes, [9, 9, 2, 4], "two tokens are not worth being looked back at");
        assert_eq!(plan.pieces[3].before, [(0, 9), (1, 9)]);
        assert_eq!(plan.max_kept(&plan.batches(9)), 18);
        // The second batch ends a text of 24, and keeps the 8 tokens that the third looks back at.
        let (text, head): (Vec<u32>, Vec<u32>) = ((0..24).collect(), (100..108).collect());
        let behind: Vec<u32> = (100..118).collect();
        let plan = Plan::new(&[row(0, &text, 1), row(1, &head, 1), row(2, &behind, 1)], 16);
        assert_eq!(plan.batches(16), [0..1, 1..3, 3..4]);
        assert_eq!(plan.max_kept(&plan.batches(16)), 24);
    }

    proptest! {
        #[test]
        fn every_target_is_predicted_once_by_a_position_that_sees_its_input(
            inputs in prop::collection::vec((prop::collection::vec(0..2_u32, 0..14), 1..4_usize), 1..24),
            max_tokens in 1..64_usize,
        ) {
            // Long common beginnings of various depths.
            let spread = |bits: &[u32]| -> Vec<u32> { bits.iter().flat_map(|&bit| [bit; 5]).chain([9]).collect() };
            let rows: Vec<Row> = inputs
                .iter()
                .enumerate()
                .map(|(i, (bits, n))| row(i, &spread(bits), *n))
                .map(|row| Row { targets: row.targets[..row.targets.len().min(row.input.len())].to_vec(), ..row })
                .collect();
            let plan = Plan::new(&rows, max_tokens);

            let mut found = Vec::new();
            for (i, piece) in plan.pieces.iter().enumerate() {
                for wanted in &piece.wanted {
                    found.push((wanted.answer, wanted.token, seen(&plan, i, wanted.at)));
                }
            }
            found.sort();
            let mut expected = Vec::new();
            for row in &rows {
                let first = row.input.len() - row.targets.len();
                for (i, &token) in row.targets.iter().enumerate() {
                    expected.push((row.answer, token, row.input[..=first + i].to_vec()));
                }
            }
            expected.sort();
            prop_assert_eq!(found, expected);

            // What a batch looks back at is in it, or was kept from the one before.
            let batches = plan.batches(max_tokens);
            let room = plan.max_kept(&batches);
            let mut next = 0;
            // What a pool holds: of each piece as many tokens as are still looked back at.
            let mut held: Vec<(usize, usize)> = Vec::new();
            for batch in batches {
                let behind = plan.kept_before(batch.end);
                let is_held = |piece: usize| held.iter().any(|&(held, _)| held == piece);
                let n_new: usize = behind.iter().filter(|&&(piece, _)| !is_held(piece)).map(|(_, n)| n).sum();
                prop_assert!(held.iter().map(|(_, n)| n).sum::<usize>() + n_new <= room);
                for &(piece, n) in behind {
                    let n_held = held.iter().find(|&&(held, _)| held == piece).map(|&(_, n)| n);
                    prop_assert!(n_held.is_none_or(|held| n <= held), "a piece that is kept does not grow");
                    prop_assert!(n_held.is_some() || batch.contains(&piece));
                }
                held = behind.to_vec();
                prop_assert_eq!(batch.start, next);
                next = batch.end;
                let kept = plan.kept_before(batch.start);
                for piece in &plan.pieces[batch.clone()] {
                    for &(other, n) in &piece.before {
                        let is_kept = kept.iter().any(|&(kept, n_kept)| kept == other && n <= n_kept);
                        prop_assert!(batch.contains(&other) || is_kept);
                    }
                }
                let n_tokens: usize = plan.pieces[batch.clone()].iter().map(|piece| piece.tokens.len()).sum();
                prop_assert!(n_tokens <= max_tokens);
            }
            prop_assert_eq!(next, plan.pieces.len());
        }
    }
}
