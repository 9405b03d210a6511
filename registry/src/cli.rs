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
    /// Shows it all: a registry with its evaluator, and a real training job that pushes its steps to it.
    #[cfg(feature = "embedded-evaluator")]
    Demo(commands::demo::DemoArgs),
    /// Brings the database to this build's schema (every start of the server does so too).
    Migrate(commands::migrate::MigrateArgs),
    /// Makes, lists and revokes tokens.
    Token(commands::token::TokenArgs),
    /// Asks the server on this machine whether it lives, or whether it is ready; exit status 1 when it is not.
    Health(commands::health::HealthArgs),
    /// Checks that what the database says of the store is true; exit status 1 when it is not.
    Fsck(commands::fsck::FsckArgs),
    /// The same, and reads and hashes every stored byte.
    Scrub(commands::fsck::FsckArgs),
    /// Backs the registry up, beside its server: the rows of one moment, and every frame that they name.
    Backup(commands::backup::BackupArgs),
    /// Restores a backup into an empty database and a store.
    Restore(commands::backup::RestoreArgs),
    /// Moves the registry to another database and store; the same command goes on after any interruption.
    Move(commands::relocate::MoveArgs),
    /// The embedded evaluator's own process.
    #[cfg(feature = "embedded-evaluator")]
    #[command(name = commands::worker::COMMAND, hide = true)]
    EvaluatorWorker(crate::embedded::WorkerArgs),
    /// The demo's training job's own process.
    #[cfg(feature = "embedded-evaluator")]
    #[command(name = commands::demo::TRAIN_COMMAND, hide = true)]
    DemoTrain(crate::embedded::TrainArgs),
}

impl Cli {
    /// Reads the process's arguments and runs the command to its end. Exit status: 0 ok, 1 what the user can fix, 2
    /// unexpected.
    pub fn run_from_arguments() -> ExitCode {
        fineline_format::return_large_memory();
        match Self::try_parse() {
            Ok(cli) => cli.run(),
            Err(error) => {
                let code = u8::from(error.use_stderr());
                // Nothing is left to do when the help can't be printed.
                error.print().ok();
                ExitCode::from(code)
            }
        }
    }

    fn run(self) -> ExitCode {
        match self.command {
            Command::Serve(args) => commands::run(commands::serve::run(args)),
            #[cfg(feature = "embedded-evaluator")]
            Command::Demo(args) => commands::run_logging(commands::QUIET_LOG, commands::demo::run(args)),
            Command::Migrate(args) => commands::run(commands::migrate::run(args)),
            Command::Token(args) => commands::run(commands::token::run(args)),
            Command::Health(args) => commands::run(commands::health::run(args)),
            Command::Fsck(args) => commands::run(commands::fsck::run(args, false)),
            Command::Scrub(args) => commands::run(commands::fsck::run(args, true)),
            Command::Backup(args) => commands::run(commands::backup::run(args)),
            Command::Restore(args) => commands::run(commands::backup::run_restore(args)),
            Command::Move(args) => commands::run(commands::relocate::run(args)),
            #[cfg(feature = "embedded-evaluator")]
            Command::EvaluatorWorker(args) => commands::run(crate::embedded::worker(args)),
            #[cfg(feature = "embedded-evaluator")]
            Command::DemoTrain(args) => commands::run_logging(commands::QUIET_LOG, crate::embedded::train(args)),
        }
    }
}
