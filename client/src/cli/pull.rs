//! `fineline pull`.

use std::path::PathBuf;

use clap::Args;
use fineline_client::{PullOptions, PullOutcome, pull};

use super::bar::bars;
use super::context::{Context, Transfer};
use super::table::{bytes, directly};
use super::target::CheckpointTarget;
use super::{Ending, Outcome};

/// What is pulled, and where to.
#[derive(Debug, Args)]
pub(crate) struct Pull {
    /// The checkpoint, as NAMESPACE/NAME@REF.
    #[arg(value_name = "RUN@REF")]
    checkpoint: CheckpointTarget,
    /// The folder that the files go to; it is made when it is missing.
    dir: PathBuf,
    /// Replace files that are there with other content.
    #[arg(long)]
    overwrite: bool,
    #[command(flatten)]
    transfer: Transfer,
}

pub(crate) async fn run(context: &Context, command: Pull) -> Outcome {
    let client = context.transfer_client(&command.transfer)?;
    let CheckpointTarget { run, reference } = command.checkpoint;
    let options = PullOptions {
        overwrite: command.overwrite,
    };
    let outcome = pull(&client, &run, &reference, &command.dir, &options, bars(context.printer)).await?;
    context.printer.data(&outcome, |outcome| {
        let PullOutcome {
            step, digest, n_files, ..
        } = outcome;
        let (size, kept, received) = (
            bytes(outcome.size_bytes),
            bytes(outcome.kept_bytes),
            bytes(outcome.received_bytes),
        );
        format!(
            "{run}@{step} is in {}: {digest}\n{n_files} files of {size}, {kept} there already, {received} received{}",
            command.dir.display(),
            directly(outcome.direct_bytes)
        )
    })?;
    Ok(Ending::Good)
}
