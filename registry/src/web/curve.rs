//! A run's scores as curves, and curves as panels: pure functions.
//!
//! **Invariant:** a curve holds scores that can be compared: one task, metric, filter, number of shots, limit, dtype, suite and
//! harness. A curve of fewer samples than there are says so, alone or not. What two curves of a panel differ in is in their labels.

use std::collections::{BTreeMap, BTreeSet};

use fineline_api::Score;
use fineline_api::score::OWN_HARNESS;

use super::view::{Panels, View};

/// What the scores of a curve have in common. Ordered by what a reader looks for first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct CurveKey {
    pub(super) task: String,
    pub(super) metric: String,
    pub(super) harness: String,
    suite: Option<String>,
    filter: String,
    n_shot: u32,
    dtype: Option<String>,
    limit: Option<u64>,
}

/// How many parts a key has.
const N_PARTS: usize = 8;

/// Where the limit stands among them.
const LIMIT: usize = 7;

impl CurveKey {
    fn of(score: &Score) -> Self {
        Self {
            task: score.task.clone(),
            metric: score.metric.clone(),
            harness: score.harness.clone(),
            suite: score.suite.clone(),
            filter: score.filter.clone(),
            n_shot: score.n_shot,
            dtype: score.dtype.clone(),
            limit: score.limit,
        }
    }

    /// Everything that may tell two curves apart, with what each part is called.
    fn parts(&self) -> [(&'static str, String); N_PARTS] {
        let optional = |text: &Option<String>| text.clone().unwrap_or_default();
        [
            ("task", self.task.clone()),
            ("metric", self.metric.clone()),
            ("harness", self.harness.clone()),
            ("suite", optional(&self.suite)),
            ("filter", self.filter.clone()),
            ("shots", self.n_shot.to_string()),
            ("dtype", optional(&self.dtype)),
            ("limit", self.limit.map_or_else(String::new, |limit| limit.to_string())),
        ]
    }
}

/// A value at a step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Point {
    pub(super) step: u64,
    pub(super) tokens: Option<u64>,
    pub(super) value: f64,
    pub(super) stderr: Option<f64>,
}

/// Points in the order of their steps.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Curve {
    /// What it differs in from the other curves of its panel; empty for the only one.
    pub(super) label: String,
    pub(super) points: Vec<Point>,
}

/// Curves that share their axes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Panel {
    pub(super) title: String,
    pub(super) subtitle: String,
    pub(super) curves: Vec<Curve>,
}

/// Scores by curve and step; of two for the same the newer one, which a changed suite measured.
pub(super) type Curves = BTreeMap<CurveKey, BTreeMap<u64, Score>>;

/// The curves of a run's scores that the view shows.
pub(super) fn curves(scores: impl IntoIterator<Item = Score>, view: &View) -> Curves {
    let mut curves = Curves::new();
    for score in scores {
        if view.shows(&score.task, &score.metric) {
            let curve = curves.entry(CurveKey::of(&score)).or_default();
            match curve.get(&score.step) {
                Some(before) if before.created_at > score.created_at => {}
                _ => drop(curve.insert(score.step, score)),
            }
        }
    }
    curves
}

/// What each curve is called among the others: as few of its parts as tell them all apart, its limit where it has one, and who
/// measured where that was not us.
pub(super) fn labels(keys: &[&CurveKey]) -> Vec<String> {
    let parts: Vec<_> = keys.iter().map(|key| key.parts()).collect();
    let told_apart = |by: &[usize]| {
        let seen = parts
            .iter()
            .map(|parts| by.iter().map(|&i| &parts[i].1).collect::<Vec<_>>());
        seen.collect::<BTreeSet<_>>().len()
    };
    let mut by = Vec::new();
    for i in 0..N_PARTS {
        let with = [by.as_slice(), &[i]].concat();
        if told_apart(&with) > told_apart(&by) {
            by = with;
        }
    }
    let label = |(key, parts): (&&CurveKey, &[(&str, String); N_PARTS])| {
        // Where more than the harness tells them apart, ours goes without saying.
        let is_said = |i: &&usize| by.len() == 1 || parts[**i] != ("harness", OWN_HARNESS.to_owned());
        let words = by.iter().filter(is_said).map(|&i| match &parts[i] {
            ("limit", value) if value.is_empty() => "all samples".to_owned(),
            (name, value) if value.is_empty() => format!("no {name}"),
            ("task" | "metric" | "harness", value) => value.clone(),
            ("shots", n) => format!("{n}-shot"),
            (name, value) => format!("{name} {value}"),
        });
        let mut words: Vec<String> = words.collect();
        if let Some(limit) = key.limit.filter(|_| !by.contains(&LIMIT)) {
            words.push(format!("limit {limit}"));
        }
        match words.join(", ") {
            none if none.is_empty() && key.harness != OWN_HARNESS => key.harness.clone(),
            label => label,
        }
    };
    keys.iter().zip(&parts).map(label).collect()
}

/// The panels in which the curves are drawn.
pub(super) fn panels(curves: &Curves, view: &View) -> Vec<Panel> {
    let mut groups: BTreeMap<(String, String), Vec<&CurveKey>> = BTreeMap::new();
    for key in curves.keys() {
        let group = match view.panels {
            Panels::Task => (key.task.clone(), key.metric.clone()),
            Panels::Metric => (key.metric.clone(), String::new()),
        };
        groups.entry(group).or_default().push(key);
    }
    let panel = |((title, subtitle), keys): ((String, String), Vec<&CurveKey>)| {
        let labels = labels(&keys);
        let curves = keys.iter().zip(labels).map(|(key, label)| Curve {
            label,
            points: curves[*key].values().map(point).collect(),
        });
        Panel {
            title,
            subtitle,
            curves: curves.collect(),
        }
    };
    groups.into_iter().map(panel).collect()
}

fn point(score: &Score) -> Point {
    Point {
        step: score.step,
        tokens: score.tokens,
        value: score.value,
        stderr: score.stderr,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(step: u64, task: &str, metric: &str, harness: &str, value: f64) -> Score {
        serde_json::from_value(serde_json::json!({
            "run": "lab/a", "step": step, "tokens": 10 * step, "task": task, "metric": metric, "filter": "none",
            "value": value, "stderr": 0.1, "stderr_method": null, "n": 10, "n_shot": 0, "higher_is_better": true,
            "harness": harness, "harness_version": null, "dtype": "float32", "suite": null,
            "checkpoint": fineline_format::Digest::of(b"x"), "evaluation": null, "current": true,
            "provenance": {}, "created_at": "2026-01-01T00:00:00Z",
        }))
        .unwrap()
    }

    fn scores() -> Vec<Score> {
        vec![
            score(2, "arc", "acc", "fineline", 0.5),
            score(1, "arc", "acc", "fineline", 0.4),
            score(2, "arc", "acc", "lm-eval", 0.6),
            score(2, "arc", "acc_norm", "fineline", 0.7),
            score(2, "piqa", "acc", "fineline", 0.8),
        ]
    }

    #[test]
    fn a_panel_has_a_curve_for_each_harness_and_says_which() {
        let view = View::default();
        let panels = panels(&curves(scores(), &view), &view);
        let shown: Vec<_> = panels
            .iter()
            .map(|panel| {
                let curves = panel.curves.iter().map(|curve| {
                    (
                        curve.label.as_str(),
                        curve.points.iter().map(|point| point.value).collect::<Vec<_>>(),
                    )
                });
                (
                    panel.title.as_str(),
                    panel.subtitle.as_str(),
                    curves.collect::<Vec<_>>(),
                )
            })
            .collect();
        assert_eq!(
            shown,
            [
                ("arc", "acc", vec![("fineline", vec![0.4, 0.5]), ("lm-eval", vec![0.6])]),
                ("arc", "acc_norm", vec![("", vec![0.7])]),
                ("piqa", "acc", vec![("", vec![0.8])]),
            ]
        );
    }

    #[test]
    fn a_limited_score_is_on_a_curve_of_its_own_that_says_so() {
        let with = |mut score: Score, limit: Option<u64>| {
            score.limit = limit;
            score
        };
        let labels = |scores: Vec<Score>| {
            let view = View::default();
            let panels = panels(&curves(scores, &view), &view);
            let curves = panels.into_iter().flat_map(|panel| panel.curves);
            curves
                .map(|curve| (curve.label, curve.points.len()))
                .collect::<Vec<_>>()
        };
        let (full, other) = (
            score(1, "arc", "acc", "fineline", 0.4),
            score(2, "arc", "acc", "fineline", 0.5),
        );
        let alone = labels(vec![with(full.clone(), Some(200)), with(other.clone(), Some(200))]);
        assert_eq!(alone, [("limit 200".to_owned(), 2)]);
        let both = labels(vec![full, with(other, Some(200))]);
        assert_eq!(both, [("all samples".to_owned(), 1), ("limit 200".to_owned(), 1)]);
    }

    #[test]
    fn a_view_by_metric_lays_tasks_over_each_other_and_a_choice_leaves_the_rest_out() {
        let view = View {
            panels: Panels::Metric,
            metrics: ["acc".to_owned()].into(),
            ..View::default()
        };
        let panels = panels(&curves(scores(), &view), &view);
        assert_eq!(panels.len(), 1);
        let labels: Vec<_> = panels[0].curves.iter().map(|curve| curve.label.as_str()).collect();
        assert_eq!(labels, ["arc", "arc, lm-eval", "piqa"]);
    }
}
