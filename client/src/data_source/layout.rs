//! Which files of a source are a split of a task. The layouts of a folder and a bucket, `NAME` being the task or another name
//! of it, in the order in which they are looked for:
//!
//! - `NAME/SPLIT.jsonl`, `.json`, `.csv` or `.parquet`; for a task that takes any text `.txt` too
//! - `NAME/SPLIT/*.parquet`
//! - `NAME/CONFIG/SPLIT/*.parquet`, as the Hub's branch of Parquet files has it below a data set
//! - for a subject of mmlu, `mmlu/SUBJECT` as a `NAME`, then `mmlu/SPLIT.jsonl`, `mmlu/SPLIT.parquet` or `mmlu/SPLIT/*.parquet`
//!   with all subjects, told apart by the field `subject`
//!
//! In a data set of the Hub it is `CONFIG/SPLIT/*.parquet`.

use std::collections::BTreeSet;

use fineline_format::library::{LibraryTask, Part};

/// The configuration of a data set that has one without a name.
const DEFAULT_CONFIG: &str = "default";

/// Splits that data sets usually have.
const USUAL_SPLITS: &[&str] = &["train", "validation", "valid", "val", "test", "dev"];

/// The files of a split.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// Paths in the source, in order.
    pub(super) paths: Vec<String>,
    /// Which of their documents are the task's, where others' are in them.
    pub(super) part: Option<Part>,
}

/// What may be a split of a task.
#[derive(Debug)]
enum Candidate {
    File(String),
    /// All Parquet files of a folder.
    Shards(String),
}

impl Candidate {
    fn of(&self, listing: &BTreeSet<String>) -> Vec<String> {
        match self {
            Self::File(path) => listing.get(path).cloned().into_iter().collect(),
            Self::Shards(folder) => {
                let is_in = |path: &&String| {
                    let name = path
                        .strip_prefix(folder.as_str())
                        .and_then(|rest| rest.strip_prefix('/'));
                    name.is_some_and(|name| !name.contains('/') && name.ends_with(".parquet"))
                };
                listing.iter().filter(is_in).cloned().collect()
            }
        }
    }

    fn shown(&self) -> String {
        match self {
            Self::File(path) => path.clone(),
            Self::Shards(folder) => format!("{folder}/*.parquet"),
        }
    }
}

/// The folders of a source in which a task's data may lie.
pub(super) fn roots(task: &LibraryTask) -> Vec<String> {
    let mut roots = task.folders();
    roots.extend(task.part().map(|part| part.folder.to_owned()));
    // A folder within another of them is listed with it.
    let all = roots.clone();
    roots.retain(|root| !all.iter().any(|other| root.starts_with(&format!("{other}/"))));
    roots
}

fn candidates(task: &LibraryTask, split: &str) -> Vec<(Candidate, Option<Part>)> {
    let mut endings = vec!["jsonl", "json", "csv", "parquet"];
    if task.dataset.is_none() {
        endings.push("txt");
    }
    let config = task.dataset.as_ref().and_then(|dataset| dataset.config.as_deref());
    let mut all = Vec::new();
    for folder in task.folders() {
        all.extend(
            endings
                .iter()
                .map(|ending| Candidate::File(format!("{folder}/{split}.{ending}"))),
        );
        all.push(Candidate::Shards(format!("{folder}/{split}")));
        all.push(Candidate::Shards(format!(
            "{folder}/{}/{split}",
            config.unwrap_or(DEFAULT_CONFIG)
        )));
    }
    let mut all: Vec<_> = all.into_iter().map(|candidate| (candidate, None)).collect();
    if let Some(part) = task.part() {
        let folder = part.folder;
        for candidate in [
            Candidate::File(format!("{folder}/{split}.jsonl")),
            Candidate::File(format!("{folder}/{split}.parquet")),
            Candidate::Shards(format!("{folder}/{split}")),
        ] {
            all.push((candidate, Some(part.clone())));
        }
    }
    all
}

/// The files of a split in a folder or a bucket.
///
/// # Errors
/// What was looked for, and what there is of other splits.
pub(super) fn find(task: &LibraryTask, split: &str, listing: &BTreeSet<String>) -> Result<Found, String> {
    let looked_for = |split: &str| {
        candidates(task, split).into_iter().find_map(|(candidate, part)| {
            let paths = candidate.of(listing);
            (!paths.is_empty()).then_some(Found { paths, part })
        })
    };
    looked_for(split).ok_or_else(|| {
        let shown: Vec<_> = candidates(task, split)
            .iter()
            .map(|(candidate, _)| format!("`{}`", candidate.shown()))
            .collect();
        let others = USUAL_SPLITS.iter().filter(|other| **other != split);
        let other = others
            .filter_map(|other| looked_for(other))
            .flat_map(|found| found.paths)
            .next();
        missing(task, split, &shown, other.as_deref())
    })
}

/// The files of a split in a data set of the Hub.
///
/// # Errors
/// As [`find`].
pub(super) fn find_in_dataset(task: &LibraryTask, split: &str, listing: &BTreeSet<String>) -> Result<Found, String> {
    let config = task.dataset.as_ref().and_then(|dataset| dataset.config.as_deref());
    let configs: BTreeSet<&str> = listing
        .iter()
        .filter_map(|path| match path.split('/').collect::<Vec<_>>()[..] {
            [config, _, file] if file.ends_with(".parquet") => Some(config),
            _ => None,
        })
        .collect();
    // A data set without configurations has one that may have any name.
    let config = match (config, configs.first()) {
        (Some(config), _) => config,
        (None, Some(only)) if configs.len() == 1 => only,
        (None, _) => DEFAULT_CONFIG,
    };
    let candidate = Candidate::Shards(format!("{config}/{split}"));
    let paths = candidate.of(listing);
    if paths.is_empty() {
        let others = listing.iter().filter(|path| path.starts_with(&format!("{config}/")));
        let other = others.into_iter().next();
        return Err(missing(
            task,
            split,
            &[format!("`{}`", candidate.shown())],
            other.map(String::as_str),
        ));
    }
    Ok(Found { paths, part: None })
}

fn missing(task: &LibraryTask, split: &str, looked_for: &[String], other: Option<&str>) -> String {
    let task = task.task();
    let other = other.map_or_else(String::new, |other| {
        format!("; `{other}` is another split, which never stands for it")
    });
    format!(
        "task `{task}` has no file for its split `{split}`: there is none of {}{other}",
        looked_for.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use fineline_format::library;

    use super::*;

    fn task(name: &str) -> LibraryTask {
        library::find(name).unwrap().tasks.remove(0)
    }

    fn listing(paths: &[&str]) -> BTreeSet<String> {
        paths.iter().map(|path| (*path).to_owned()).collect()
    }

    #[test]
    fn a_split_is_found_in_every_layout() {
        let cases: &[(&str, &str, &[&str], &[&str])] = &[
            (
                "hellaswag",
                "validation",
                &["hellaswag/validation.jsonl"],
                &["hellaswag/validation.jsonl"],
            ),
            ("lambada", "test", &["lambada/test.json"], &["lambada/test.json"]),
            (
                "hellaswag",
                "train",
                &[
                    "hellaswag/train/b.parquet",
                    "hellaswag/train/a.parquet",
                    "hellaswag/train/c.txt",
                ],
                &["hellaswag/train/a.parquet", "hellaswag/train/b.parquet"],
            ),
            (
                "hellaswag",
                "train",
                &["hellaswag/default/train/0000.parquet"],
                &["hellaswag/default/train/0000.parquet"],
            ),
            (
                "arc_easy",
                "test",
                &[
                    "arc_easy/ARC-Easy/test/0000.parquet",
                    "arc_easy/ARC-Challenge/test/0000.parquet",
                ],
                &["arc_easy/ARC-Easy/test/0000.parquet"],
            ),
            (
                "mmlu_anatomy",
                "dev",
                &["mmlu/anatomy/dev.jsonl", "mmlu/dev.jsonl"],
                &["mmlu/anatomy/dev.jsonl"],
            ),
            (
                "mmlu_anatomy",
                "dev",
                &["mmlu/anatomy/dev/0000.parquet"],
                &["mmlu/anatomy/dev/0000.parquet"],
            ),
            (
                "truthfulqa_mc2",
                "validation",
                &["truthfulqa/validation.parquet"],
                &["truthfulqa/validation.parquet"],
            ),
            ("perplexity", "test", &["perplexity/test.txt"], &["perplexity/test.txt"]),
        ];
        for (name, split, there, expected) in cases {
            let found = find(&task(name), split, &listing(there)).unwrap();
            assert_eq!(
                (&found.paths[..], found.part),
                (
                    &expected.iter().map(|path| (*path).to_owned()).collect::<Vec<_>>()[..],
                    None
                )
            );
        }
        let found = find(&task("mmlu_anatomy"), "test", &listing(&["mmlu/test.jsonl"])).unwrap();
        assert_eq!(found.part.unwrap().value, "anatomy");
        assert_eq!(roots(&task("mmlu_anatomy")), ["mmlu_anatomy", "mmlu"]);
    }

    #[test]
    fn a_missing_split_is_named_and_no_other_stands_for_it() {
        let error = find(
            &task("arc_easy"),
            "test",
            &listing(&["arc_easy/validation.jsonl", "arc_easy/test.arrow"]),
        )
        .unwrap_err();
        for expected in [
            "`arc_easy`",
            "`test`",
            "`arc_easy/test.jsonl`",
            "`arc_easy/ARC-Easy/test/*.parquet`",
            "`arc_easy/validation.jsonl` is another split",
        ] {
            assert!(error.contains(expected), "{error}");
        }
        let error = find(
            &task("hellaswag"),
            "validation",
            &listing(&["hellaswag/validation.txt"]),
        )
        .unwrap_err();
        assert!(!error.contains("another split"), "{error}");
    }

    #[test]
    fn a_data_set_has_its_configuration_or_its_only_one() {
        let find = |name: &str, split: &str, there: &[&str]| {
            find_in_dataset(&task(name), split, &listing(there)).map(|found| found.paths)
        };
        assert_eq!(
            find("sciq", "test", &["plain_text/test/0000.parquet"]).unwrap(),
            ["plain_text/test/0000.parquet"]
        );
        assert_eq!(
            find(
                "sciq",
                "test",
                &[
                    "other/test/0000.parquet",
                    "default/test/0000.parquet",
                    "default/test/0001.parquet"
                ]
            )
            .unwrap(),
            ["default/test/0000.parquet", "default/test/0001.parquet"]
        );
        // A split that the Hub holds only a part of has another name.
        let error = find("gsm8k", "train", &["main/partial-train/0000.parquet"]).unwrap_err();
        assert!(error.contains("`main/train/*.parquet`"), "{error}");
        assert!(find("gsm8k", "test", &["socratic/test/0000.parquet"]).is_err());
    }
}
