//! `fineline storage gc`.

use clap::Subcommand;
use fineline_api::{FrameCount, GarbageReport};

use super::context::Context;
use super::table::{bytes, facts};
use super::{Ending, Outcome};

/// What is done with the store.
#[derive(Debug, Subcommand)]
pub(crate) enum Storage {
    /// Collect garbage now: condemn what nothing needs any more, delete what was condemned a grace ago.
    Gc {
        /// Only count.
        #[arg(long)]
        dry_run: bool,
    },
}

pub(crate) async fn run(context: &Context, command: Storage) -> Outcome {
    let Storage::Gc { dry_run } = command;
    let report = context.client()?.collect_garbage(dry_run).await?;
    context.printer.data(&report, told)?;
    Ok(Ending::Good)
}

fn told(report: &GarbageReport) -> String {
    let count = |frames: FrameCount| format!("{} frames, {}", frames.n, bytes(frames.stored_bytes));
    let (condemned, deleted) = if report.dry_run {
        ("would be condemned", "would be deleted")
    } else {
        ("condemned", "deleted")
    };
    facts(&[
        ("live", count(report.live)),
        (condemned, count(report.condemned)),
        ("waiting for the grace", count(report.waiting)),
        (deleted, count(report.deleted)),
        ("grace", format!("{} s", report.grace_s)),
    ])
}
