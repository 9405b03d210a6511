//! `fineline suite apply | list | bindings | unbind`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use fineline_api::{Backfill, BackfillPlan, Binding, RunPattern, StepOrder, Suite as SuiteRow};
use fineline_client::{BindOptions, Client, apply_suite, plan_suite};
use serde_json::json;
use uuid::Uuid;

use super::context::Context;
use super::table::{Table, bytes, list, or_none, time};
use super::{Ending, Outcome};

/// What is done with suites.
#[derive(Debug, Subcommand)]
pub(crate) enum Suite {
    /// Upload a suite with its tasks and data, and bind it to runs.
    Apply(Apply),
    /// List the suites that are bound to runs.
    List,
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
    /// The suite file.
    file: PathBuf,
    /// The runs: `*`, `NAMESPACE/*`, `NAMESPACE/PREFIX*` or `NAMESPACE/NAME`.
    #[arg(long = "run", value_name = "PATTERN")]
    pattern: RunPattern,
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
    let client = context.client()?;
    match command {
        Suite::Apply(command) => return apply(context, &client, &command).await,
        Suite::List => context
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

async fn apply(context: &Context, client: &Client, command: &Apply) -> Outcome {
    let Apply { file, pattern, .. } = command;
    let options = BindOptions {
        backfill: command.backfill.unwrap_or_default(),
        every: command.every,
        order: command.order,
    };
    if options.backfill != Backfill::None {
        let plan = plan_suite(client, file, pattern, options).await?;
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
    let binding = apply_suite(client, file, pattern, options).await?;
    context.printer.data(&binding, |binding| {
        let Binding {
            suite,
            pattern,
            dtype,
            n_queued,
            ..
        } = binding;
        let schedule = scheduled(binding)
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
    table.render("no suites yet: apply one with `fineline suite apply FILE --run PATTERN`")
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
    table.render("no bindings yet: make one with `fineline suite apply FILE --run PATTERN`")
}
