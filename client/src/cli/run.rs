//! `fineline run create | list | show | tokenizer | retain | delete`.

use clap::{Args, Subcommand};
use fineline_api::run::RunAttributes;
use fineline_api::{DefaultTokenizer, Retention, Run as RunRow, RunName, RunPattern, SetTokenizer};
use fineline_client::{Client, all_pages};
use serde_json::json;

use super::context::Context;
use super::delete::{How, told};
use super::table::{Table, facts, list, or_none, time};
use super::target::{CheckpointTarget, key_value};
use super::{Ending, Outcome};

/// What is done with runs.
#[derive(Debug, Subcommand)]
pub(crate) enum Run {
    /// Create a run.
    Create(Create),
    /// List the runs that the token reads.
    List {
        /// Only those that it matches: NAMESPACE/NAME or NAMESPACE/PREFIX*.
        pattern: Option<RunPattern>,
    },
    /// Show a run.
    Show {
        /// The run, as NAMESPACE/NAME.
        run: RunName,
    },
    /// Lend a checkpoint's tokenizer to all steps of a run that have none of their own, so that they can be evaluated.
    Tokenizer {
        /// The run, as NAMESPACE/NAME.
        run: RunName,
        /// The checkpoint with the tokenizer, as NAMESPACE/NAME@REF; a folder of tokenizer files can be pushed as a step.
        #[arg(value_name = "RUN@REF")]
        from: CheckpointTarget,
        /// Evaluate again the steps that were lent another tokenizer before.
        #[arg(long)]
        backfill: bool,
    },
    /// Say which steps a run keeps and delete the others, now and from now on. Tagged and released steps, and those with
    /// an evaluation that is not finished, are kept always.
    Retain(Retain),
    /// Delete a run with its checkpoints and scores; for administrators.
    Delete {
        /// The run, as NAMESPACE/NAME.
        run: RunName,
        #[command(flatten)]
        how: How,
    },
}

/// Which steps a run keeps.
#[derive(Debug, Args)]
pub(crate) struct Retain {
    /// The run, as NAMESPACE/NAME.
    run: RunName,
    /// Keep the newest N steps.
    #[arg(long, value_name = "N", required_unless_present = "all")]
    keep_last: Option<u64>,
    /// Keep every step that K divides.
    #[arg(long, value_name = "K")]
    keep_every: Option<u64>,
    /// Keep all steps from now on.
    #[arg(long, conflicts_with_all = ["keep_last", "keep_every", "dry_run"])]
    all: bool,
    /// Only say which steps would go and what that frees.
    #[arg(long)]
    dry_run: bool,
}

/// What describes a new run.
#[derive(Debug, Args)]
pub(crate) struct Create {
    /// The run, as NAMESPACE/NAME.
    run: RunName,
    /// Tokens that one step trains on; gives a step's tokens where a push does not say them.
    #[arg(long, value_name = "N")]
    tokens_per_step: Option<u64>,
    /// Parameters of the model.
    #[arg(long, value_name = "N")]
    parameters: Option<u64>,
    /// The architecture, as config.json names it.
    #[arg(long, value_name = "NAME")]
    architecture: Option<String>,
    /// What it is trained on.
    #[arg(long, value_name = "TEXT")]
    data_mix: Option<String>,
    /// How it is trained.
    #[arg(long, value_name = "TEXT")]
    strategy: Option<String>,
    /// What it is, for people.
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// A further fact; can be given several times.
    #[arg(long = "meta", value_name = "KEY=VALUE", value_parser = key_value)]
    metadata: Vec<(String, String)>,
}

pub(crate) async fn run(context: &Context, command: Run) -> Outcome {
    let client = context.client()?;
    match command {
        Run::Create(create) => {
            let (run, attributes) = split(create);
            let created = client.create_run(&run, &attributes).await?;
            context.printer.data(&created, show)?;
        }
        Run::List { pattern } => {
            let page = async |cursor: Option<String>| client.list_runs(pattern.as_ref(), cursor.as_deref(), None).await;
            context.printer.data(&all_pages(page).await?, |runs| table(runs))?;
        }
        Run::Tokenizer { run, from, backfill } => {
            let CheckpointTarget { run: source, reference } = from;
            let new = SetTokenizer {
                run: source,
                reference,
                backfill,
            };
            let set = client.set_run_tokenizer(&run, &new).await?;
            context.printer.data(&set, |set| tokenizer(&run, set))?;
        }
        Run::Show { run } => context.printer.data(&client.get_run(&run).await?, show)?,
        Run::Retain(retain) => return retained(context, &client, retain).await,
        Run::Delete { run, how } => {
            let deletion = client.delete_run(&run, how.options(true)).await?;
            context.printer.data(&deletion, |deletion| told(&run, deletion))?;
        }
    }
    Ok(Ending::Good)
}

async fn retained(context: &Context, client: &Client, retain: Retain) -> Outcome {
    let run = retain.run;
    let Some(keep_last) = retain.keep_last else {
        client.delete_retention(&run).await?;
        let all = json!({ "run": run, "retention": null });
        context.printer.data(&all, |_| format!("{run} keeps all its steps"))?;
        return Ok(Ending::Good);
    };
    let rule = Retention {
        keep_last,
        keep_every: retain.keep_every,
    };
    let deletion = client.set_retention(&run, &rule, retain.dry_run).await?;
    context.printer.data(&deletion, |deletion| told(&run, deletion))?;
    Ok(Ending::Good)
}

fn retention(rule: &Retention) -> String {
    match rule.keep_every {
        Some(every) => format!("the newest {} steps and every {every}th", rule.keep_last),
        None => format!("the newest {} steps", rule.keep_last),
    }
}

fn split(create: Create) -> (RunName, RunAttributes) {
    let attributes = RunAttributes {
        description: create.description,
        n_parameters: create.parameters,
        architecture: create.architecture,
        data_mix: create.data_mix,
        strategy: create.strategy,
        tokens_per_step: create.tokens_per_step,
        metadata: create.metadata.into_iter().collect(),
    };
    (create.run, attributes)
}

fn table(runs: &[RunRow]) -> String {
    let mut table = Table::new(["RUN", ">CHECKPOINTS", ">LATEST STEP", ">PARAMETERS", "CREATED"]);
    for run in runs {
        table.row([
            run.run.to_string(),
            run.n_checkpoints.to_string(),
            or_none(run.latest_step),
            or_none(run.attributes.n_parameters),
            time(run.created_at),
        ]);
    }
    table.render("no runs yet: make one with `fineline run create NAMESPACE/NAME`")
}

fn tokenizer(run: &RunName, set: &DefaultTokenizer) -> String {
    let mut text = format!(
        "{run} lends {}\n{} steps became evaluable, {} became other models, {} evaluations are queued",
        set.files.join(", "),
        set.n_evaluable,
        set.n_changed,
        set.n_queued
    );
    if set.n_left > 0 {
        let n = set.n_left;
        text.push_str(&format!(
            "\n{n} steps keep the tokenizer that they were lent before: `--backfill` evaluates them anew"
        ));
    }
    text
}

fn show(run: &RunRow) -> String {
    let attributes = &run.attributes;
    facts(&[
        ("run", run.run.to_string()),
        ("checkpoints", run.n_checkpoints.to_string()),
        ("latest step", or_none(run.latest_step)),
        (
            "keeps",
            run.retention.as_ref().map_or_else(|| "all steps".to_owned(), retention),
        ),
        ("parameters", or_none(attributes.n_parameters)),
        ("architecture", or_none(attributes.architecture.as_ref())),
        ("default tokenizer", or_none(run.default_tokenizer)),
        ("tokens per step", or_none(attributes.tokens_per_step)),
        ("data mix", or_none(attributes.data_mix.as_ref())),
        ("strategy", or_none(attributes.strategy.as_ref())),
        (
            "metadata",
            list(attributes.metadata.iter().map(|(key, value)| format!("{key}={value}"))),
        ),
        ("description", or_none(attributes.description.as_ref())),
        ("created", time(run.created_at)),
    ])
}
