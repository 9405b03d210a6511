//! The longest of some texts that another begins with.

use std::collections::{BTreeMap, HashSet};

/// Texts by their bytes.
#[derive(Debug, Default)]
pub(crate) struct Matcher {
    texts: HashSet<Vec<u8>>,
    /// Of each first byte, the lengths that there are, longest first.
    lengths: BTreeMap<u8, Vec<usize>>,
}

impl Matcher {
    pub(crate) fn new<'a>(texts: impl IntoIterator<Item = &'a str>) -> Self {
        let mut matcher = Self::default();
        for text in texts.into_iter().map(str::as_bytes) {
            let Some(&first) = text.first() else { continue };
            matcher.texts.insert(text.to_vec());
            let lengths = matcher.lengths.entry(first).or_default();
            if let Err(at) = lengths.binary_search_by(|length| text.len().cmp(length)) {
                lengths.insert(at, text.len());
            }
        }
        matcher
    }

    /// Bytes of the longest text that `text` begins with.
    pub(crate) fn longest(&self, text: &[u8]) -> Option<usize> {
        let lengths = self.lengths.get(text.first()?)?;
        let begins = |&&length: &&usize| text.get(..length).is_some_and(|begin| self.texts.contains(begin));
        lengths.iter().find(begins).copied()
    }
}
