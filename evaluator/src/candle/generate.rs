//! Texts that go on from prompts, greedily, many at a time: a batch is the next token of every text in the making, and the
//! prompts of those that begin. A text that ends makes room for the next.
//!
//! As lm-eval does it for a causal model: a prompt keeps its last `max_length - max_tokens` tokens; a text ends at the
//! tokenizer's or the model's EOS or where one of its `until` stands, and is cut before the first of each in turn.
//!
//! **Invariant:** keys and values that are kept stay below `max_kept_bytes`, those of one text and of the prompts' common
//! beginning aside.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};

use super::batch::{Batch, Before, Cache, Key, Source};
use super::engine::{CandleEngine, Counts};
use super::llama::Check;
use crate::engine::{Done, Generation, NotFinite, Progress};

/// The name under which the common beginning of all prompts is kept; texts have theirs by request.
const COMMON: Key = usize::MAX;

/// A text in the making.
struct Text {
    request: usize,
    tokens: Vec<u32>,
    /// Tokens of its prompt behind the common beginning.
    n_prompt: usize,
}

/// The text that goes on from each prompt.
pub(super) fn generate(
    engine: &mut CandleEngine,
    requests: &[Generation],
    progress: Progress<'_>,
) -> Result<Vec<String>> {
    let reader = Arc::clone(&engine.reader);
    let prompts = reader.of_each(requests, |(_, request)| prompt(engine, request), progress)?;
    let max_kept = engine.max_kept_bytes / engine.kept_bytes();
    let max_tokens = engine.options.max_batch_tokens.max(1);
    let longest = prompts
        .iter()
        .zip(requests)
        .map(|(prompt, request)| prompt.len() + request.max_tokens);
    engine.check_kept(longest.max().unwrap_or(0))?;
    let mut done: Vec<Option<String>> = vec![None; requests.len()];

    let n_common = common(&prompts);
    let max_kept = max_kept.saturating_sub(n_common);
    let reserved = |request: usize| prompts[request].len() - n_common + requests[request].max_tokens;
    let (mut n_all, mut n_longest) = (0, 0);
    for n in (0..requests.len()).map(reserved) {
        (n_all, n_longest) = (n_all + n, n_longest.max(n));
    }
    // No more than all texts at once take, and room for one text however long.
    let mut cache = engine.model.cache(n_common + n_all.min(max_kept).max(n_longest))?;
    let (mut counts, mut n_done) = (Counts::default(), 0);
    let before_all = |own: Option<(Key, usize)>| -> Vec<Before> {
        let common = (n_common > 0).then_some((COMMON, n_common));
        common.into_iter().chain(own).map(kept).collect()
    };

    let shared = prompts.first().map_or(&[][..], |first| &first[..n_common]);
    let before = |n_read: usize| (n_read > 0).then(|| kept((COMMON, n_read))).into_iter().collect();
    read(engine, shared, 0, COMMON, &mut cache, &before, &mut || {
        progress(Done::default())
    })?;
    counts.compute(0, n_common);

    let (mut open, mut next, mut n_reserved): (Vec<Text>, usize, usize) = (Vec::new(), 0, 0);
    while next < requests.len() || !open.is_empty() {
        let (mut batch, mut rows) = (Batch::default(), Vec::new());
        for text in &open {
            let n_kept = text.n_prompt + text.tokens.len() - 1;
            let last = text.tokens.last().context("a text in the making has a token")?;
            let before = before_all(Some((text.request, n_kept)));
            rows.push(batch.push(&[*last], n_common + n_kept, before, Some((text.request, 1))) as u32);
            counts.n_asked += 1;
            counts.compute(n_common + n_kept, 1);
        }
        while next < requests.len() {
            let own = &prompts[next][n_common..];
            let fits = n_reserved + reserved(next) <= max_kept
                && batch.ids.len() + own.len() <= engine.options.max_batch_tokens;
            if !(fits || open.is_empty() && batch.ids.is_empty()) {
                break;
            }
            // What does not fit into a batch is read before.
            let (ahead, own) = own.split_at(own.len().saturating_sub(max_tokens));
            let n_ahead = ahead.len();
            let before = |n_read: usize| before_all((n_read > 0).then_some((next, n_read)));
            read(engine, ahead, n_common, next, &mut cache, &before, &mut || {
                progress(said(n_done, counts))
            })?;
            counts.compute(n_common, n_ahead);
            let first = batch.push(own, n_common + n_ahead, before(n_ahead), Some((next, own.len())));
            rows.push((first + own.len() - 1) as u32);
            counts.n_asked += prompts[next].len() as u64;
            counts.compute(n_common + n_ahead, own.len());
            n_reserved += reserved(next);
            open.push(Text {
                request: next,
                tokens: Vec::new(),
                n_prompt: n_ahead + own.len(),
            });
            next += 1;
        }
        let hidden = engine
            .model
            .forward(&batch, &mut cache, &mut || progress(said(n_done, counts)))?;
        counts.n_scored += rows.len() as u64;
        let tokens = engine.next(&hidden, &rows, &mut || progress(said(n_done, counts)))?;
        for (text, token) in open.iter_mut().zip(tokens) {
            let request = text.request;
            text.tokens.push(token.ok_or(NotFinite { request })?);
            if let Some(ended) = ended(engine, &requests[text.request], &text.tokens)? {
                done[text.request] = Some(ended);
                n_reserved -= reserved(text.request);
                cache.forget(text.request);
                n_done += 1;
            }
        }
        open.retain(|text| done[text.request].is_none());
        progress(said(n_done, counts))?;
    }
    engine.count(counts);
    let text = |text: Option<String>| text.context("every text has an end");
    done.into_iter().map(text).collect()
}

/// What is kept of a text.
fn kept((key, n_tokens): (Key, usize)) -> Before {
    Before {
        source: Source::Kept(key),
        n_tokens,
    }
}

/// Reads tokens in parts of at most a batch and keeps them under `key`, the first standing at `position`; `before` says what
/// stands before them when so many are read.
fn read(
    engine: &CandleEngine,
    tokens: &[u32],
    position: usize,
    key: Key,
    cache: &mut Cache,
    before: &dyn Fn(usize) -> Vec<Before>,
    check: Check<'_>,
) -> Result<()> {
    let mut n_read = 0;
    for part in tokens.chunks(engine.options.max_batch_tokens.max(1)) {
        let mut batch = Batch::default();
        batch.push(part, position + n_read, before(n_read), Some((key, part.len())));
        engine.model.forward(&batch, cache, check)?;
        n_read += part.len();
    }
    Ok(())
}

fn said(n_requests: u64, counts: Counts) -> Done {
    Done {
        n_requests,
        n_tokens: counts.n_computed,
    }
}

/// The tokens of a prompt.
fn prompt(engine: &CandleEngine, request: &Generation) -> Result<Vec<u32>> {
    let (most, max_length) = (request.max_tokens, engine.config.max_length);
    ensure!(
        (1..max_length).contains(&most),
        "{most} tokens are asked for and the model reads {max_length}: ask for fewer"
    );
    let mut tokens = engine.reader.tokenizer.encode(&request.prompt)?;
    if tokens.is_empty() {
        tokens.push(engine.reader.tokenizer.prefix());
    }
    tokens.drain(..tokens.len().saturating_sub(max_length - most));
    engine.check(&tokens)?;
    Ok(tokens)
}

/// Tokens that all prompts begin with, each having one more; 0 where there is only one.
fn common(prompts: &[Vec<u32>]) -> usize {
    let [first, rest @ ..] = prompts else { return 0 };
    if rest.is_empty() {
        return 0;
    }
    let shortest = prompts.iter().map(Vec::len).min().unwrap_or(0);
    let same = |other: &Vec<u32>| first.iter().zip(other).take_while(|(a, b)| a == b).count();
    rest.iter().map(same).min().unwrap_or(0).min(shortest - 1)
}

/// The text of the tokens when they have come to an end.
fn ended(engine: &CandleEngine, request: &Generation, tokens: &[u32]) -> Result<Option<String>> {
    let text = engine.reader.tokenizer.decode(tokens)?;
    let until = || request.until.iter().filter(|until| !until.is_empty());
    let is_last =
        tokens.len() == request.max_tokens || tokens.last().is_some_and(|&id| engine.reader.tokenizer.is_end(id));
    if !is_last && !until().any(|until| text.contains(until.as_str())) {
        return Ok(None);
    }
    let cut = |text: String, until: &String| text.split(until.as_str()).next().unwrap_or_default().to_owned();
    Ok(Some(until().fold(text, cut)))
}
