//! Counting how much of the test the training text holds: every window of every row that was trained on is looked up.

use std::collections::{HashMap, HashSet};

use super::grammar::Item;
use super::vocabulary::Vocabulary;

/// The prompts of the test, by their length in tokens.
#[derive(Debug)]
pub struct Overlap {
    prompts: HashMap<usize, HashSet<Vec<u32>>>,
    seen: HashSet<Vec<u32>>,
    n_tokens: u64,
}

impl Overlap {
    /// A count for these items. Their contexts are looked for, without the answer: what holds a whole item holds its
    /// context too.
    pub fn new(items: &[Item], vocabulary: &Vocabulary) -> Self {
        let mut prompts: HashMap<usize, HashSet<Vec<u32>>> = HashMap::new();
        for item in items {
            let tokens = vocabulary.encode(&item.context);
            prompts.entry(tokens.len()).or_default().insert(tokens);
        }
        Self {
            prompts,
            seen: HashSet::new(),
            n_tokens: 0,
        }
    }

    /// Looks through a text that is trained on.
    pub fn add(&mut self, tokens: &[u32]) {
        self.n_tokens += tokens.len() as u64;
        for (length, prompts) in &self.prompts {
            for window in tokens.windows(*length) {
                if prompts.contains(window) {
                    self.seen.insert(window.to_vec());
                }
            }
        }
    }

    /// Prompts that were found.
    pub fn n_seen(&self) -> usize {
        self.seen.len()
    }

    /// Tokens that were looked through.
    pub fn n_tokens(&self) -> u64 {
        self.n_tokens
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::super::grammar::{Domain, Grammar};
    use super::*;

    #[test]
    fn training_text_holds_no_item_and_one_that_does_is_counted() {
        let (grammar, vocabulary, mut rng) = (Grammar::new(1), Vocabulary::of_grammar(), StdRng::seed_from_u64(2));
        let items: Vec<Item> = Domain::ALL
            .into_iter()
            .flat_map(|domain| grammar.items(domain, 100, &mut rng))
            .collect();
        let mut overlap = Overlap::new(&items, &vocabulary);
        for _ in 0..20_000 {
            overlap.add(&vocabulary.encode(&grammar.sentence(&mut rng)));
        }
        assert_eq!(overlap.n_seen(), 0);
        let leaked = format!("the dog runs . {} .", items[0].text());
        overlap.add(&vocabulary.encode(&leaked));
        overlap.add(&vocabulary.encode(&leaked));
        assert_eq!(overlap.n_seen(), 1);
    }
}
