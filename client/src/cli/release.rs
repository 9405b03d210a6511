//! `fineline release`: make with two words, list with one.

use clap::Args;
use fineline_api::{CreateRelease, Release as ReleaseRow};

use super::context::Context;
use super::table::{Table, time};
use super::tag::grammar;
use super::target::Target;
use super::{Ending, Outcome};

/// `fineline release RUN@REF NAME` makes one, `fineline release RUN` lists them.
#[derive(Debug, Args)]
pub(crate) struct Release {
    /// The run to list releases of, or the checkpoint to release, as NAMESPACE/NAME@REF.
    #[arg(value_name = "RUN[@REF]")]
    target: Target,
    /// The release's name, which will never move.
    #[arg(value_name = "NAME")]
    release: Option<String>,
    /// What to know of it.
    #[arg(long, default_value = "", hide_default_value = true, requires = "release")]
    notes: String,
}

pub(crate) async fn run(context: &Context, command: Release) -> Outcome {
    let client = context.client()?;
    let Target { run, reference } = command.target;
    match (reference, command.release) {
        (Some(reference), Some(release)) => {
            let notes = command.notes;
            let made = client
                .create_release(
                    &run,
                    &CreateRelease {
                        release,
                        reference,
                        notes,
                    },
                )
                .await?;
            context.printer.data(&made, |made| {
                format!("{} is {run}@{} for good", made.release, made.step)
            })?;
        }
        (None, None) => context
            .printer
            .data(&client.list_releases(&run).await?, |releases| table(releases))?,
        _ => return Err(grammar("release").into()),
    }
    Ok(Ending::Good)
}

fn table(releases: &[ReleaseRow]) -> String {
    let mut table = Table::new(["RELEASE", ">STEP", "DIGEST", "MADE", "NOTES"]);
    for release in releases {
        table.row([
            release.release.clone(),
            release.step.to_string(),
            release.digest.to_string(),
            time(release.created_at),
            release.notes.replace('\n', " "),
        ]);
    }
    table.render("no releases yet: make one with `fineline release RUN@REF NAME`")
}
