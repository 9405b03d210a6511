//! `migrate`: brings the database to this build's schema; every start of the server does the same.

use std::process::ExitCode;

use clap::Args;

use crate::commands::serve::DataArgs;
use crate::commands::{print, say};
use crate::{db, serve};

/// What `migrate` is told.
#[derive(Debug, Args)]
pub(crate) struct MigrateArgs {
    #[command(flatten)]
    data: DataArgs,
}

/// Runs the migrations that are missing and lists those that are there.
pub(crate) async fn run(args: MigrateArgs) -> anyhow::Result<ExitCode> {
    let app = serve::open(&args.data.options()).await?;
    for name in db::applied_migrations(&app.db).await? {
        print(&name);
    }
    say("the database has this build's schema");
    Ok(ExitCode::SUCCESS)
}
