//! `fineline push`.

use std::path::PathBuf;

use clap::Args;
use fineline_api::RunName;
use fineline_client::{PushOptions, PushOutcome, push};

use super::bar::bars;
use super::context::Context;
use super::table::bytes;
use super::target::{key_value, step};
use super::{Ending, Outcome};

/// What is pushed, and what is said of it.
#[derive(Debug, Args)]
pub(crate) struct Push {
    /// The run, as NAMESPACE/NAME.
    run: RunName,
    /// The training step, a number.
    #[arg(value_parser = step)]
    step: u64,
    /// The folder with the checkpoint's files.
    dir: PathBuf,
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
}

pub(crate) async fn run(context: &Context, command: Push) -> Outcome {
    let options = PushOptions {
        tokens: command.tokens,
        loss: command.loss,
        label: command.label,
        metadata: command.metadata.into_iter().collect(),
        tags: command.tags,
        replace: command.replace,
    };
    let client = context.patient_client()?;
    let progress = bars(context.printer);
    let outcome = push(&client, &command.run, command.step, &command.dir, &options, progress).await?;
    for warning in &outcome.warnings {
        context.printer.word(&format!("warning: {warning}"));
    }
    context.printer.data(&outcome, |outcome| told(&command.run, outcome))?;
    Ok(Ending::Good)
}

fn told(run: &RunName, outcome: &PushOutcome) -> String {
    let PushOutcome {
        step,
        digest,
        sent_chunks,
        ..
    } = outcome;
    if outcome.unchanged {
        return format!("{run}@{step} held this already: {digest}");
    }
    let (size, sent, held) = (
        bytes(outcome.size_bytes),
        bytes(outcome.sent_bytes),
        bytes(outcome.held_bytes),
    );
    format!("{run}@{step} is ready: {digest}\n{size} in all, {held} held already, {sent} sent in {sent_chunks} chunks")
}
