//! `fineline delete`, and how a deletion is told.

use clap::Args;
use fineline_api::{Deletion, RunName};
use fineline_client::DeleteOptions;

use super::context::Context;
use super::table::{Table, bytes};
use super::target::CheckpointTarget;
use super::{Ending, Outcome};

/// Which checkpoint goes, and what with it.
#[derive(Debug, Args)]
pub(crate) struct Delete {
    /// The checkpoint, as NAMESPACE/NAME@REF; by step all its revisions, by digest that one alone.
    #[arg(value_name = "RUN@REF")]
    target: CheckpointTarget,
    /// Delete its scores too; else they stay.
    #[arg(long)]
    scores: bool,
    #[command(flatten)]
    how: How,
}

/// How anything is deleted.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct How {
    /// Delete tagged and released steps too, their tags and releases with them.
    #[arg(long)]
    force: bool,
    /// Only say what would go and what that frees.
    #[arg(long)]
    dry_run: bool,
}

impl How {
    pub(crate) fn options(self, scores: bool) -> DeleteOptions {
        DeleteOptions {
            force: self.force,
            scores,
            dry_run: self.dry_run,
        }
    }
}

pub(crate) async fn run(context: &Context, command: Delete) -> Outcome {
    let CheckpointTarget { run, reference } = command.target;
    let options = command.how.options(command.scores);
    let deletion = context.client()?.delete_checkpoint(&run, &reference, options).await?;
    context.printer.data(&deletion, |deletion| told(&run, deletion))?;
    Ok(Ending::Good)
}

/// What goes, a line each, and the sums.
pub(crate) fn told(run: &RunName, deletion: &Deletion) -> String {
    let mut table = Table::new([">STEP", ">BYTES", "DIGEST", "NAMES"]);
    for gone in &deletion.checkpoints {
        table.row([
            gone.step.to_string(),
            bytes(gone.size_bytes),
            gone.digest.to_string(),
            gone.names.join(", "),
        ]);
    }
    let (n, size, freed) = (
        deletion.checkpoints.len(),
        bytes(deletion.size_bytes),
        bytes(deletion.freed_bytes),
    );
    let verb = if deletion.dry_run {
        "would be deleted"
    } else {
        "deleted"
    };
    let sums = format!("{n} checkpoints of {run} {verb}: {size}, of which {freed} stored bytes are nobody else's");
    if n == 0 {
        return sums;
    }
    format!("{}\n{sums}", table.render("").trim_end())
}
