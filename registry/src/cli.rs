//! The command line of `fineline-registry`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::commands;

/// A content-addressed registry for LLM pretraining checkpoints and their scores by step.
#[derive(Debug, Parser)]
#[command(name = "fineline-registry", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serves the registry.
    Serve(commands::serve::ServeArgs),
    /// Brings the database to this build's schema (every start of the server does so too).
    Migrate(commands::migrate::MigrateArgs),
    /// Makes, lists and revokes tokens.
    Token(commands::token::TokenArgs),
    /// Checks that what the database says is true; exit status 1 when it is not.
    Fsck(commands::fsck::FsckArgs),
    /// The embedded evaluator's own process.
    #[cfg(feature = "embedded-evaluator")]
    #[command(name = commands::worker::COMMAND, hide = true)]
    EvaluatorWorker(crate::embedded::WorkerArgs),
}

impl Cli {
    /// Runs the command to its end. Exit status: 0 ok, 1 what the user can fix, 2 unexpected.
    pub fn run(self) -> ExitCode {
        commands::run(async {
            match self.command {
                Command::Serve(args) => commands::serve::run(args).await,
                Command::Migrate(args) => commands::migrate::run(args).await,
                Command::Token(args) => commands::token::run(args).await,
                Command::Fsck(args) => commands::fsck::run(args).await,
                #[cfg(feature = "embedded-evaluator")]
                Command::EvaluatorWorker(args) => crate::embedded::worker(args).await,
            }
        })
    }
}
