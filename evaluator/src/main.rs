//! The binary `fineline-evaluator`: a worker that takes evaluations from a registry.

use std::process::ExitCode;

use fineline_evaluator::cli::Cli;

fn main() -> ExitCode {
    Cli::run_from_arguments()
}
