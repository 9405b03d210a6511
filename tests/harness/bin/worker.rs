//! `fineline-evaluator` that dies, stops or waits at the fail points that its environment names.

use std::process::ExitCode;

use fineline_evaluator::cli::Cli;

fn main() -> ExitCode {
    harness::arm_fail_points();
    Cli::run_from_arguments()
}
