//! `fineline` that dies at the fail point that its environment names.

use std::process::ExitCode;

fn main() -> ExitCode {
    harness::die_at_fail_point();
    fineline_client::cli::main()
}
