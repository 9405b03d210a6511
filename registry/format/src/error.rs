//! What can be wrong with a manifest, a container of weights or an index.

/// Why something that came from outside is refused. Each message names the thing and what to do.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// A file's path leaves its folder or is not portable.
    #[error("path `{path}` is refused: {rule}")]
    Path {
        /// The path.
        path: String,
        /// The rule that it breaks.
        rule: &'static str,
    },
    /// A manifest breaks a rule.
    #[error("the manifest is refused: {0}")]
    Manifest(String),
    /// A container of weights is damaged or lies about itself.
    #[error("file `{file}` is refused: {what}")]
    Container {
        /// The file.
        file: String,
        /// What is wrong with it.
        what: String,
    },
    /// A PyTorch file in the form from before 2020 (no zip): it can be kept, and its tensors can't be listed.
    #[error(
        "file `{0}` is in PyTorch's legacy form (no zip, as before PyTorch 1.6), whose tensors can't be listed: \
         load it and save it again with PyTorch 1.6 or later"
    )]
    LegacyTorch(String),
    /// An index of shards does not fit the shards.
    #[error("index `{index}` is refused: {what}")]
    Index {
        /// The index file.
        index: String,
        /// What is wrong with it.
        what: String,
    },
    /// Bytes could not be read.
    #[error("file `{file}` can't be read")]
    Io {
        /// The file.
        file: String,
        /// Why.
        source: std::io::Error,
    },
}

impl FormatError {
    pub(crate) fn container(file: &str, what: impl AsRef<str>) -> Self {
        Self::Container {
            file: shown(file),
            what: shown(what.as_ref()),
        }
    }

    pub(crate) fn manifest(what: impl AsRef<str>) -> Self {
        Self::Manifest(shown(what.as_ref()))
    }

    pub(crate) fn index(index: &str, what: impl AsRef<str>) -> Self {
        Self::Index {
            index: shown(index),
            what: shown(what.as_ref()),
        }
    }

    pub(crate) fn io(file: &str) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |source| Self::Io {
            file: shown(file),
            source,
        }
    }
}

/// Text from an input as it may stand in a message or a log: control characters escaped, at most 400 characters.
pub(crate) fn shown(text: &str) -> String {
    shown_within(400, text)
}

/// Text from an input as it may stand in a message or a log: control characters escaped, and no more than so many of it.
pub fn shown_within(max_chars: usize, text: &str) -> String {
    let mut shown = String::new();
    for (i, c) in text.chars().enumerate() {
        match c {
            _ if i == max_chars => {
                shown.push('…');
                break;
            }
            c if c.is_control() => shown.extend(c.escape_default()),
            c => shown.push(c),
        }
    }
    shown
}

/// A name from an input within a message: its first 80 characters.
pub(crate) fn short(name: &str) -> &str {
    name.char_indices().nth(80).map_or(name, |(end, _)| &name[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_input_names_is_short_and_printable_in_a_message() {
        let error = FormatError::container("f", format!("tensor `{}`", "a\n".repeat(500))).to_string();

        assert!(error.len() < 900 && !error.contains('\n'), "{error}");
        assert!(error.contains("tensor `a\\na\\n"), "{error}");
    }
}
