//! `fineline-registry` that dies, stops or waits at the fail points that its environment names.

use std::process::ExitCode;

fn main() -> ExitCode {
    harness::arm_fail_points();
    fineline_registry::cli::Cli::run_from_arguments()
}
