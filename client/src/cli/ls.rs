//! `fineline ls`: the checkpoints of a run, or the files of a checkpoint.

use clap::Args;
use fineline_api::{Checkpoint, CheckpointFile, EvaluationCounts};
use fineline_client::{CheckpointQuery, StateFilter, all_pages};

use super::context::Context;
use super::table::{Table, bytes, list, or_none};
use super::target::Target;
use super::{Ending, Outcome};

/// Digits of a digest that tell it from the others of a run.
const SHORT_DIGEST: usize = 12;

/// What is listed.
#[derive(Debug, Args)]
pub(crate) struct Ls {
    /// The run, as NAMESPACE/NAME, or a checkpoint of it, as NAMESPACE/NAME@REF.
    #[arg(value_name = "RUN[@REF]")]
    target: Target,
    /// The first step to list.
    #[arg(long, value_name = "STEP")]
    step_min: Option<u64>,
    /// The last step to list.
    #[arg(long, value_name = "STEP")]
    step_max: Option<u64>,
    /// List replaced revisions and steps that can't be read too.
    #[arg(long)]
    all: bool,
}

pub(crate) async fn run(context: &Context, command: Ls) -> Outcome {
    let client = context.client()?;
    let run = &command.target.run;
    if let Some(reference) = &command.target.reference {
        context
            .printer
            .data(&client.list_files(run, reference, false).await?, |files| {
                files_table(files)
            })?;
        return Ok(Ending::Good);
    }
    let query = CheckpointQuery {
        step_min: command.step_min,
        step_max: command.step_max,
        state: if command.all {
            StateFilter::Any
        } else {
            StateFilter::Ready
        },
        all_revisions: command.all,
    };
    let page = async |cursor: Option<String>| client.list_checkpoints(run, &query, cursor.as_deref(), None).await;
    context
        .printer
        .data(&all_pages(page).await?, |checkpoints| checkpoints_table(checkpoints))?;
    Ok(Ending::Good)
}

fn files_table(files: &[CheckpointFile]) -> String {
    let mut table = Table::new(["PATH", ">SIZE", "SHA-256"]);
    for file in files {
        table.row([file.path.clone(), bytes(file.size_bytes), file.digest.to_hex()]);
    }
    table.render("no files")
}

fn checkpoints_table(checkpoints: &[Checkpoint]) -> String {
    let mut table = Table::new([
        ">STEP",
        ">TOKENS",
        ">LOSS",
        ">SIZE",
        "STATE",
        "EVALUATIONS",
        "TAGS",
        "DIGEST",
    ]);
    for checkpoint in checkpoints {
        let replaced = if checkpoint.current { "" } else { ", replaced" };
        let stored_only = if checkpoint.not_evaluable.is_some() {
            ", not evaluable"
        } else {
            ""
        };
        table.row([
            checkpoint.step.to_string(),
            or_none(checkpoint.tokens),
            or_none(checkpoint.loss.map(|loss| format!("{loss:.4}"))),
            bytes(checkpoint.size_bytes),
            format!("{}{replaced}{stored_only}", checkpoint.state),
            evaluations(&checkpoint.evaluations),
            list(checkpoint.tags.iter().chain(&checkpoint.label)),
            or_none(
                checkpoint
                    .digest
                    .map(|digest| digest.to_hex()[..SHORT_DIGEST].to_owned()),
            ),
        ]);
    }
    table.render("no checkpoints yet: push one with `fineline push RUN STEP DIR`")
}

/// The counts that are not zero.
pub(crate) fn evaluations(counts: &EvaluationCounts) -> String {
    let named = [
        (counts.done, "done"),
        (counts.leased, "leased"),
        (counts.queued, "queued"),
        (counts.failed, "failed"),
        (counts.parked, "parked"),
        (counts.cancelled, "cancelled"),
    ];
    list(
        named
            .into_iter()
            .filter(|(n, _)| *n > 0)
            .map(|(n, state)| format!("{n} {state}")),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_counts_that_are_there_are_named() {
        let counts = EvaluationCounts {
            done: 2,
            parked: 1,
            ..EvaluationCounts::default()
        };
        assert_eq!(evaluations(&counts), "2 done, 1 parked");
        assert_eq!(evaluations(&EvaluationCounts::default()), "-");
    }
}
