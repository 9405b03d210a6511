//! Which files make a set: a folder of lm-eval's, or one file.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::compare::CompareError;
use super::names::split_date;

/// How deep below the named folder files are looked for: lm-eval makes one folder a model, whose name may have parts.
const MAX_DEPTH: usize = 4;

/// The files of a set.
#[derive(Debug, Default)]
pub(super) struct Set {
    /// The newest sample log of each task.
    pub(super) logs: BTreeMap<String, PathBuf>,
    /// Results files, from old to new.
    pub(super) results: Vec<PathBuf>,
    /// Older logs of the same tasks.
    pub(super) passed_over: Vec<PathBuf>,
}

impl Set {
    /// The set at a path.
    ///
    /// # Errors
    /// When there is none, or more than one.
    pub(super) fn open(path: &Path) -> Result<Self, CompareError> {
        let metadata = fs::metadata(path).map_err(|error| CompareError::file(path, &error))?;
        if metadata.is_dir() {
            return Self::of_files(files_of(path)?, path);
        }
        let (stem, extension) = parts(path);
        let mut set = Self::default();
        match extension {
            "jsonl" => {
                let task = stem.strip_prefix("samples_").unwrap_or(stem);
                set.logs.insert(split_date(task).0.to_owned(), path.to_owned());
            }
            "json" => set.results.push(path.to_owned()),
            _ => {
                let reason = "it ends in neither `.jsonl` (samples) nor `.json` (results)";
                return Err(CompareError::input(path, reason));
            }
        }
        Ok(set)
    }

    fn of_files(mut files: Vec<PathBuf>, folder: &Path) -> Result<Self, CompareError> {
        if files.is_empty() {
            let reason = "it has no `samples_*.jsonl` and no `results_*.json`";
            return Err(CompareError::input(folder, reason));
        }
        // Names without a time come first, as if they were the oldest.
        files.sort_by_cached_key(|path| {
            let (stem, _) = parts(path);
            (split_date(stem).1.map(str::to_owned), path.clone())
        });
        let mut set = Self::default();
        for path in files {
            let (stem, _) = parts(&path);
            match stem.strip_prefix("samples_") {
                Some(name) => {
                    let task = split_date(name).0.to_owned();
                    set.passed_over.extend(set.logs.insert(task, path));
                }
                None => set.results.push(path),
            }
        }
        Ok(set)
    }
}

/// Name without its ending, and the ending.
fn parts(path: &Path) -> (&str, &str) {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.rsplit_once('.').unwrap_or((name, ""))
}

fn is_of_a_set(path: &Path) -> bool {
    match parts(path) {
        (stem, "jsonl") => stem.starts_with("samples_"),
        (stem, "json") => stem == "results" || stem.starts_with("results_"),
        _ => false,
    }
}

/// The folder's own files, or those of the one folder below it that has some.
fn files_of(folder: &Path) -> Result<Vec<PathBuf>, CompareError> {
    let mut found = Vec::new();
    let mut level = vec![folder.to_owned()];
    for _ in 0..=MAX_DEPTH {
        let mut below = Vec::new();
        for folder in level {
            let mut files = Vec::new();
            let entries = fs::read_dir(&folder).map_err(|error| CompareError::file(&folder, &error))?;
            for entry in entries {
                let path = entry.map_err(|error| CompareError::file(&folder, &error))?.path();
                if path.is_dir() {
                    below.push(path);
                } else if is_of_a_set(&path) {
                    files.push(path);
                }
            }
            if !files.is_empty() {
                found.push((folder, files));
            }
        }
        if !found.is_empty() || below.is_empty() {
            break;
        }
        level = below;
    }
    match found.len() {
        0 | 1 => Ok(found.pop().map(|(_, files)| files).unwrap_or_default()),
        _ => {
            found.sort();
            let folders: Vec<String> = found
                .iter()
                .map(|(folder, _)| format!("`{}`", folder.display()))
                .collect();
            let reason = format!(
                "it has the results of several models: name one of {}",
                folders.join(", ")
            );
            Err(CompareError::input(folder, reason))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(path: &Path) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
    }

    #[test]
    fn the_newest_log_of_a_task_counts() {
        let dir = tempfile::tempdir().unwrap();
        let names = [
            "m/samples_a_b_2026-01-02T00-00-00.5.jsonl",
            "m/samples_a_b_2026-01-10T00-00-00.5.jsonl",
            "m/samples_a_b.jsonl",
            "m/results_2026-01-02T00-00-00.5.json",
            "m/results_2026-01-10T00-00-00.5.json",
            "m/other.json",
        ];
        names.iter().for_each(|name| touch(&dir.path().join(name)));
        let set = Set::open(dir.path()).unwrap();
        assert_eq!(set.logs.len(), 1);
        assert_eq!(set.logs["a_b"], dir.path().join(names[1]));
        assert_eq!(set.passed_over, [dir.path().join(names[2]), dir.path().join(names[0])]);
        assert_eq!(set.results, [dir.path().join(names[3]), dir.path().join(names[4])]);
        touch(&dir.path().join("n/results_x.json"));
        let error = Set::open(dir.path()).unwrap_err().to_string();
        assert!(error.contains("several models"), "{error}");
    }

    #[test]
    fn what_is_no_set_is_told() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Set::open(dir.path()).unwrap_err().to_string().contains("no `samples_"));
        assert!(Set::open(&dir.path().join("gone")).is_err());
        touch(&dir.path().join("x.txt"));
        assert!(Set::open(&dir.path().join("x.txt")).is_err());
        touch(&dir.path().join("x.jsonl"));
        assert!(Set::open(&dir.path().join("x.jsonl")).unwrap().logs.contains_key("x"));
    }
}
