//! `fineline suite list | apply | applied | bindings | unbind`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use fineline_api::{Backfill, BackfillPlan, Binding, RunPattern, StepOrder, Suite as SuiteRow};
use fineline_client::{BindOptions, Client, DataOrigin, DataSource, LoadedSuite, SuiteOptions};
use serde::Serialize;
use serde_json::json;
use uuid::Uuid;

use super::context::Context;
use super::library;
use super::table::{Table, bytes, list, or_none, time};
use super::{Ending, Outcome};

/// What is done with suites.
#[derive(Debug, Subcommand)]
pub(crate) enum Suite {
    /// List the library: the tasks that are built in. It needs no registry.
    List,
    /// Upload a suite with its tasks and data, and bind it to runs.
    Apply(Apply),
    /// List the suites of the registry that were applied to runs.
    Applied,
    /// List which suites are bound to which runs.
    Bindings,
    /// Take a binding away; its scores stay.
    Unbind {
        /// The binding's id.
        id: Uuid,
    },
}

/// Which suite goes to which runs.
#[derive(Debug, Args)]
pub(crate) struct Apply {
    /// The suite file, or a name of the library (`fineline suite list`).
    #[arg(value_name = "FILE|NAME")]
    suite: PathBuf,
    /// The runs: `*`, `NAMESPACE/*`, `NAMESPACE/PREFIX*` or `NAMESPACE/NAME`.
    #[arg(long = "run", value_name = "PATTERN")]
    pattern: RunPattern,
    /// Where the data of the library's tasks come from: a folder, `s3://BUCKET/PREFIX`, `hf://datasets/OWNER/NAME[@REVISION]`
    /// for one data set, `hf` for each task's own; for `perplexity` a text or JSON lines file too. Without it, what the
    /// suite file says, else `hf`.
    #[arg(long, value_name = "SOURCE")]
    data: Option<DataSource>,
    /// Samples a task at most, over what the suite file says.
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Shots, over what the suite file says and the tasks' own; a task that says 0 itself stays without.
    #[arg(long, value_name = "N")]
    num_fewshot: Option<u32>,
    /// Evaluate the steps that are there already too: `all`, `newest=N` of each run, or `coarse`, all of them coarse to
    /// fine (last, first, middle, quarters, …) so that curves show early. New steps always come first. Applied again
    /// after a change, the suite is another one, and this evaluates by it.
    #[arg(long, value_name = "WHICH", num_args = 0..=1, default_missing_value = "all")]
    backfill: Option<Backfill>,
    /// Evaluate only steps that N divides.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    every: u64,
    /// Which step comes next of those that wait: `arrival`, new ones as they come and then those of the back-fill;
    /// `newest`, the highest; `coarse`, the one furthest from what is measured, so that the curve is known at evenly spread
    /// steps at any time.
    #[arg(long, value_name = "ORDER", default_value_t)]
    order: StepOrder,
    /// Say what the back-fill would queue, and do nothing.
    #[arg(long, requires = "backfill")]
    dry_run: bool,
    /// Start the back-fill without asking.
    #[arg(long, short)]
    yes: bool,
}

pub(crate) async fn run(context: &Context, command: Suite) -> Outcome {
    if let Suite::List = command {
        context
            .printer
            .data(&library::entries(), |entries| library::table(entries))?;
        return Ok(Ending::Good);
    }
    let client = context.client()?;
    match command {
        Suite::List => {}
        Suite::Apply(command) => return apply(context, &client, command).await,
        Suite::Applied => context
            .printer
            .data(&client.list_suites().await?, |suites| suites_table(suites))?,
        Suite::Bindings => context
            .printer
            .data(&client.list_bindings().await?, |bindings| bindings_table(bindings))?,
        Suite::Unbind { id } => {
            client.delete_binding(id).await?;
            context
                .printer
                .data(&json!({ "deleted": id }), |_| format!("binding {id} is deleted"))?;
        }
    }
    Ok(Ending::Good)
}

/// A binding, and where the data of the library's tasks came from.
#[derive(Serialize)]
struct Applied {
    #[serde(flatten)]
    binding: Binding,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    data: Vec<DataOrigin>,
}

async fn apply(context: &Context, client: &Client, command: Apply) -> Outcome {
    let Apply {
        suite, pattern, data, ..
    } = &command;
    let options = SuiteOptions {
        data: data.clone(),
        limit: command.limit,
        num_fewshot: command.num_fewshot,
        ..SuiteOptions::default()
    };
    let loaded = LoadedSuite::load(suite, &options).await?;
    let data = loaded.origins().to_vec();
    for origin in distinct(&data) {
        context.printer.word(&origin);
    }
    let options = BindOptions {
        backfill: command.backfill.unwrap_or_default(),
        every: command.every,
        order: command.order,
    };
    if options.backfill != Backfill::None {
        let plan = loaded.plan(client, pattern, options).await?;
        if command.dry_run {
            context.printer.data(&plan, plan_told)?;
            return Ok(Ending::Good);
        }
        context.printer.word(&plan_told(&plan));
        if !command.yes && plan.n_to_queue > 0 && !context.printer.agrees("start?")? {
            context.printer.word("nothing is bound or queued");
            return Ok(Ending::Bad);
        }
    }
    let binding = loaded.apply(client, pattern, options).await?;
    context.printer.data(&Applied { binding, data }, |applied| {
        let Binding {
            suite,
            pattern,
            dtype,
            n_queued,
            ..
        } = &applied.binding;
        let schedule = scheduled(&applied.binding)
            .map(|words| format!(" ({words})"))
            .unwrap_or_default();
        format!("{suite} is bound to {pattern} in {dtype}{schedule}, {n_queued} evaluations are queued")
    })?;
    Ok(Ending::Good)
}

/// What is unusual of the steps that a binding asks for and of their order.
fn scheduled(binding: &Binding) -> Option<String> {
    let every = (binding.every > 1).then(|| format!("steps that {} divides", binding.every));
    let order = match binding.order {
        StepOrder::Arrival => None,
        StepOrder::Newest => Some("the newest first".to_owned()),
        StepOrder::Coarse => Some("coarse to fine".to_owned()),
    };
    let words: Vec<String> = every.into_iter().chain(order).collect();
    (!words.is_empty()).then(|| words.join(", "))
}

/// Where data came from, each place once: mmlu's 57 tasks have one.
fn distinct(data: &[DataOrigin]) -> Vec<String> {
    let mut told: Vec<String> = Vec::new();
    for DataOrigin { source, revision, .. } in data {
        let at = revision
            .as_ref()
            .map_or_else(String::new, |revision| format!("@{revision}"));
        let line = format!("data from {source}{at}");
        if !told.contains(&line) {
            told.push(line);
        }
    }
    told
}

fn plan_told(plan: &BackfillPlan) -> String {
    let BackfillPlan {
        n_runs,
        n_steps,
        n_to_queue,
        n_shown,
    } = plan;
    format!("{n_steps} steps of {n_runs} runs: {n_to_queue} evaluations to queue, {n_shown} shown already")
}

fn suites_table(suites: &[SuiteRow]) -> String {
    let mut table = Table::new(["SUITE", "TASKS", ">LIMIT", ">SIZE", "DIGEST", "CREATED"]);
    for suite in suites {
        table.row([
            suite.suite.clone(),
            list(&suite.tasks),
            or_none(suite.limit),
            bytes(suite.size_bytes),
            suite.digest.to_string(),
            time(suite.created_at),
        ]);
    }
    table.render("no suites yet: apply one with `fineline suite apply FILE|NAME --run PATTERN`")
}

fn bindings_table(bindings: &[Binding]) -> String {
    let mut table = Table::new(["RUNS", "SUITE", "DTYPE", ">EVERY", "ORDER", ">LIMIT", "ID", "CREATED"]);
    for binding in bindings {
        table.row([
            binding.pattern.to_string(),
            binding.suite.clone(),
            binding.dtype.clone(),
            binding.every.to_string(),
            binding.order.to_string(),
            or_none(binding.limit),
            binding.id.to_string(),
            time(binding.created_at),
        ]);
    }
    table.render("no bindings yet: make one with `fineline suite apply FILE|NAME --run PATTERN`")
}
