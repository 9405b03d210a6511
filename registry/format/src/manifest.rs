//! A checkpoint's manifest: its files with sizes and SHA-256, in one canonical form whose digest is the checkpoint's.
//!
//! Canonical form: `{"files":[{"path":"config.json","sha256":"<64 hex>","size":720},…]}`, no white space, sorted by
//! the bytes of the path, no line end. `sha256sum` of it is the digest.
//!
//! **Invariant:** paths are relative, portable, and no two of them meet on a file system that ignores case.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::shown;
use crate::{Digest, FormatError};

/// The most files that a checkpoint may have.
pub const MAX_FILES: usize = 10_000;

const MAX_PATH_BYTES: usize = 512;
const MAX_PART_BYTES: usize = 255;

/// A file of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEntry {
    /// Relative path with `/`.
    pub path: String,
    /// Its bytes.
    pub size_bytes: u64,
    /// SHA-256 of them.
    pub digest: Digest,
}

/// The files of a checkpoint, sorted by path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    files: Vec<FileEntry>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Canonical {
    files: Vec<CanonicalFile>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CanonicalFile {
    path: String,
    sha256: String,
    size: u64,
}

impl Manifest {
    /// Takes a checkpoint's files in any order.
    ///
    /// # Errors
    /// [`FormatError::Path`] or [`FormatError::Manifest`] when a path is refused, two of them meet, there are none, or
    /// more than [`MAX_FILES`].
    pub fn new(mut files: Vec<FileEntry>) -> Result<Self, FormatError> {
        if files.is_empty() {
            return Err(FormatError::manifest("a checkpoint needs at least one file"));
        }
        if files.len() > MAX_FILES {
            let n = files.len();
            return Err(FormatError::manifest(format!(
                "it has {n} files and may have {MAX_FILES}: pack the small ones"
            )));
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        let mut folded = BTreeMap::new();
        for file in &files {
            check_path(&file.path)?;
            if let Some(other) = folded.insert(file.path.to_lowercase(), &file.path) {
                let path = &file.path;
                return Err(FormatError::manifest(format!(
                    "`{path}` and `{other}` meet where case is ignored: rename one"
                )));
            }
        }
        for file in &files {
            let parents = file
                .path
                .match_indices('/')
                .map(|(at, _)| file.path[..at].to_lowercase());
            if let Some(parent) = parents.into_iter().find(|parent| folded.contains_key(parent)) {
                let path = &file.path;
                return Err(FormatError::manifest(format!(
                    "`{parent}` is a file and a folder of `{path}`: rename one"
                )));
            }
        }
        let total = files
            .iter()
            .try_fold(0u64, |sum, file| sum.checked_add(file.size_bytes));
        match total {
            Some(total) if i64::try_from(total).is_ok() => Ok(Self { files }),
            _ => Err(FormatError::manifest(
                "its files' sizes add up to more than can be counted",
            )),
        }
    }

    /// The files, sorted by path.
    pub fn files(&self) -> &[FileEntry] {
        &self.files
    }

    /// The file at `path`.
    pub fn get(&self, path: &str) -> Option<&FileEntry> {
        let at = self.files.binary_search_by(|file| file.path.as_str().cmp(path)).ok()?;
        self.files.get(at)
    }

    /// Bytes of all files.
    pub fn size_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.size_bytes).sum()
    }

    /// The canonical form.
    pub fn to_canonical_json(&self) -> Vec<u8> {
        let files = self.files.iter().map(|file| CanonicalFile {
            path: file.path.clone(),
            sha256: file.digest.to_hex(),
            size: file.size_bytes,
        });
        serde_json::to_vec(&Canonical { files: files.collect() }).expect("strings and integers are always JSON")
    }

    /// Reads the canonical form.
    ///
    /// # Errors
    /// [`FormatError::Manifest`] when it is anything else.
    pub fn from_json(bytes: &[u8]) -> Result<Self, FormatError> {
        let canonical: Canonical =
            serde_json::from_slice(bytes).map_err(|error| FormatError::manifest(error.to_string()))?;
        let files = canonical.files.into_iter().map(|file| {
            let digest = Digest::from_hex(&file.sha256).map_err(|error| FormatError::manifest(error.to_string()))?;
            Ok(FileEntry {
                path: file.path,
                size_bytes: file.size,
                digest,
            })
        });
        let manifest = Self::new(files.collect::<Result<_, FormatError>>()?)?;
        if manifest.to_canonical_json() != bytes {
            return Err(FormatError::manifest("it is not in the canonical form"));
        }
        Ok(manifest)
    }

    /// The checkpoint's digest: SHA-256 of the canonical form.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.to_canonical_json())
    }
}

/// Checks a file's path: relative, `/` between parts, none of which is empty, `.` or `..`; no backslash, colon or
/// control character; no part that Windows takes the end from or for a device; at most 512 bytes, 255 a part.
///
/// # Errors
/// [`FormatError::Path`] with the rule that is broken.
pub fn check_path(path: &str) -> Result<(), FormatError> {
    let part_is = |bad: &dyn Fn(&str) -> bool| path.split('/').any(bad);
    let rule = if path.is_empty() {
        "it is empty"
    } else if path.len() > MAX_PATH_BYTES {
        "it is longer than 512 bytes"
    } else if path.starts_with('/') {
        "it must be relative"
    } else if part_is(&|part| part.is_empty() || part == "." || part == "..") {
        "a part of it is empty, `.` or `..`"
    } else if part_is(&|part| part.len() > MAX_PART_BYTES) {
        "a part of it is longer than 255 bytes"
    } else if path.chars().any(|c| c == '\\' || c == ':' || c.is_control()) {
        "it holds a backslash, a colon or a control character"
    } else if part_is(&|part| part.ends_with(['.', ' ']) || part.starts_with(' ')) {
        "a part of it begins with a space or ends with a space or a dot"
    } else if part_is(&is_device) {
        "a part of it is the name of a device on Windows"
    } else {
        return Ok(());
    };
    Err(FormatError::Path {
        path: shown(path),
        rule,
    })
}

/// Whether Windows takes a name for a device, whatever its case and its extension.
fn is_device(part: &str) -> bool {
    let stem = part.split('.').next().unwrap_or(part).trim_end().to_ascii_uppercase();
    let numbered = |kind: &str| {
        let number = stem.strip_prefix(kind).unwrap_or_default();
        number.chars().count() == 1 && number.contains(|c: char| c.is_ascii_digit() || "¹²³".contains(c))
    };
    ["AUX", "CON", "CONIN$", "CONOUT$", "NUL", "PRN"].contains(&stem.as_str()) || numbered("COM") || numbered("LPT")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(path: &str) -> FileEntry {
        FileEntry {
            path: path.to_owned(),
            size_bytes: 3,
            digest: Digest::of(b"abc"),
        }
    }

    #[test]
    fn the_canonical_form_is_what_sha256sum_would_hash() {
        let manifest = Manifest::new(vec![entry("z"), entry("a/b")]).unwrap();
        let hex = Digest::of(b"abc").to_hex();
        let text = format!(
            "{{\"files\":[{{\"path\":\"a/b\",\"sha256\":\"{hex}\",\"size\":3}},{{\"path\":\"z\",\"sha256\":\"{hex}\",\"size\":3}}]}}"
        );
        assert_eq!(manifest.to_canonical_json(), text.as_bytes());
        assert_eq!(manifest.digest(), Digest::of(text.as_bytes()));
        assert_eq!(Manifest::from_json(text.as_bytes()).unwrap(), manifest);
        assert!(Manifest::from_json(text.replace(':', ": ").as_bytes()).is_err());
    }

    #[test]
    fn a_path_that_leaves_the_folder_is_refused() {
        let bad = [
            "",
            "/a",
            "../a",
            "a/../b",
            "a//b",
            "a/",
            "./a",
            "a\\b",
            "c:a",
            "a\nb",
            "a.",
            "a /b",
            "a\0",
            "CON",
            "a/nul.txt",
            "aux .x.json",
            "com1",
            "Lpt³.bin",
            "conin$",
        ];
        for path in bad {
            assert!(check_path(path).is_err(), "{path:?}");
        }
        for path in [
            "config.json",
            "onnx/model.bin",
            ".gitattributes",
            "a b",
            "模型.json",
            "console",
            "com",
            "com10",
            "x.con",
        ] {
            assert!(check_path(path).is_ok(), "{path:?}");
        }
    }

    #[test]
    fn paths_that_meet_are_refused() {
        for pair in [["a", "a"], ["A", "a"], ["a", "a/b"], ["A", "a/b"]] {
            assert!(Manifest::new(pair.map(entry).to_vec()).is_err(), "{pair:?}");
        }
        assert!(Manifest::new(vec![entry("a/c"), entry("a/b")]).is_ok());
    }
    #[test]
    fn only_the_canonical_bytes_are_read() {
        let text = String::from_utf8(Manifest::new(vec![entry("a")]).unwrap().to_canonical_json()).unwrap();
        assert!(Manifest::from_json(text.as_bytes()).is_ok());
        for other in [
            format!("{text}\n"),
            text.replace("{\"files\"", "{\"x\":1,\"files\""),
            text.replace(":3}", ":3.0}"),
            text.replace(":3}", ":-3}"),
            text.replace(":\"a\"", ":\"\\u0061\""),
            text.replace("ba7816bf", "BA7816BF"),
            "null".to_owned(),
        ] {
            assert_ne!(other, text);
            assert!(Manifest::from_json(other.as_bytes()).is_err(), "{other}");
        }
    }

    proptest! {
        #[test]
        fn manifests_round_trip_whatever_the_order(
            files in prop::collection::btree_map("[a-c\u{e4}\" ]{0,3}[a-z]", (0..1_u64 << 40, any::<[u8; 32]>()), 1..20),
            turn in any::<prop::sample::Index>(),
        ) {
            let mut entries: Vec<_> = files
                .into_iter()
                .map(|(path, (size_bytes, digest))| FileEntry {
                    path: format!("x{path}"),
                    size_bytes,
                    digest: Digest::from_bytes(digest),
                })
                .collect();
            let sorted = Manifest::new(entries.clone()).unwrap();
            let n = entries.len();
            entries.rotate_left(turn.index(n));

            let manifest = Manifest::new(entries).unwrap();

            prop_assert_eq!(manifest.digest(), sorted.digest());
            prop_assert_eq!(Manifest::from_json(&manifest.to_canonical_json()).unwrap(), sorted);
        }

        #[test]
        fn paths_and_bytes_of_any_kind_never_panic(path in ".*", bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = check_path(&path);
            prop_assert!(Manifest::from_json(&bytes).is_err());
        }
    }
}
