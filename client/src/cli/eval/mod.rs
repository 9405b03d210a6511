//! `fineline eval list | show | samples | retry | cancel | export | compare`.

mod compare;
mod export;

use clap::{Args, Subcommand};
use fineline_api::{Evaluation, EvaluationState};
use fineline_client::{EvaluationQuery, all_pages};
use uuid::Uuid;

use super::context::Context;
use super::table::{NONE, Table, facts, or_none, time};
use super::target::Target;
use super::{Ending, Outcome};

/// What is done with evaluations.
#[derive(Debug, Subcommand)]
pub(crate) enum Eval {
    /// List evaluations, newest first.
    List(List),
    /// Show an evaluation.
    Show {
        /// The evaluation's id.
        id: Uuid,
    },
    /// Print the sample log of a task, one JSON object a line.
    Samples {
        /// The evaluation's id.
        id: Uuid,
        /// The task's name.
        task: String,
    },
    /// Queue an evaluation again that failed, was parked or cancelled.
    Retry {
        /// The evaluation's id.
        id: Uuid,
    },
    /// Take an evaluation back.
    Cancel {
        /// The evaluation's id.
        id: Uuid,
    },
    /// Write a checkpoint's scores and sample logs as lm-eval's files, for tools that read those.
    Export(export::Export),
    /// Compare two sets of lm-eval's output sample by sample, ours or lm-eval's own; needs no registry.
    Compare(compare::Compare),
}

/// Which evaluations are listed.
#[derive(Debug, Args)]
pub(crate) struct List {
    /// The run, as NAMESPACE/NAME, or a checkpoint of it, as NAMESPACE/NAME@REF.
    #[arg(value_name = "RUN[@REF]")]
    target: Option<Target>,
    /// Only those in this state: queued, leased, done, failed, parked or cancelled.
    #[arg(long)]
    state: Option<EvaluationState>,
}

pub(crate) async fn run(context: &Context, command: Eval) -> Outcome {
    let (client, printer) = (|| context.client(), context.printer);
    match command {
        Eval::Export(command) => return export::run(context, command).await,
        Eval::Compare(command) => return compare::run(context, command).await,
        Eval::List(List { target, state }) => {
            let (run, reference) = target.map_or((None, None), |target| (Some(target.run), target.reference));
            let query = EvaluationQuery { run, reference, state };
            let client = client()?;
            let page = async |cursor: Option<String>| client.list_evaluations(&query, cursor.as_deref(), None).await;
            printer.data(&all_pages(page).await?, |evaluations| table(evaluations))?;
        }
        Eval::Show { id } => printer.data(&client()?.get_evaluation(id).await?, show)?,
        Eval::Samples { id, task } => printer.raw(&client()?.get_samples(id, &task).await?)?,
        Eval::Retry { id } => printer.data(&client()?.retry_evaluation(id).await?, show)?,
        Eval::Cancel { id } => printer.data(&client()?.cancel_evaluation(id).await?, show)?,
    }
    Ok(Ending::Good)
}

fn table(evaluations: &[Evaluation]) -> String {
    let mut table = Table::new(["ID", "RUN", ">STEP", "SUITE", "DTYPE", "STATE", "REASON"]);
    for evaluation in evaluations {
        table.row([
            evaluation.id.to_string(),
            evaluation.run.to_string(),
            evaluation.step.to_string(),
            evaluation.suite.clone(),
            evaluation.dtype.clone(),
            evaluation.state.to_string(),
            evaluation.reason.clone().unwrap_or_default(),
        ]);
    }
    table.render("no evaluations yet: bind a suite with `fineline suite apply FILE --run PATTERN`")
}

fn show(evaluation: &Evaluation) -> String {
    let progress = evaluation.progress.as_ref().map(|progress| {
        let task = progress.task.as_deref().unwrap_or(NONE);
        let said = match progress.ahead {
            true => "held by a worker that ends another evaluation first".to_owned(),
            false => format!("{} of {} requests, at task {task}", progress.n_done, progress.n_total),
        };
        let rate = progress.tokens_per_s.map(|rate| format!("{rate:.0} tokens/s"));
        let left = progress.eta_s.map(|left| format!("{left} s left"));
        [Some(said), rate, left]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
            .join(", ")
    });
    facts(&[
        ("id", evaluation.id.to_string()),
        ("run", evaluation.run.to_string()),
        ("step", evaluation.step.to_string()),
        ("checkpoint", evaluation.checkpoint.to_string()),
        ("suite", evaluation.suite.clone()),
        ("suite digest", evaluation.suite_digest.to_string()),
        ("dtype", evaluation.dtype.clone()),
        ("architecture", or_none(evaluation.architecture.as_ref())),
        ("state", evaluation.state.to_string()),
        ("reason", or_none(evaluation.reason.as_ref())),
        ("failures", evaluation.n_failures.to_string()),
        ("expiries", evaluation.n_expiries.to_string()),
        ("worker", or_none(evaluation.worker.as_ref())),
        ("progress", or_none(progress)),
        ("queued", time(evaluation.created_at)),
        ("started", or_none(evaluation.started_at.map(time))),
        ("finished", or_none(evaluation.finished_at.map(time))),
    ])
}
