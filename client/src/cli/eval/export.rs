//! `fineline eval export`.

use std::path::PathBuf;

use clap::Args;
use fineline_client::{ExportOptions, ExportOutcome, export_results};

use crate::cli::context::Context;
use crate::cli::failure::UserError;
use crate::cli::target::CheckpointTarget;
use crate::cli::{Ending, Outcome};

/// What is exported, and to where.
#[derive(Debug, Args)]
pub(crate) struct Export {
    /// The checkpoint, as NAMESPACE/NAME@REF.
    #[arg(value_name = "RUN@REF")]
    checkpoint: CheckpointTarget,
    /// The folder in which lm-eval's folder of the model is made.
    dir: PathBuf,
    /// Only the suite of this name or digest.
    #[arg(long)]
    suite: Option<String>,
    /// Replace files that are there.
    #[arg(long)]
    overwrite: bool,
}

pub(crate) async fn run(context: &Context, command: Export) -> Outcome {
    let CheckpointTarget { run, reference } = &command.checkpoint;
    let options = ExportOptions {
        suite: command.suite,
        overwrite: command.overwrite,
    };
    let client = context.patient_client()?;
    let outcome = export_results(&client, run, reference, &command.dir, &options).await?;
    outcome.notes.iter().for_each(|note| context.printer.word(note));
    if outcome.files.is_empty() {
        let what = match &options.suite {
            Some(suite) => format!("`{run}@{reference}` has no scores of suite `{suite}` to export"),
            None => format!("`{run}@{reference}` has no scores of ours to export"),
        };
        return Err(UserError::new(
            what,
            format!("`fineline eval list {run}@{reference}` says what is under way"),
        )
        .into());
    }
    context.printer.data(&outcome, told)?;
    Ok(Ending::Good)
}

fn told(outcome: &ExportOutcome) -> String {
    let line = |file: &PathBuf| format!("{}\n", file.display());
    outcome.files.iter().map(line).collect()
}
