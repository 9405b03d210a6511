//! `fineline push`: a folder by one process, or a part of it by each rank of a job.

use std::path::{Path, PathBuf};

use clap::Args;
use fineline_api::{PushSessionState, RunName};
use fineline_client::{PartOutcome, PushOptions, PushOutcome, abort_parts, commit_parts, push, push_part};
use serde_json::json;

use super::bar::bars;
use super::context::{Context, Transfer};
use super::failure::UserError;
use super::table::{bytes, directly};
use super::target::{key_value, step};
use super::{Ending, Outcome};

/// How a job of several ranks pushes, for the end of the help.
const RANKS: &str = "\
Several processes can push one step together (torchrun, DeepSpeed, FSDP). Each rank pushes its own folder under one name
that all of them know, such as the job's id:
    fineline push RUN STEP rank-$RANK --session \"$JOB_ID\"
After a barrier (torch.distributed.barrier()) one of them commits, with the number of files that all have together:
    fineline push RUN STEP --session \"$JOB_ID\" --commit --files N
Each command can be repeated after any interruption. A job that begins anew and writes other bytes takes another name.";

/// What is pushed, and what is said of it.
#[derive(Debug, Args)]
#[command(after_help = RANKS)]
pub(crate) struct Push {
    /// The run, as NAMESPACE/NAME.
    run: RunName,
    /// The training step, a number.
    #[arg(value_parser = step)]
    step: u64,
    /// The folder with the checkpoint's files; with `--session` this rank's part of them.
    #[arg(required_unless_present_any = ["commit", "abort"])]
    dir: Option<PathBuf>,
    /// Tokens trained on until this step; else trainer_state.json or the run's tokens per step give it.
    #[arg(long, value_name = "N")]
    tokens: Option<u64>,
    /// Training loss at this step; else trainer_state.json gives it.
    #[arg(long)]
    loss: Option<f64>,
    /// Another spelling of the step, usable as a reference.
    #[arg(long)]
    label: Option<String>,
    /// A further fact; can be given several times.
    #[arg(long = "meta", value_name = "KEY=VALUE", value_parser = key_value)]
    metadata: Vec<(String, String)>,
    /// A tag to set when the step is ready; can be given several times.
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// Make a new revision where the step holds other bytes.
    #[arg(long)]
    replace: bool,
    /// Add the files to the push session of this name, which the ranks of a job share; one of them commits it.
    #[arg(long, value_name = "NAME")]
    session: Option<String>,
    /// Commit the session: all ranks have pushed.
    #[arg(long, requires = "session")]
    commit: bool,
    /// Refuse to commit unless the session has so many files.
    #[arg(long, value_name = "N", requires = "commit")]
    files: Option<u64>,
    /// Take the session back: nothing of it becomes visible.
    #[arg(long, requires = "session", conflicts_with_all = ["commit", "dir"])]
    abort: bool,
    #[command(flatten)]
    transfer: Transfer,
}

pub(crate) async fn run(context: &Context, command: Push) -> Outcome {
    let options = PushOptions {
        tokens: command.tokens,
        loss: command.loss,
        label: command.label.clone(),
        metadata: command.metadata.iter().cloned().collect(),
        tags: command.tags.clone(),
        replace: command.replace,
    };
    match (&command.session, &command.dir) {
        (Some(name), _) => run_rank(context, &command, name, &options).await,
        (None, Some(dir)) => run_alone(context, &command, dir, &options).await,
        (None, None) => Err(UserError::new("a push needs a folder", "name it: `fineline push RUN STEP DIR`").into()),
    }
}

async fn run_alone(context: &Context, command: &Push, dir: &Path, options: &PushOptions) -> Outcome {
    let client = context.transfer_client(&command.transfer)?;
    let progress = bars(context.printer);
    let outcome = push(&client, &command.run, command.step, dir, options, progress).await?;
    warn(context, &outcome.warnings);
    context.printer.data(&outcome, |outcome| told(&command.run, outcome))?;
    Ok(Ending::Good)
}

async fn run_rank(context: &Context, command: &Push, name: &str, options: &PushOptions) -> Outcome {
    let client = context.transfer_client(&command.transfer)?;
    let (run, step) = (&command.run, command.step);
    if command.abort {
        let session = abort_parts(&client, run, step, name).await?;
        context.printer.data(&json!({ "aborted": session }), |_| {
            format!("push session `{name}` of {run}@{step} is taken back")
        })?;
        return Ok(Ending::Good);
    }
    if let Some(dir) = &command.dir {
        let part = push_part(&client, run, step, name, dir, options, bars(context.printer)).await?;
        warn(context, &part.warnings);
        if command.commit {
            context.printer.word(&part_told(run, &part));
        } else {
            context.printer.data(&part, |part| part_told(run, part))?;
        }
    }
    if command.commit {
        let outcome = commit_parts(&client, run, step, name, command.files, options).await?;
        warn(context, &outcome.warnings);
        context.printer.data(&outcome, |outcome| told(run, outcome))?;
    }
    Ok(Ending::Good)
}

fn warn(context: &Context, warnings: &[String]) {
    for warning in warnings {
        context.printer.word(&format!("warning: {warning}"));
    }
}

fn part_told(run: &RunName, part: &PartOutcome) -> String {
    let (step, name, n_files, all) = (part.step, &part.session_name, part.n_files, part.n_session_files);
    if part.state != PushSessionState::Open {
        return format!(
            "{run}@{step}: push session `{name}` is {} with these {n_files} files",
            part.state
        );
    }
    let (size, sent, held) = (bytes(part.size_bytes), bytes(part.sent_bytes), bytes(part.held_bytes));
    format!(
        "{run}@{step}: {n_files} files are in push session `{name}`, which has {all}\n\
         {size} in all, {held} held already, {sent} sent in {} chunks; it waits for `--commit`",
        part.sent_chunks
    )
}

fn told(run: &RunName, outcome: &PushOutcome) -> String {
    let PushOutcome {
        step,
        digest,
        sent_chunks,
        ..
    } = outcome;
    let obstacle = outcome
        .not_evaluable
        .as_ref()
        .map(|why| format!("\nnot evaluable: {why}"))
        .unwrap_or_default();
    if outcome.unchanged {
        return format!("{run}@{step} held this already: {digest}{obstacle}");
    }
    let (size, sent, held) = (
        bytes(outcome.size_bytes),
        bytes(outcome.sent_bytes),
        bytes(outcome.held_bytes),
    );
    format!(
        "{run}@{step} is ready: {digest}\n{size} in all, {held} held already, {sent} sent in {sent_chunks} chunks{}{obstacle}",
        directly(outcome.direct_bytes)
    )
}
