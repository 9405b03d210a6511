//! `fineline show`: a checkpoint, or its tensors.

use clap::Args;
use fineline_api::{Checkpoint, Tensor};

use super::context::Context;
use super::ls::evaluations;
use super::table::{Table, bytes, facts, list, or_none, time};
use super::target::CheckpointTarget;
use super::{Ending, Outcome};

/// What is shown.
#[derive(Debug, Args)]
pub(crate) struct Show {
    /// The checkpoint, as NAMESPACE/NAME@REF.
    #[arg(value_name = "RUN@REF")]
    checkpoint: CheckpointTarget,
    /// Show the tensors of its weights instead.
    #[arg(long)]
    tensors: bool,
}

pub(crate) async fn run(context: &Context, command: Show) -> Outcome {
    let client = context.client()?;
    let CheckpointTarget { run, reference } = &command.checkpoint;
    if command.tensors {
        context
            .printer
            .data(&client.list_tensors(run, reference).await?, |tensors| {
                tensors_table(tensors)
            })?;
    } else {
        context
            .printer
            .data(&client.get_checkpoint(run, reference).await?, show)?;
    }
    Ok(Ending::Good)
}

fn tensors_table(tensors: &[Tensor]) -> String {
    let mut table = Table::new(["TENSOR", "DTYPE", "SHAPE", "FILE", "DIGEST"]);
    for tensor in tensors {
        let shape: Vec<_> = tensor.shape.iter().map(u64::to_string).collect();
        table.row([
            tensor.name.clone(),
            tensor.dtype.clone(),
            format!("[{}]", shape.join(", ")),
            tensor.path.clone(),
            tensor.digest.to_string(),
        ]);
    }
    table.render("no tensors: the checkpoint has no weights in a form that can be listed")
}

fn show(checkpoint: &Checkpoint) -> String {
    let yes_no = |value: bool| if value { "yes" } else { "no" }.to_owned();
    let size = format!("{} in {} files", bytes(checkpoint.size_bytes), checkpoint.n_files);
    let mut rows = vec![
        ("run", checkpoint.run.to_string()),
        ("step", checkpoint.step.to_string()),
        ("label", or_none(checkpoint.label.as_ref())),
        ("state", checkpoint.state.to_string()),
        ("current", yes_no(checkpoint.current)),
        ("evaluable", yes_no(checkpoint.evaluable)),
        ("digest", or_none(checkpoint.digest)),
        ("weights digest", or_none(checkpoint.weights_digest)),
        ("model digest", or_none(checkpoint.model_digest)),
        ("architecture", or_none(checkpoint.architecture.as_ref())),
        ("tokens", or_none(checkpoint.tokens)),
        ("loss", or_none(checkpoint.loss)),
        (
            "metadata",
            list(checkpoint.metadata.iter().map(|(key, value)| format!("{key}={value}"))),
        ),
        ("tags", list(&checkpoint.tags)),
        ("size", size),
        ("evaluations", evaluations(&checkpoint.evaluations)),
        ("created", time(checkpoint.created_at)),
        ("ready", or_none(checkpoint.ready_at.map(time))),
    ];
    rows.extend(checkpoint.not_evaluable.clone().map(|why| ("not evaluable", why)));
    if !checkpoint.replaced.is_empty() {
        rows.push(("replaced", list(checkpoint.replaced.iter().map(ToString::to_string))));
    }
    if !checkpoint.same_model_steps.is_empty() {
        rows.push((
            "same model as",
            list(checkpoint.same_model_steps.iter().map(|step| format!("step {step}"))),
        ));
    }
    rows.extend(checkpoint.failure.clone().map(|failure| ("failure", failure)));
    rows.extend(checkpoint.warnings.iter().map(|warning| ("warning", warning.clone())));
    facts(&rows)
}
