//! Which documents of the pool are a document's shots, as lm-eval draws them: one generator a task, which goes on from
//! document to document in their order.

use anyhow::{Context, Result, ensure};
use fineline_format::task::Sampler;
use serde_json::Value;

use super::python_random::PythonRandom;

/// lm-eval's seed for shots.
pub(super) const SEED: u64 = 1234;

/// Draws shots.
#[derive(Debug)]
pub(super) struct Shots {
    sampler: Sampler,
    pool: Vec<Value>,
    /// Whether the document itself is no shot of its own.
    drops_document: bool,
    random: PythonRandom,
}

impl Shots {
    pub(super) fn new(sampler: Sampler, pool: Vec<Value>, drops_document: bool) -> Self {
        Self {
            sampler,
            pool,
            drops_document,
            random: PythonRandom::new(SEED),
        }
    }

    /// The document of the pool at an index.
    pub(super) fn document(&self, index: usize) -> &Value {
        &self.pool[index]
    }

    /// Indices of the next document's shots.
    ///
    /// # Errors
    /// When the pool has too few.
    pub(super) fn draw(&mut self, n: usize, doc: &Value) -> Result<Vec<usize>> {
        let pool = &self.pool;
        let is_other = |index: &usize| !self.drops_document || pool[*index] != *doc;
        let few = || {
            format!(
                "{n} shots are asked for and there are {} documents for them",
                pool.len()
            )
        };
        let shots: Vec<usize> = match self.sampler {
            Sampler::FirstN => (0..pool.len()).filter(is_other).take(n).collect(),
            Sampler::Default => {
                let n_drawn = n + usize::from(self.drops_document);
                let sizes = u32::try_from(pool.len()).ok().zip(u32::try_from(n_drawn).ok());
                let drawn = sizes.and_then(|(pool, n_drawn)| self.random.sample(pool, n_drawn));
                drawn.with_context(few)?.into_iter().filter(is_other).take(n).collect()
            }
        };
        ensure!(shots.len() == n, "{}", few());
        Ok(shots)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shots(sampler: Sampler, drops_document: bool) -> Shots {
        Shots::new(sampler, (0..8).map(|i| json!({ "i": i })).collect(), drops_document)
    }

    /// The expected indices are those of `random.Random(1234).sample(pool, n)` in CPython 3.11.
    #[test]
    fn the_default_sampler_goes_on_from_document_to_document() {
        let mut drawn = shots(Sampler::Default, false);
        let doc = json!({"i": 6});
        assert_eq!(drawn.draw(5, &doc).unwrap(), [7, 0, 6, 5, 4]);
        assert_eq!(drawn.draw(5, &doc).unwrap(), [1, 0, 2, 7, 6]);
        // One more is drawn, and the document itself is dropped.
        let mut drawn = shots(Sampler::Default, true);
        assert_eq!(drawn.draw(4, &doc).unwrap(), [7, 0, 5, 4]);
        assert_eq!(drawn.draw(4, &json!({"i": 9})).unwrap(), [1, 0, 2, 7]);
        assert!(drawn.draw(8, &doc).is_err());
    }

    #[test]
    fn the_first_ones_pass_over_the_document() {
        let mut first = shots(Sampler::FirstN, true);
        assert_eq!(first.draw(3, &json!({"i": 1})).unwrap(), [0, 2, 3]);
        assert_eq!(first.draw(3, &json!({"i": 9})).unwrap(), [0, 1, 2]);
        assert!(first.draw(8, &json!({"i": 1})).is_err());
    }
}
