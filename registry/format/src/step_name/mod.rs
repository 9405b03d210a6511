//! What a checkpoint's name says: a branch, a folder, a repository or a file. Nothing of it is looked up.
//!
//! A name's last part (behind the last `/`) is cut into words at everything that is neither letter nor digit; upper and
//! lower case are one. A step stands behind `step`, `iter`, `ba`, `checkpoint` or `ckpt`, tokens behind `tokens`.
//!
//! **Invariant:** a model's size is never taken for tokens. An amount that nothing names counts as tokens only
//! - in `bt`, billions of tokens (`200bt`);
//! - in `B` at the name's end, with a decimal point, two digits at least before it and four in all, as no model's size
//!   is written (`100.66B`, `218.1B`; not `7B`, `1.1B`, `46.7B`, and so not `8.39B` either: that takes a template);
//! - in `T`, where nothing else stands in the name (`2.5T`);
//! - in `B` or `T` right behind a step in thousands, where the name has said a size before (TinyLlama's
//!   `1.1B-…-step-50K-104b`).
//!
//! What nothing names and `k` ends is a step where nothing else stands in the name (`1195k`). Beside both, the words
//! `-hf`, `-unsharded`, `-seed-default` and a file's ending count as nothing.

mod amount;
mod infer;
mod template;

use amount::{Amount, Unit, Word, words};

pub use infer::{InferredStep, infer_step};
pub use template::StepTemplate;

/// The words that a step stands behind, those first that say it best: `ckpt_3_step_500` is step 500.
const STEP_WORDS: [&[&str]; 4] = [
    &["step", "steps"],
    &["iter", "iters", "iteration"],
    &["ba"],
    &["checkpoint", "ckpt"],
];

/// The words that tokens stand behind.
const TOKEN_WORDS: [&str; 2] = ["tokens", "token"];

/// The words at a name's end that say nothing of its step.
const SUFFIXES: [&str; 9] = [
    "hf",
    "unsharded",
    "seed",
    "default",
    "pt",
    "pth",
    "bin",
    "safetensors",
    "ckpt",
];

/// What a name says of its checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StepName {
    /// The training step.
    pub step: Option<u64>,
    /// The tokens trained on until then.
    pub tokens: Option<RoundedTokens>,
    /// The stage of the training (`stage2-…`), whose steps begin anew.
    pub stage: Option<u64>,
    /// The ingredient of that stage (`…-ingredient1-…`): one of several trainings that are averaged.
    pub ingredient: Option<u64>,
}

/// A token count as a name writes it: the true count lies within `tokens` ± `half_unit`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoundedTokens {
    /// The count as written.
    pub tokens: u64,
    /// Half of the last written digit's unit; 0 where the count is written in full.
    pub half_unit: u64,
}

/// Reads a name by the grammar of releases. `None` where it says neither step nor tokens (`main`, `final`), or says one
/// of them twice with different numbers.
pub fn read_step_name(name: &str) -> Option<StepName> {
    let name = last_part(name).to_ascii_lowercase();
    let words = words(&name);
    let alone = without_suffixes(&words);
    let (step, behind) = match step(&words).ok()? {
        Some((step, at)) => (Some(step), Some(at)),
        None => (alone_in_thousands(alone), None),
    };
    let tokens = tokens(&words, alone, behind).ok()?;
    if step.is_none() && tokens.is_none() {
        return None;
    }
    Some(StepName {
        step,
        tokens,
        stage: numbered(&words, "stage"),
        ingredient: numbered(&words, "ingredient"),
    })
}

/// What stands behind a path's last `/`; a folder's own at its end is none.
fn last_part(name: &str) -> &str {
    let name = name.trim_end_matches('/');
    name.rsplit_once('/').map_or(name, |(_, last)| last)
}

/// A name that says one thing twice, and differently.
#[derive(Debug)]
struct Contradiction;

/// The one value of all; none when there are none.
fn one<T: PartialEq>(values: impl IntoIterator<Item = T>) -> Result<Option<T>, Contradiction> {
    let mut values = values.into_iter();
    let first = values.next();
    match values.all(|value| Some(value) == first) {
        true => Ok(first),
        false => Err(Contradiction),
    }
}

/// The amounts that stand behind one of these words, joined to it or divided by one sign, and where each ends.
fn behind<'a>(words: &'a [Word<'a>], keys: &'a [&str]) -> impl Iterator<Item = (&'a Amount<'a>, usize)> {
    let found = move |(at, word): (usize, &'a Word<'a>)| {
        if !keys.contains(&word.letters) {
            return None;
        }
        if let Some(amount) = &word.amount {
            return Some((amount, at + 1));
        }
        let next = words.get(at + 1).filter(|next| next.letters.is_empty())?;
        let joined = ["-", "_", "=", " "].contains(&next.before);
        Some((next.amount.as_ref().filter(|_| joined)?, at + 2))
    };
    words.iter().enumerate().filter_map(found)
}

/// The step, and where it ends. A number with another right behind it is no step: `checkpoint-2024-01-31` is a date.
fn step(words: &[Word<'_>]) -> Result<Option<(u64, usize)>, Contradiction> {
    let is_number = |word: &Word<'_>| {
        word.letters.is_empty() && word.amount.as_ref().is_some_and(|amount| amount.unit == Unit::One)
    };
    for (rank, keys) in STEP_WORDS.iter().enumerate() {
        let steps = behind(words, keys).filter_map(|(amount, end)| {
            let may_be_step = match amount.unit {
                Unit::One | Unit::Thousand => true,
                // `checkpoint-410m` is a model's size.
                Unit::Million => rank < 2,
                _ => false,
            };
            let is_dated = words.get(end).is_some_and(is_number);
            Some((amount.count().filter(|_| may_be_step && !is_dated)?, end))
        });
        let mut last = None;
        let steps = steps.map(|(step, end)| {
            last = Some(end);
            step
        });
        let step = one(steps)?;
        if let Some(found) = step.zip(last) {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn alone_in_thousands(alone: &[Word<'_>]) -> Option<u64> {
    let amount = bare(alone.first().filter(|_| alone.len() == 1)?)?;
    amount.count().filter(|_| amount.unit == Unit::Thousand)
}

/// The tokens, by the rules at the top of this file.
fn tokens(
    words: &[Word<'_>],
    alone: &[Word<'_>],
    behind_step: Option<usize>,
) -> Result<Option<RoundedTokens>, Contradiction> {
    let named = behind(words, &TOKEN_WORDS).map(|(amount, _)| amount);
    let in_bt = words.iter().filter_map(|word| word.amount.as_ref());
    let in_bt = in_bt.filter(|amount| amount.unit == Unit::BillionTokens);
    let said = one(named.chain(in_bt).filter_map(Amount::tokens))?;
    let bare = || told_by_place(words, alone, behind_step).and_then(Amount::tokens);
    Ok(said.or_else(bare))
}

/// The amount that its place in the name, or how it is written, tells to be of tokens.
fn told_by_place<'a>(
    words: &'a [Word<'a>],
    alone: &'a [Word<'a>],
    behind_step: Option<usize>,
) -> Option<&'a Amount<'a>> {
    if let Some(end) = behind_step {
        let amount = bare(words.get(end)?)?;
        let thousands = words[end - 1].amount.as_ref()?.unit == Unit::Thousand;
        let is_size = |amount: &Amount<'_>| matches!(amount.unit, Unit::Million | Unit::Billion);
        let sized = words[..end - 1].iter().filter_map(bare).any(is_size);
        let large = matches!(amount.unit, Unit::Billion | Unit::Trillion);
        return Some(amount).filter(|_| thousands && sized && large);
    }
    let amount = bare(alone.last()?)?;
    let is_tokens = match amount.unit {
        Unit::Billion => amount.is_finer_than_a_size(),
        Unit::Trillion => alone.len() == 1,
        _ => false,
    };
    Some(amount).filter(|_| is_tokens)
}

/// An amount with nothing before it in its word.
fn bare<'a>(word: &'a Word<'a>) -> Option<&'a Amount<'a>> {
    word.amount.as_ref().filter(|_| word.letters.is_empty())
}

fn without_suffixes<'a>(words: &'a [Word<'a>]) -> &'a [Word<'a>] {
    let is_suffix = |word: &Word<'_>| word.amount.is_none() && SUFFIXES.contains(&word.letters);
    let end = words.iter().rposition(|word| !is_suffix(word)).map_or(0, |at| at + 1);
    &words[..end]
}

/// The number behind a word, when one stands there once.
fn numbered(words: &[Word<'_>], key: &str) -> Option<u64> {
    let numbers = behind(words, &[key])
        .filter(|(amount, _)| amount.unit == Unit::One)
        .filter_map(|(amount, _)| amount.count())
        .collect::<Vec<_>>();
    one(numbers).ok().flatten()
}

#[cfg(test)]
mod tests;
