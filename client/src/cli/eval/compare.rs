//! `fineline eval compare`.

use std::path::PathBuf;

use clap::Args;
use fineline_client::{CompareOptions, Comparison, DEFAULT_TOLERANCE, Differences, TaskComparison, compare_results};

use crate::cli::context::Context;
use crate::cli::table::{NONE, Table, or_none};
use crate::cli::{Ending, Outcome};

/// Which sets are compared, and how strictly.
///
/// Exit code 0: the same. 1: not the same; what breaks it is told. 2: one of the two is no such set, or they have nothing in
/// common.
#[derive(Debug, Args)]
pub(crate) struct Compare {
    /// A folder with `samples_*.jsonl` and `results_*.json` (or a folder above it), or one such file.
    a: PathBuf,
    /// The other, of the same kind.
    b: PathBuf,
    /// How much a log-likelihood may differ: by T plus T times A's. Decisions, prompts and texts may not differ at all, but
    /// where A's own two best answers are within 0.00001 of each other.
    #[arg(long, value_name = "T", default_value_t = DEFAULT_TOLERANCE, value_parser = tolerance)]
    tolerance: f64,
    /// Judge what both have; tasks, samples and scores that only one has break nothing.
    #[arg(long)]
    only_common: bool,
}

fn tolerance(text: &str) -> Result<f64, String> {
    let value = text
        .parse()
        .ok()
        .filter(|value: &f64| value.is_finite() && *value >= 0.0);
    value.ok_or_else(|| format!("`{text}` is no number from 0 up"))
}

pub(crate) async fn run(context: &Context, command: Compare) -> Outcome {
    let options = CompareOptions {
        tolerance: command.tolerance,
        only_common: command.only_common,
    };
    let (a, b) = (command.a, command.b);
    let comparison = tokio::task::spawn_blocking(move || compare_results(&a, &b, options)).await??;
    comparison.notes.iter().for_each(|note| context.printer.word(note));
    context.printer.data(&comparison, told)?;
    Ok(if comparison.is_same { Ending::Good } else { Ending::Bad })
}

fn told(comparison: &Comparison) -> String {
    let mut parts = Vec::new();
    if !comparison.tasks.is_empty() {
        parts.push(samples(&comparison.tasks));
        parts.push(log_likelihoods(&comparison.tasks));
    }
    let mut table = Table::new(["TASK", "FILTER", "METRIC", ">A", ">B", ">B-A"]);
    let number = |value: Option<f64>| value.map_or_else(|| NONE.to_owned(), |value| format!("{value:.6}"));
    for score in &comparison.scores {
        let (a, b) = (number(score.a), number(score.b));
        let difference = score
            .difference
            .map_or_else(|| NONE.to_owned(), |value| format!("{value:+.2e}"));
        table.row([
            score.task.clone(),
            score.filter.clone(),
            score.metric.clone(),
            a,
            b,
            difference,
        ]);
    }
    parts.push(table.render("no score is known"));
    parts.extend(excused(&comparison.tasks));
    let tolerance = comparison.tolerance;
    parts.push(match comparison.is_same {
        true => format!("the same within {tolerance}"),
        false => format!("not the same within {tolerance}:\n{}", comparison.breaches.join("\n")),
    });
    parts.join("\n")
}

/// How many samples there are, and how many of them are not the same.
fn samples(tasks: &[TaskComparison]) -> String {
    let titles = "TASK FILTER >COMPARED >ONLY-A >ONLY-B >PROMPTS >TEXTS >GREEDY >DECISIONS >EXCUSED >VALUES";
    let mut table = Table::new(titles.split(' '));
    for task in tasks {
        let decisions = || task.metrics.iter().filter(|metric| metric.decides);
        let values = task.metrics.iter().filter(|metric| !metric.decides);
        let counts = [
            task.n_compared,
            task.n_only_a,
            task.n_only_b,
            task.n_different_prompts,
            task.n_different_texts,
            task.n_different_greedy,
            decisions().map(|metric| metric.n_unequal).sum(),
            decisions().map(|metric| metric.n_excused).sum(),
            values.map(|metric| metric.n_unequal).sum(),
        ];
        let names = [task.task.clone(), task.filter.clone()];
        table.row(names.into_iter().chain(counts.map(|count| count.to_string())));
    }
    table.render("no sample is in both")
}

/// What is told of log-likelihoods, where a task has some.
fn log_likelihoods(tasks: &[TaskComparison]) -> String {
    let titles = "TASK FILTER >LOG-LIKELIHOODS >BEYOND >MEAN-B-A >95%-FROM >95%-TO >LARGEST";
    let mut table = Table::new(titles.split(' '));
    for task in tasks {
        let Some(Differences {
            n,
            mean,
            interval_95,
            largest,
        }) = task.differences
        else {
            continue;
        };
        let bound = |value: Option<f64>| or_none(value.map(|value| format!("{value:+.2e}")));
        table.row([
            task.task.clone(),
            task.filter.clone(),
            n.to_string(),
            task.n_beyond.to_string(),
            format!("{mean:+.2e}"),
            bound(interval_95.map(|(from, _)| from)),
            bound(interval_95.map(|(_, to)| to)),
            format!("{largest:.2e}"),
        ]);
    }
    table.render("no log-likelihood is in both")
}

/// The decisions that a near tie excuses, which are to be listed.
fn excused(tasks: &[TaskComparison]) -> Option<String> {
    let mut lines = Vec::new();
    for task in tasks {
        for metric in task.metrics.iter().filter(|metric| metric.n_excused > 0) {
            let (name, filter, n) = (&task.task, &task.filter, metric.n_excused);
            let docs = metric.excused_docs.join(", ");
            let by = &metric.metric;
            lines.push(format!(
                "task `{name}`, filter `{filter}`: {n} decisions by `{by}` differ between answers too close to tell: document \
                 {docs}\n"
            ));
        }
    }
    (!lines.is_empty()).then(|| lines.concat())
}
