//! `fineline pull`.

use std::path::PathBuf;

use clap::Args;
use fineline_client::{PullOptions, PullOutcome, WeightsForm, pull};

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
    /// The form of the weights: `stored` (byte for byte), or `safetensors`, as which PyTorch's .bin files are written
    /// while they come in. Tensors that share a storage (tied ones) become copies: names, values and the weights
    /// digest, which is compared at the end, stay the same. All other files are left as they are, and so are safetensors.
    #[arg(long = "as", value_name = "FORM", default_value = "stored")]
    weights: WeightsForm,
    #[command(flatten)]
    transfer: Transfer,
}

pub(crate) async fn run(context: &Context, command: Pull) -> Outcome {
    let client = context.transfer_client(&command.transfer)?;
    let CheckpointTarget { run, reference } = command.checkpoint;
    let options = PullOptions {
        overwrite: command.overwrite,
        weights: command.weights,
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
        let converted = match outcome.n_converted_files {
            0 => String::new(),
            n => format!(", {n} of them made for the weights as safetensors"),
        };
        format!(
            "{run}@{step} is in {}: {digest}\n{n_files} files of {size}{converted}, {kept} there already, \
             {received} received{}",
            command.dir.display(),
            directly(outcome.direct_bytes)
        )
    })?;
    Ok(Ending::Good)
}
