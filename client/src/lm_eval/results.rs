//! The scores in results files.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::compare::CompareError;
use super::lines::read_file;
use super::sample::number;

/// Task or group, metric, filter.
pub(super) type ScoreKey = (String, String, String);

/// The scores of results files, those of later ones in place of earlier ones.
pub(super) fn scores(files: &[PathBuf]) -> Result<BTreeMap<ScoreKey, f64>, CompareError> {
    let mut scores = BTreeMap::new();
    for path in files {
        let file = read_file(path)?;
        let tasks = file.get("results").and_then(|tasks| tasks.as_object());
        let tasks = tasks.ok_or_else(|| CompareError::input(path, "it has no `results`: it is no results file"))?;
        let groups = file.get("groups").and_then(|groups| groups.as_object());
        for (task, metrics) in tasks.iter().chain(groups.into_iter().flatten()) {
            let metrics = metrics.as_object();
            let metrics =
                metrics.ok_or_else(|| CompareError::input(path, format!("its task `{task}` is no object")))?;
            for (name, value) in metrics {
                let (metric, filter) = name.split_once(',').unwrap_or((name, "none"));
                let is_score = !metric.ends_with("_stderr") && !["alias", "name", "sample_len"].contains(&metric);
                if let Some(value) = number(value).filter(|_| is_score) {
                    scores.insert((task.clone(), metric.to_owned(), filter.to_owned()), value);
                }
            }
        }
    }
    Ok(scores)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_of_tasks_and_groups_are_read_in_either_form() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("results.json");
        let text = r#"{"results": {"t": {"alias": "t", "sample_len": 3, "acc,none": 0.5, "acc_stderr,none": NaN,
            "old": 1, "bits,f": NaN}}, "groups": {"g": {"acc,none": 0.25, "acc_stderr,none": "N/A"}}}"#;
        std::fs::write(&path, text).unwrap();
        let scores = scores(std::slice::from_ref(&path)).unwrap();
        let told: Vec<String> = scores.iter().map(|((t, m, f), v)| format!("{t} {m} {f} {v}")).collect();
        assert_eq!(
            told,
            ["g acc none 0.25", "t acc none 0.5", "t bits f NaN", "t old none 1"]
        );
        std::fs::write(&path, "{}").unwrap();
        assert!(super::scores(&[path]).unwrap_err().to_string().contains("no `results`"));
    }
}
