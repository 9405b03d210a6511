//! What makes two checkpoints the same model: weights, config and tokenizer, whatever else lies beside them.

use std::collections::BTreeMap;

use fineline_format::evaluable::{TOKENIZER_FILES, has_tokenizer};
use fineline_format::{Digest, Manifest};
use serde_json::{Value, json};

use crate::db::tokenizer::TokenizerFiles;

/// The tokenizer of a checkpoint's own: all of its files that belong to one, when they are enough.
pub(crate) fn own_tokenizer(manifest: &Manifest) -> Option<TokenizerFiles> {
    let digest = |name: &str| manifest.get(name).map(|file| file.digest);
    if !has_tokenizer(manifest) {
        return None;
    }
    let files = TOKENIZER_FILES.into_iter();
    Some(
        files
            .filter_map(|name| Some((name.to_owned(), digest(name)?)))
            .collect(),
    )
}

fn as_json(tokenizer: &TokenizerFiles) -> Value {
    let hex: BTreeMap<&str, String> = tokenizer
        .iter()
        .map(|(name, digest)| (name.as_str(), digest.to_hex()))
        .collect();
    json!(hex)
}

/// A tokenizer's digest: SHA-256 over `{name:…}` in hex, sorted, no white space.
pub(crate) fn tokenizer_digest(tokenizer: &TokenizerFiles) -> Digest {
    Digest::of(as_json(tokenizer).to_string().as_bytes())
}

/// The model digest: SHA-256 over `{"config":…,"tokenizer":{name:…},"weights":…}` in hex, sorted, no white space;
/// `None` unless weights and config.json are there.
pub(crate) fn model_digest(manifest: &Manifest, tokenizer: &TokenizerFiles, weights: Option<Digest>) -> Option<Digest> {
    let parts = BTreeMap::from([
        ("config", json!(manifest.get("config.json")?.digest.to_hex())),
        ("tokenizer", as_json(tokenizer)),
        ("weights", json!(weights?.to_hex())),
    ]);
    Some(Digest::of(
        &serde_json::to_vec(&parts).expect("strings are always JSON"),
    ))
}

#[cfg(test)]
mod tests {
    use fineline_format::FileEntry;

    use super::*;

    fn manifest(files: &[(&str, &[u8])]) -> Manifest {
        let entry = |(path, bytes): &(&str, &[u8])| FileEntry {
            path: (*path).to_owned(),
            size_bytes: bytes.len() as u64,
            digest: Digest::of(bytes),
        };
        Manifest::new(files.iter().map(entry).collect()).unwrap()
    }

    fn own(manifest: &Manifest, weights: Option<Digest>) -> Option<Digest> {
        model_digest(manifest, &own_tokenizer(manifest)?, weights)
    }

    #[test]
    fn a_changed_readme_is_the_same_model_and_a_changed_tokenizer_another() {
        let weights = Some(Digest::of(b"w"));
        let base = own(&manifest(&[("config.json", b"c"), ("tokenizer.json", b"t")]), weights);
        let readme = manifest(&[("config.json", b"c"), ("tokenizer.json", b"t"), ("README.md", b"r")]);
        let tokenizer = manifest(&[("config.json", b"c"), ("tokenizer.json", b"u")]);
        assert!(base.is_some());
        assert_eq!(own(&readme, weights), base);
        assert_ne!(own(&tokenizer, weights), base);
        assert_eq!(own(&readme, None), None);
        let sentencepiece = manifest(&[("config.json", b"c"), ("tokenizer.model", b"m")]);
        assert!(own(&sentencepiece, weights).is_some_and(|model| Some(model) != base));
        assert_eq!(own(&manifest(&[("config.json", b"c")]), weights), None);
    }

    #[test]
    fn a_lent_tokenizer_makes_the_model_that_the_same_one_of_its_own_would() {
        let weights = Some(Digest::of(b"w"));
        let whole = manifest(&[
            ("config.json", b"c"),
            ("tokenizer.json", b"t"),
            ("tokenizer.model", b"m"),
        ]);
        let bare = manifest(&[("config.json", b"c")]);
        let lent = own_tokenizer(&whole).unwrap();
        assert_eq!(model_digest(&bare, &lent, weights), own(&whole, weights));
        assert_eq!(model_digest(&manifest(&[("a", b"a")]), &lent, weights), None);
    }
}
