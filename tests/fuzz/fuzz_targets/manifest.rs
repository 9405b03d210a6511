//! Only canonical bytes are a manifest, each path stays in its folder, and any files that make one come back from it.

#![no_main]

use std::path::{Component, Path};

use fineline_format::{Digest, FileEntry, Manifest};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    match Manifest::from_json(bytes) {
        Ok(manifest) => {
            assert_eq!(manifest.to_canonical_json(), bytes);
            assert_eq!(manifest.digest(), Digest::of(bytes));
            check(&manifest);
        }
        Err(error) => {
            let message = error.to_string();
            assert!(
                message.len() < 4000 && !message.contains(char::is_control),
                "{message:?}"
            );
        }
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let entry = |(i, path): (usize, &str)| FileEntry {
        path: path.to_owned(),
        size_bytes: i as u64,
        digest: Digest::of(path.as_bytes()),
    };
    if let Ok(manifest) = Manifest::new(text.split('\n').enumerate().map(entry).collect()) {
        assert_eq!(
            Manifest::from_json(&manifest.to_canonical_json()).ok().as_ref(),
            Some(&manifest)
        );
        check(&manifest);
    }
});

fn check(manifest: &Manifest) {
    for file in manifest.files() {
        assert_eq!(manifest.get(&file.path), Some(file));
        let mut parts = Path::new(&file.path).components();
        assert!(
            parts.all(|part| matches!(part, Component::Normal(_))),
            "{:?}",
            file.path
        );
    }
}
