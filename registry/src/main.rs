//! The binary `fineline-registry`.

use std::process::ExitCode;

use fineline_registry::cli::Cli;

fn main() -> ExitCode {
    Cli::run_from_arguments()
}
