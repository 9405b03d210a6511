//! `fineline scores`: a run's scores with steps down and metrics across, and scores posted from outside.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use fineline_api::score::OWN_HARNESS;
use fineline_api::{PostScores, RunName, Score};
use fineline_client::{ScoreQuery, all_pages};
use serde_json::json;

use super::context::Context;
use super::failure::UserError;
use super::table::{NONE, Table};
use super::target::CheckpointTarget;
use super::{Ending, Outcome};

/// What lm-eval calls no filter.
const NO_FILTER: &str = "none";

/// Which scores are shown.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Scores {
    #[command(subcommand)]
    post: Option<Post>,
    /// The run, as NAMESPACE/NAME.
    #[arg(required = true)]
    run: Option<RunName>,
    /// Only this task.
    #[arg(long)]
    task: Option<String>,
    /// Only this metric.
    #[arg(long)]
    metric: Option<String>,
    /// Only what this harness measured; the registry's own is `fineline`.
    #[arg(long)]
    harness: Option<String>,
    /// The first step to show.
    #[arg(long, value_name = "STEP")]
    step_min: Option<u64>,
    /// The last step to show.
    #[arg(long, value_name = "STEP")]
    step_max: Option<u64>,
    /// Show replaced revisions of steps too.
    #[arg(long)]
    all: bool,
    /// Print CSV, one score a line.
    #[arg(long, conflicts_with = "json")]
    csv: bool,
}

#[derive(Debug, Subcommand)]
enum Post {
    /// Post scores that another harness measured.
    Post {
        /// The checkpoint, as NAMESPACE/NAME@REF.
        #[arg(value_name = "RUN@REF")]
        checkpoint: CheckpointTarget,
        /// A JSON file: a list of objects with `task`, `metric`, `value`, and as far as known `filter`, `stderr`, `n`,
        /// `limit`, `n_shot`, `higher_is_better`, `dtype`.
        file: PathBuf,
        /// What measured them.
        #[arg(long)]
        harness: String,
        /// Its version.
        #[arg(long, value_name = "VERSION")]
        harness_version: Option<String>,
    },
}

pub(crate) async fn run(context: &Context, command: Scores) -> Outcome {
    match (command.post, command.run) {
        (Some(post), _) => self::post(context, post).await,
        (None, Some(run)) => {
            let query = ScoreQuery {
                step_min: command.step_min,
                step_max: command.step_max,
                task: command.task,
                metric: command.metric,
                harness: command.harness,
                all_revisions: command.all,
            };
            show(context, &run, &query, command.csv).await
        }
        (None, None) => Err(UserError::new("no run is named", "write `fineline scores RUN`").into()),
    }
}

async fn show(context: &Context, run: &RunName, query: &ScoreQuery, csv: bool) -> Outcome {
    let client = context.client()?;
    if csv {
        context
            .printer
            .raw(client.list_scores_csv(run, query).await?.as_bytes())?;
        return Ok(Ending::Good);
    }
    let page = async |cursor: Option<String>| client.list_scores(run, query, cursor.as_deref(), Some(1000)).await;
    let scores = all_pages(page).await?;
    context.printer.data(&scores, |scores| table(scores))?;
    notes(&scores).iter().for_each(|note| context.printer.word(note));
    Ok(Ending::Good)
}

/// What is to be said of steps beside their numbers.
fn notes(scores: &[Score]) -> BTreeSet<String> {
    let mut notes = BTreeSet::new();
    for score in scores {
        let step = score.step;
        if score.current && score.n_replaced > 0 {
            let n = score.n_replaced;
            notes.insert(format!(
                "step {step} has {n} replaced revisions: `--all` shows their scores too"
            ));
        }
        if let Some(other) = score.evaluated_step {
            notes.insert(format!(
                "step {step} has the same model as step {other}: evaluated once, shown at both"
            ));
        }
    }
    notes
}

async fn post(context: &Context, post: Post) -> Outcome {
    let Post::Post {
        checkpoint,
        file,
        harness,
        harness_version,
    } = post;
    let text = std::fs::read_to_string(&file).with_context(|| format!("can't read `{}`", file.display()))?;
    let scores = serde_json::from_str(&text).map_err(|error| {
        let message = format!("`{}` is no list of scores: {error}", file.display());
        UserError::new(message, "see `fineline scores post --help` for the form")
    })?;
    let CheckpointTarget { run, reference } = checkpoint;
    let body = PostScores {
        reference,
        harness,
        harness_version,
        scores,
    };
    let n = context.client()?.post_scores(&run, &body).await?;
    context
        .printer
        .data(&json!({ "n": n }), |_| format!("{n} scores are posted"))?;
    Ok(Ending::Good)
}

/// Steps down (a replaced revision is a row of its own), one column for each thing that is measured.
fn table(scores: &[Score]) -> String {
    let titles = titles(scores);
    let columns: BTreeSet<&String> = titles.iter().collect();
    let mut rows: BTreeMap<(u64, bool, String, bool), BTreeMap<&String, String>> = BTreeMap::new();
    for (score, title) in scores.iter().zip(&titles) {
        let digest = if score.current {
            String::new()
        } else {
            score.checkpoint.to_hex()
        };
        let row = rows
            .entry((score.step, score.current, digest, score.deleted))
            .or_default();
        row.insert(title, format!("{:.4}", score.value));
    }
    let mut table =
        Table::new(std::iter::once(">STEP".to_owned()).chain(columns.iter().map(|title| format!(">{title}"))));
    for ((step, current, _, deleted), values) in &rows {
        let step = match (current, deleted) {
            (true, false) => step.to_string(),
            (true, true) => format!("{step} (deleted)"),
            (false, _) => format!("{step} (replaced)"),
        };
        let cell = |title: &&String| values.get(*title).cloned().unwrap_or_else(|| NONE.to_owned());
        table.row(std::iter::once(step).chain(columns.iter().map(cell)));
    }
    table.render("no scores yet: `fineline wait RUN` says what is under way")
}

/// The column of each score: task and metric, and whatever else is needed to keep two measurements apart.
fn titles(scores: &[Score]) -> Vec<String> {
    let title = |score: &Score| {
        let filter = if score.filter == NO_FILTER {
            String::new()
        } else {
            format!(",{}", score.filter)
        };
        let harness = if score.harness == OWN_HARNESS {
            String::new()
        } else {
            format!("@{}", score.harness)
        };
        // Never beside a number of all samples under one title.
        let limit = score.limit.map(|limit| format!(" limit {limit}")).unwrap_or_default();
        format!("{}/{}{filter}{harness}{limit}", score.task, score.metric)
    };
    let setting = |score: &Score| (score.n_shot, score.dtype.clone());
    let mut settings: BTreeMap<String, BTreeSet<_>> = BTreeMap::new();
    for score in scores {
        settings.entry(title(score)).or_default().insert(setting(score));
    }
    let full = |score: &Score| {
        let title = title(score);
        if settings[&title].len() == 1 {
            return title;
        }
        let dtype = score
            .dtype
            .as_deref()
            .map(|dtype| format!(" {dtype}"))
            .unwrap_or_default();
        format!("{title} {}-shot{dtype}", score.n_shot)
    };
    scores.iter().map(full).collect()
}

#[cfg(test)]
mod tests {
    use fineline_format::Digest;

    use super::*;

    fn score(step: u64, metric: &str, value: f64) -> Score {
        Score {
            run: "lab/a".parse().unwrap(),
            step,
            tokens: None,
            task: "copa".to_owned(),
            metric: metric.to_owned(),
            filter: NO_FILTER.to_owned(),
            value,
            stderr: None,
            stderr_method: None,
            n: 100,
            limit: None,
            n_shot: 0,
            higher_is_better: Some(true),
            harness: OWN_HARNESS.to_owned(),
            harness_version: None,
            dtype: Some("float32".to_owned()),
            suite: None,
            checkpoint: Digest::of(b"x"),
            evaluation: None,
            current: true,
            deleted: false,
            n_replaced: 0,
            evaluated_step: None,
            provenance: BTreeMap::new(),
            created_at: chrono::DateTime::UNIX_EPOCH,
        }
    }

    #[test]
    fn steps_go_down_in_numeric_order_and_metrics_across() {
        let scores = [
            score(1000, "acc", 0.5),
            score(20, "acc", 0.25),
            score(20, "acc_norm", 1.0 / 3.0),
        ];
        let text = "STEP  copa/acc  copa/acc_norm\n  20    0.2500         0.3333\n1000    0.5000              -\n";
        assert_eq!(table(&scores), text);
    }

    #[test]
    fn replaced_shared_and_deleted_steps_are_told_of() {
        let mut scores = vec![score(1, "acc", 0.1), score(2, "acc", 0.1)];
        scores[0].n_replaced = 1;
        scores[1].evaluated_step = Some(1);
        scores[1].deleted = true;
        let told: Vec<String> = notes(&scores).into_iter().collect();
        assert!(
            told[0].starts_with("step 1 has 1 replaced") && told[1].contains("same model as step 1"),
            "{told:?}"
        );
        assert!(table(&scores).contains("2 (deleted)"));
    }

    #[test]
    fn two_measurements_never_share_a_column() {
        let mut scores = vec![score(1, "acc", 0.1); 5];
        scores[4].limit = Some(200);
        scores[1].harness = "lm-eval".to_owned();
        scores[2].n_shot = 5;
        scores[3].filter = "strict".to_owned();
        let titles = titles(&scores);
        let distinct: BTreeSet<_> = titles.iter().collect();
        assert_eq!(distinct.len(), 5, "{titles:?}");
        assert_eq!(titles[4], "copa/acc limit 200");
        assert_eq!(titles[2], "copa/acc 5-shot float32");
    }
}
