//! `fsck`: is what the database says true?

use std::process::ExitCode;

use clap::Args;

use crate::commands::serve::DataArgs;
use crate::commands::{print, say};
use crate::serve;
use crate::service::fsck;

/// What `fsck` is told.
#[derive(Debug, Args)]
pub(crate) struct FsckArgs {
    #[command(flatten)]
    data: DataArgs,
    /// Read and hash every frame and every file too.
    #[arg(long)]
    read_data: bool,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
}

/// Checks and reports; exit status 1 when something is wrong.
pub(crate) async fn run(args: FsckArgs) -> anyhow::Result<ExitCode> {
    let app = serve::open(&args.data.options()).await?;
    let report = fsck::check(&app, args.read_data).await?;
    if args.json {
        print(&serde_json::to_string_pretty(&report)?);
    } else {
        report.problems.iter().for_each(|problem| print(problem));
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
    Ok(if report.problems.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
