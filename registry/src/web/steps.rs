//! The table of a run's steps: a row each, with the numbers that the curves are drawn from. What is to be said of a step in
//! words is a note, and [`notes`] is the one place that writes them.

use std::collections::BTreeMap;

use fineline_api::{Checkpoint, CheckpointState};
use maud::{Markup, html};

use super::curve::{CurveKey, labels};
use super::part::{badge, checkpoint_state, count, name, number, wide};
use super::run::{RunPage, was_ready};
use super::visitor::Visitor;

pub(super) fn table(visitor: &Visitor, page: &RunPage) -> Markup {
    let keys: Vec<&CurveKey> = page.curves.keys().collect();
    let table = html! {
        table.steps {
            thead {
                tr {
                    th.number scope="col" { "step" }
                    th.number scope="col" { "tokens" }
                    th.number scope="col" { "loss" }
                    th scope="col" { "state" }
                    @for (key, label) in keys.iter().zip(column_labels(&keys)) {
                        th.number.score scope="col" { (name(&key.task)) br; small { (name(&key.metric)) @if !label.is_empty() { " (" (label) ")" } } }
                    }
                }
            }
            tbody { @for step in &page.rows { (row(visitor, page, &keys, step)) } }
        }
    };
    wide("Steps with their scores", &table)
}

/// What each column is called beside its task and metric.
fn column_labels(keys: &[&CurveKey]) -> Vec<String> {
    let mut groups: BTreeMap<(&str, &str), Vec<usize>> = BTreeMap::new();
    for (i, key) in keys.iter().enumerate() {
        groups.entry((&key.task, &key.metric)).or_default().push(i);
    }
    let mut names = vec![String::new(); keys.len()];
    for columns in groups.values() {
        let group: Vec<&CurveKey> = columns.iter().map(|&i| keys[i]).collect();
        for (&i, label) in columns.iter().zip(labels(&group)) {
            names[i] = label;
        }
    }
    names
}

fn row(visitor: &Visitor, page: &RunPage, keys: &[&CurveKey], step: &Checkpoint) -> Markup {
    let score = |key: &CurveKey| page.curves[key].get(&step.step).filter(|_| was_ready(step));
    let link = format!("/runs/{}/checkpoints/{}", page.run.run, step.step);
    html! {
        tr {
            th.number scope="row" {
                @if step.state == CheckpointState::Ready { a href=(visitor.link(&link)) { (count(step.step)) } }
                @else { (count(step.step)) }
            }
            td.number { (step.tokens.map_or_else(String::new, count)) }
            td.number { (step.loss.map_or_else(String::new, |loss| format!("{loss:.3}"))) }
            td.state { (state(step)) @for tag in &step.tags { " " span.tag { (tag) } } }
            @for key in keys {
                td.number {
                    @if let Some(score) = score(key) {
                        data value=(score.value) { (number(score.value)) }
                        @if let Some(stderr) = score.stderr { small { " ± " (number(stderr)) } }
                    }
                }
            }
        }
        @for note in notes(step) {
            tr.note { td {} td colspan=(keys.len() + 3) { (note) } }
        }
    }
}

/// What is to be said of a step beside its numbers, a line each.
pub(super) fn notes(step: &Checkpoint) -> Vec<String> {
    let mut notes = Vec::new();
    notes.extend(step.not_evaluable.iter().map(|why| format!("not evaluable: {why}")));
    notes.extend(step.failure.iter().map(|why| format!("failed: {why}")));
    if !step.replaced.is_empty() {
        let replaced: Vec<String> = step.replaced.iter().map(ToString::to_string).collect();
        notes.push(format!(
            "this revision replaced {}, which can still be read",
            replaced.join(", ")
        ));
    }
    if !step.same_model_steps.is_empty() {
        let steps: Vec<String> = step.same_model_steps.iter().map(u64::to_string).collect();
        notes.push(format!(
            "the same model as step {}: evaluated once, the scores are shown at each",
            steps.join(", ")
        ));
    }
    notes.extend(step.warnings.iter().map(|warning| format!("warning: {warning}")));
    notes
}

/// Where a step stands; of a ready one, where its evaluations do.
pub(super) fn state(step: &Checkpoint) -> Markup {
    let counts = &step.evaluations;
    if step.state != CheckpointState::Ready {
        return checkpoint_state(step.state);
    }
    if counts.failed + counts.parked > 0 {
        return badge("bad", "evaluation failed");
    }
    if counts.leased > 0 {
        return badge("busy", "being evaluated");
    }
    if counts.queued > 0 {
        return badge("wait", "waits for a worker");
    }
    if step.not_evaluable.is_some() {
        return badge("wait", "not evaluable");
    }
    checkpoint_state(step.state)
}
