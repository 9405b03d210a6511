//! The verbs of the command line, one a file.

pub(crate) mod backup;
#[cfg(feature = "embedded-evaluator")]
pub(crate) mod demo;
pub(crate) mod failure;
pub(crate) mod fsck;
pub(crate) mod health;
pub(crate) mod migrate;
pub(crate) mod relocate;
pub(crate) mod serve;
pub(crate) mod token;
pub(crate) mod worker;

use std::future::Future;
use std::process::ExitCode;

/// Resolves at ctrl-c or SIGTERM.
pub(crate) async fn stop_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        },
        Err(_) => drop(tokio::signal::ctrl_c().await),
    }
}

/// Resolves when whoever started this process is gone: when its standard input ends.
#[cfg(feature = "embedded-evaluator")]
pub(crate) async fn stdin_closed() {
    let (ended, end) = tokio::sync::oneshot::channel();
    // A thread of its own: a blocked read would keep the runtime from ending.
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        let _ = ended.send(());
    });
    let _ = end.await;
}

/// The environment variable that filters the log.
pub(crate) const LOG_VARIABLE: &str = "FINELINE_LOG";

/// What is logged when the variable is not set.
const LOG: &str = "info,sea_orm_migration=warn,sqlx=warn";

/// The same where the terminal is for something else than the log.
#[cfg(feature = "embedded-evaluator")]
pub(crate) const QUIET_LOG: &str = "warn";

/// Lines for people on a terminal, JSON for a log collector; `FINELINE_LOG` filters, else `filter`.
fn init_tracing(filter: &str) {
    use std::io::IsTerminal;
    let from_environment = tracing_subscriber::EnvFilter::try_from_env(LOG_VARIABLE);
    let filter = from_environment.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(filter));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    if std::io::stderr().is_terminal() {
        builder.init();
    } else {
        builder.json().init();
    }
}

/// Runs a command on a runtime of its own and says on stderr why it failed. Exit status: 0 ok, 1 what the user can
/// fix, 2 unexpected.
pub(crate) fn run(command: impl Future<Output = anyhow::Result<ExitCode>>) -> ExitCode {
    run_logging(LOG, command)
}

/// The same with another log than usual.
pub(crate) fn run_logging(log: &str, command: impl Future<Output = anyhow::Result<ExitCode>>) -> ExitCode {
    init_tracing(log);
    let outcome = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => {
            let outcome = runtime.block_on(command);
            // Not waited for: what still computes has nobody left to tell.
            runtime.shutdown_background();
            outcome
        }
        Err(error) => Err(error.into()),
    };
    outcome.unwrap_or_else(|error| failure::report(&error))
}

/// A line for people, on stderr.
#[expect(clippy::print_stderr, reason = "the one place where commands speak to people")]
pub(crate) fn say(line: &str) {
    eprintln!("{line}");
}

/// A line of data, on stdout.
#[expect(clippy::print_stdout, reason = "the one place where commands print data")]
pub(crate) fn print(line: &str) {
    println!("{line}");
}
