//! The scores of a suite's groups, from those of their tasks.
//!
//! Weighted by size (lm-eval's default): the mean over all samples, and the pooled standard error
//! √(Σ (nᵢ − 1)·seᵢ²·nᵢ / (N − k) / N). Unweighted, the mean of k tasks: √(Σ seᵢ²) / k, where lm-eval pools none the less,
//! which is too narrow for unlike tasks.

use std::collections::{BTreeMap, BTreeSet};

use fineline_api::TaskScore;
use fineline_format::suite::{GroupMetric, SuiteGroup};

/// How the standard error of a mean weighted by size was had.
const POOLED: &str = "pooled";

/// How that of an unweighted mean was had.
const OF_MEANS: &str = "unweighted_mean";

/// lm-eval gives no standard error for what has this one, so neither has a group of it.
const OF_RATIOS: &str = "ratio_over_documents";

/// The rows of a group: one for each metric and filter that a task of it has.
pub(crate) fn scores(group: &SuiteGroup, by_task: &BTreeMap<String, Vec<TaskScore>>) -> Vec<TaskScore> {
    let mut rows: Vec<TaskScore> = Vec::new();
    for metric in &group.metrics {
        let of_tasks = || group.tasks.iter().filter_map(|task| by_task.get(task)).flatten();
        let of_metric = || of_tasks().filter(|score| score.metric == metric.metric);
        let filters: BTreeSet<&str> = match metric.filters.as_slice() {
            [] => of_metric().map(|score| score.filter.as_str()).collect(),
            filters => filters.iter().map(String::as_str).collect(),
        };
        for filter in filters {
            let parts: Vec<&TaskScore> = of_metric().filter(|score| score.filter == filter).collect();
            let is_there = rows
                .iter()
                .any(|row| row.metric == metric.metric && row.filter == filter);
            if let Some(row) = row(group, metric, filter, &parts).filter(|_| !is_there) {
                rows.push(row);
            }
        }
    }
    rows
}

fn row(group: &SuiteGroup, metric: &GroupMetric, filter: &str, parts: &[&TaskScore]) -> Option<TaskScore> {
    let first = parts.first()?;
    let weight = |part: &TaskScore| if metric.weight_by_size { part.n as f64 } else { 1.0 };
    let weights: f64 = parts.iter().map(|part| weight(part)).sum();
    let value = parts.iter().map(|part| part.value * weight(part)).sum::<f64>() / weights;
    if !value.is_finite() {
        return None;
    }
    let stderr = stderr(metric.weight_by_size, parts).filter(|stderr| stderr.is_finite());
    let method = if metric.weight_by_size { POOLED } else { OF_MEANS };
    let same_shots = parts.iter().all(|part| part.n_shot == first.n_shot);
    let same_way = parts.iter().all(|part| part.higher_is_better == first.higher_is_better);
    Some(TaskScore {
        metric: metric.metric.clone(),
        filter: filter.to_owned(),
        value,
        stderr,
        stderr_method: stderr.map(|_| method.to_owned()),
        n: parts.iter().map(|part| part.n).sum(),
        n_shot: if same_shots { first.n_shot } else { 0 },
        higher_is_better: first.higher_is_better.filter(|_| same_way),
        harness_version: first.harness_version.clone(),
        provenance: provenance(group, metric, parts, same_shots),
    })
}

/// Of all parts, or there is none.
fn stderr(weight_by_size: bool, parts: &[&TaskScore]) -> Option<f64> {
    let mut squares = Vec::with_capacity(parts.len());
    for part in parts {
        let method = part.stderr_method.as_deref();
        squares.push(part.stderr.filter(|_| method != Some(OF_RATIOS))?.powi(2));
    }
    let k = parts.len() as f64;
    if !weight_by_size {
        return Some(squares.iter().sum::<f64>().sqrt() / k);
    }
    let all: f64 = parts.iter().map(|part| part.n as f64).sum();
    let pooled = parts.iter().zip(&squares).map(|(part, square)| {
        let n = part.n as f64;
        (n - 1.0) * square * n
    });
    (all > k).then(|| (pooled.sum::<f64>() / (all - k) / all).sqrt())
}

/// What all parts have alike, and what the group is.
fn provenance(
    group: &SuiteGroup,
    metric: &GroupMetric,
    parts: &[&TaskScore],
    same_shots: bool,
) -> BTreeMap<String, String> {
    let mut facts = parts.first().map(|part| part.provenance.clone()).unwrap_or_default();
    facts.retain(|name, fact| parts.iter().all(|part| part.provenance.get(name) == Some(fact)));
    let weighted = if metric.weight_by_size { "size" } else { "nothing" };
    let mut own = vec![
        ("task_version", group.version.clone()),
        ("group_tasks", parts.len().to_string()),
        ("group_weighted_by", weighted.to_owned()),
    ];
    let n_documents = |part: &&TaskScore| part.provenance.get("n_documents")?.parse::<u64>().ok();
    if let Some(n) = parts.iter().map(n_documents).sum::<Option<u64>>() {
        own.push(("n_documents", n.to_string()));
    }
    if !same_shots {
        own.push(("group_shots", "those of each task".to_owned()));
    }
    facts.extend(own.into_iter().map(|(name, fact)| (name.to_owned(), fact)));
    facts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(value: f64, stderr: Option<f64>, n: u64) -> TaskScore {
        TaskScore {
            metric: "acc".to_owned(),
            filter: "none".to_owned(),
            value,
            stderr,
            stderr_method: stderr.map(|_| "sample_mean".to_owned()),
            n,
            n_shot: 5,
            higher_is_better: Some(true),
            harness_version: "1".to_owned(),
            provenance: BTreeMap::from([
                ("seed".to_owned(), n.to_string()),
                ("bos".to_owned(), "added".to_owned()),
            ]),
        }
    }

    fn group(weight_by_size: bool) -> SuiteGroup {
        SuiteGroup {
            group: "g".to_owned(),
            version: "2".to_owned(),
            tasks: vec!["a".to_owned(), "b".to_owned()],
            metrics: vec![GroupMetric {
                metric: "acc".to_owned(),
                filters: Vec::new(),
                weight_by_size,
            }],
        }
    }

    /// The expected numbers are those of lm-eval's formulas, worked out in Python.
    #[test]
    fn a_group_is_the_mean_of_its_tasks() {
        let by_task = BTreeMap::from([
            ("a".to_owned(), vec![score(0.25, Some(0.0435), 100)]),
            ("b".to_owned(), vec![score(0.5, Some(0.025), 400)]),
            ("c".to_owned(), vec![score(1.0, Some(0.0), 9)]),
        ]);
        let row = &scores(&group(true), &by_task)[0];
        assert!((row.value - 0.45).abs() < 1e-12);
        assert!(
            (row.stderr.unwrap() - 0.02181367565962079).abs() < 1e-12,
            "{:?}",
            row.stderr
        );
        assert_eq!((row.n, row.n_shot, row.higher_is_better), (500, 5, Some(true)));
        assert_eq!(row.stderr_method.as_deref(), Some("pooled"));
        let facts: Vec<&str> = row.provenance.keys().map(String::as_str).collect();
        assert_eq!(facts, ["bos", "group_tasks", "group_weighted_by", "task_version"]);
        let row = &scores(&group(false), &by_task)[0];
        assert!((row.value - 0.375).abs() < 1e-12);
        assert!((row.stderr.unwrap() - (0.0435f64.powi(2) + 0.025f64.powi(2)).sqrt() / 2.0).abs() < 1e-12);
    }

    #[test]
    fn a_group_without_all_standard_errors_has_none() {
        let by_task = BTreeMap::from([
            ("a".to_owned(), vec![score(0.25, None, 1)]),
            ("b".to_owned(), vec![score(0.5, Some(0.1), 1)]),
        ]);
        let row = &scores(&group(true), &by_task)[0];
        assert_eq!((row.stderr, row.stderr_method.as_deref()), (None, None));
        assert!(scores(&group(true), &BTreeMap::new()).is_empty());
    }
}
