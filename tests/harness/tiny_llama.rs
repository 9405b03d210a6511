//! A checkpoint that the real engine computes and a suite of real tasks for it, made on the spot.

use std::path::{Path, PathBuf};

use fineline_evaluator::demo::checkpoint::{State, save};
use fineline_evaluator::demo::grammar::{Domain, Grammar};
use fineline_evaluator::demo::model::Trainable;
use fineline_evaluator::demo::vocabulary::Vocabulary;
use fineline_evaluator::demo::{items, tasks};

/// Writes an untrained LLaMA of the demo's shape, whose weights follow from `seed`.
pub fn tiny_llama(parent: &Path, name: &str, seed: u64) -> PathBuf {
    let dir = parent.join(name);
    let vocabulary = Vocabulary::of_grammar();
    let model = Trainable::new(vocabulary.size(), seed).expect("a model");
    let state = State {
        step: 1,
        tokens: 0,
        loss: None,
    };
    save(&dir, &model, &vocabulary, state).expect("a checkpoint");
    dir
}

/// Writes a suite of a task a domain and one of text, with `n_items` items of each domain; gives its path and the tasks'
/// names in their order.
pub fn grammar_suite(parent: &Path, n_items: usize) -> (PathBuf, Vec<String>) {
    let items = items(&Grammar::new(1), 1);
    let of_domain = |domain: Domain| items.iter().filter(move |item| item.domain == domain).take(n_items);
    let few: Vec<_> = Domain::ALL.into_iter().flat_map(of_domain).cloned().collect();
    let file = tasks::write(&parent.join("grammar"), &few).expect("a suite");
    let domains = Domain::ALL.into_iter().map(|domain| domain.task().to_owned());
    (file, domains.chain([tasks::TEXT_TASK.to_owned()]).collect())
}
