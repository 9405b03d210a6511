//! The binary `fineline-registry`.

use std::process::ExitCode;

use clap::Parser;
use fineline_registry::cli::Cli;

fn main() -> ExitCode {
    Cli::parse().run()
}
