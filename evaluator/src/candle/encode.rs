//! Texts to tokens and rows, by lm-eval's rules: on all cores, and where the cores have nothing else to do before they are asked for.

use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::{Context, Result};
use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};

use super::plan::Row;
use crate::config::Config;
use crate::engine::{Asked, Done, Progress, Unanswerable};
use crate::tokenizer::Tokenizer;

/// Texts that become tokens between two questions whether to go on.
const N_TEXTS: usize = 256;

/// A model's tokenizer, and how much the model reads.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) tokenizer: Tokenizer,
    config: Config,
    /// End with the tokenizer: `tokenizers` keeps the words of each tokenizer that a thread ever worked with until the thread ends.
    threads: ThreadPool,
}

impl Reader {
    /// A reader with threads of its own.
    ///
    /// # Errors
    /// When the system has no more threads.
    pub(super) fn new(tokenizer: Tokenizer, config: Config) -> Result<Self> {
        let threads = ThreadPoolBuilder::new().thread_name(|i| format!("reader-{i}"));
        Ok(Self {
            tokenizer,
            config,
            threads: threads.build().context("threads that read texts")?,
        })
    }

    /// The row of each (context, continuation).
    ///
    /// # Errors
    /// [`Unanswerable`], and what the tokenizer or `progress` says.
    pub(super) fn pairs(&self, requests: &[(String, String)], progress: Progress<'_>) -> Result<Vec<Row>> {
        let row = |(i, (context, continuation)): (usize, &(String, String))| -> Result<Row> {
            let (context, continuation) = self.tokenizer.encode_pair(context, continuation)?;
            self.check_lengths(i, context.len(), continuation.len())?;
            Ok(self.row(i, context, &continuation))
        };
        self.of_each(requests, row, progress)
    }

    /// The windows of each document.
    ///
    /// # Errors
    /// What the tokenizer or `progress` says.
    pub(super) fn documents(&self, documents: &[String], progress: Progress<'_>) -> Result<Vec<Row>> {
        let rows_of = |(answer, document): (usize, &String)| -> Result<Vec<Row>> {
            let tokens = self.tokenizer.encode(document)?;
            let windows = windows(&tokens, self.tokenizer.prefix(), self.config.max_length);
            let row = |(input, targets)| Row { input, answer, targets };
            Ok(windows.into_iter().map(row).collect())
        };
        Ok(self.of_each(documents, rows_of, progress)?.concat())
    }

    /// What is made of each text (its number, itself), on all cores.
    pub(super) fn of_each<T: Sync, R: Send>(
        &self,
        texts: &[T],
        make: impl Fn((usize, &T)) -> Result<R> + Sync,
        progress: Progress<'_>,
    ) -> Result<Vec<R>> {
        let mut made = Vec::with_capacity(texts.len());
        for (n, texts) in texts.chunks(N_TEXTS).enumerate() {
            let numbered = texts.par_iter().enumerate().map(|(i, text)| (n * N_TEXTS + i, text));
            let results: Vec<Result<R>> = self.threads.install(|| numbered.map(&make).collect());
            // Behind the threads, so that the first text that is refused is named, not the one whose thread was first.
            made.extend(results.into_iter().collect::<Result<Vec<R>>>()?);
            progress(Done::default())?;
        }
        Ok(made)
    }

    /// Demands what lm-eval demands of a context and a continuation, in tokens.
    fn check_lengths(&self, request: usize, n_context: usize, n_continuation: usize) -> Result<()> {
        let max_length = self.config.max_length;
        let what = match (n_context, n_continuation) {
            (0, _) => "has a context without a token".to_owned(),
            (_, 0) => "has a continuation without a token".to_owned(),
            (_, n) if n > max_length => {
                format!("has a continuation of {n} tokens, and the model reads {max_length}")
            }
            _ => return Ok(()),
        };
        Err(Unanswerable { request, what }.into())
    }

    /// The last `max_length + 1` tokens of context and continuation: all but the last are the input, and the
    /// continuation's are predicted.
    fn row(&self, answer: usize, context: Vec<u32>, continuation: &[u32]) -> Row {
        let mut all = context;
        all.extend(continuation);
        let begin = all.len().saturating_sub(self.config.max_length + 1);
        Row {
            input: all[begin..all.len() - 1].to_vec(),
            targets: continuation.to_vec(),
            answer,
        }
    }
}

/// What is asked next, becoming rows on a thread of its own.
#[derive(Debug)]
pub(super) struct Expected {
    asked: Arc<Asked>,
    rows: JoinHandle<Result<Vec<Row>>>,
}

impl Expected {
    /// Begins to read; prompts are too few for it.
    pub(super) fn read(reader: &Arc<Reader>, asked: Asked) -> Option<Self> {
        if matches!(asked, Asked::Generations(_)) {
            return None;
        }
        let asked = Arc::new(asked);
        let texts = Arc::clone(&asked);
        let reader = Arc::clone(reader);
        let read = move || match &*texts {
            Asked::Pairs(pairs) => reader.pairs(pairs, &mut |_| Ok(())),
            Asked::Documents(documents) => reader.documents(documents, &mut |_| Ok(())),
            Asked::Generations(_) => Ok(Vec::new()),
        };
        Some(Self {
            asked,
            rows: std::thread::spawn(read),
        })
    }

    pub(super) fn asked(&self) -> &Asked {
        &self.asked
    }

    /// Waits for the rows.
    ///
    /// # Errors
    /// As [`Reader::pairs`].
    pub(super) fn rows(self) -> Result<Vec<Row>> {
        self.rows.join().ok().context("reading texts panicked")?
    }
}

/// The windows of a document: every token is predicted once, the first window begins with the prefix token, and the last
/// keeps a full window of left context. Gives (input, tokens that its last positions predict).
fn windows(tokens: &[u32], prefix: u32, max_length: usize) -> Vec<(Vec<u32>, Vec<u32>)> {
    let mut windows = Vec::new();
    let first = tokens.len().min(max_length);
    if first == 0 {
        return windows;
    }
    let input = std::iter::once(prefix).chain(tokens[..first - 1].iter().copied());
    windows.push((input.collect(), tokens[..first].to_vec()));
    let mut predicted = first;
    while predicted < tokens.len() {
        let end = tokens.len().min(predicted + max_length);
        windows.push((
            tokens[end - max_length - 1..end - 1].to_vec(),
            tokens[predicted..end].to_vec(),
        ));
        predicted = end;
    }
    windows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_those_of_the_rule_book() {
        let tokens: Vec<u32> = (1..=9).collect();
        let expected = [
            (vec![0, 1, 2, 3], vec![1, 2, 3, 4]),
            (vec![4, 5, 6, 7], vec![5, 6, 7, 8]),
            (vec![5, 6, 7, 8], vec![9]),
        ];
        assert_eq!(windows(&tokens, 0, 4), expected);
        assert_eq!(windows(&tokens[..2], 0, 4), [(vec![0, 1], vec![1, 2])]);
        assert!(windows(&[], 0, 4).is_empty());
    }
}
