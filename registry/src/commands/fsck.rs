//! `fsck` and `scrub`: is what the database says true?

use std::process::ExitCode;

use clap::Args;

use crate::commands::serve::DataArgs;
use crate::commands::{print, say};
use crate::serve;
use crate::service::fsck;

/// What `fsck` and `scrub` are told.
#[derive(Debug, Args)]
pub(crate) struct FsckArgs {
    #[command(flatten)]
    data: DataArgs,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
}

/// Checks, and with `read_data` reads every byte, and reports; exit status 1 when something is wrong.
pub(crate) async fn run(args: FsckArgs, read_data: bool) -> anyhow::Result<ExitCode> {
    let app = serve::open(&args.data.options()).await?;
    let report = fsck::check(&app, read_data).await?;
    if args.json {
        print(&serde_json::to_string_pretty(&report)?);
    } else {
        report.problems.iter().for_each(|problem| print(&told(problem)));
        let fsck::Report {
            n_chunks,
            n_files,
            n_checkpoints,
            read_bytes,
            ..
        } = report;
        say(&format!(
            "{n_chunks} chunks, {n_files} files, {n_checkpoints} checkpoints, {read_bytes} bytes read"
        ));
        say(&format!("{} problems", report.problems.len()));
    }
    if report.problems.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    say("hint: push a step again that has what is damaged: what is missing is sent, and the damage is repaired");
    Ok(ExitCode::FAILURE)
}

fn told(problem: &fsck::Problem) -> String {
    if problem.checkpoints.is_empty() {
        return problem.message.clone();
    }
    format!("{} ({})", problem.message, problem.checkpoints.join(", "))
}
