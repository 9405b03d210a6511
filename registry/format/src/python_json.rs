//! JSON as Python writes it, with bare words for what is no number.

use serde_json::Value;

/// Reads JSON, and the bare words of Python's that are none, as texts.
///
/// # Errors
/// What the JSON reader says of the bytes as they are.
pub fn parse(bytes: &[u8]) -> serde_json::Result<Value> {
    serde_json::from_slice(bytes).or_else(|error| {
        let quoted = quote_bare_words(bytes).ok_or(error)?;
        serde_json::from_slice(&quoted)
    })
}

/// Puts `NaN`, `Infinity` and `-Infinity` outside of texts in quotes; `None` when there are none.
fn quote_bare_words(bytes: &[u8]) -> Option<Vec<u8>> {
    const WORDS: [&[u8]; 3] = [b"NaN", b"-Infinity", b"Infinity"];
    let mut out = Vec::with_capacity(bytes.len() + 16);
    let (mut i, mut inside, mut found) = (0, false, false);
    while i < bytes.len() {
        let word = WORDS.iter().find(|word| !inside && bytes[i..].starts_with(word));
        if let Some(word) = word {
            out.push(b'"');
            out.extend_from_slice(word);
            out.push(b'"');
            i += word.len();
            found = true;
            continue;
        }
        let escaped = inside && bytes[i] == b'\\';
        inside ^= bytes[i] == b'"';
        let end = (i + 1 + usize::from(escaped)).min(bytes.len());
        out.extend_from_slice(&bytes[i..end]);
        i = end;
    }
    found.then_some(out)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn pythons_bare_words_become_texts() {
        let read = |text: &str| parse(text.as_bytes());
        let expected = json!({"a": ["NaN", "-Infinity", 1], "b\"NaN": "say NaN", "c": "\\"});
        assert_eq!(
            read(r#"{"a": [NaN, -Infinity, 1], "b\"NaN": "say NaN", "c": "\\"}"#).unwrap(),
            expected
        );
        assert!(read("{\"a\": nan}").is_err() && read("{\"a\": \"NaN\"").is_err());
    }
}
