//! `serve`: the registry until it is told to stop.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::commands::worker::{Evaluator, EvaluatorChild};
use crate::commands::{print, say, stop_signal};
use crate::serve::{self, LeaseOptions, ServeOptions};

/// What `serve` is told.
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// Address to listen on; port 0 takes a free one and prints it.
    #[arg(long, env = "FINELINE_LISTEN", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    #[command(flatten)]
    data: DataArgs,
    /// Where users reach the server, for absolute URLs.
    #[arg(long, env = "FINELINE_PUBLIC_URL")]
    public_url: Option<String>,
    /// The embedded evaluator: `cpu`, `cuda:N` or `off`.
    #[arg(long, env = "FINELINE_EVALUATOR", default_value = "cpu")]
    evaluator: Evaluator,
    /// Let everybody who reaches the server read every run.
    #[arg(long, env = "FINELINE_ANONYMOUS_READ")]
    anonymous_read: bool,
    /// Seconds that a worker may be silent before its work goes to another.
    #[arg(long, env = "FINELINE_LEASE_TTL", default_value_t = LeaseOptions::default().ttl_s,
        value_parser = clap::value_parser!(u64).range(1..=86_400))]
    lease_ttl: u64,
    /// Seconds that an evaluation waits after its first failure; doubled after the second.
    #[arg(long, env = "FINELINE_RETRY_BACK_OFF", default_value_t = LeaseOptions::default().back_off_s,
        value_parser = clap::value_parser!(u64).range(0..=86_400))]
    retry_back_off: u64,
}

/// Where a registry keeps what it holds.
#[derive(Debug, Clone, Args)]
pub(crate) struct DataArgs {
    /// Folder of the embedded database and store, and of the first token.
    #[arg(long, env = "FINELINE_DATA", global = true, default_value = "fineline-data")]
    pub(crate) data: PathBuf,
    /// Another database than the one in the folder: `sqlite://PATH`.
    #[arg(long, env = "FINELINE_DATABASE", global = true)]
    database: Option<String>,
    /// Another store than the one in the folder: `file:///DIR`.
    #[arg(long, env = "FINELINE_STORE", global = true)]
    store: Option<String>,
}

impl DataArgs {
    /// Options with these places and all else as it is by default.
    pub(crate) fn options(&self) -> ServeOptions {
        ServeOptions {
            database: self.database.clone(),
            store: self.store.clone(),
            ..ServeOptions::local(&self.data)
        }
    }
}

/// Serves until ctrl-c or SIGTERM.
pub(crate) async fn run(args: ServeArgs) -> anyhow::Result<ExitCode> {
    if args.anonymous_read && !args.listen.ip().is_loopback() {
        say("warning: everybody who reaches this address can read every run (--anonymous-read)");
    }
    let options = ServeOptions {
        listen: args.listen,
        public_url: args.public_url,
        anonymous_read: args.anonymous_read,
        lease: LeaseOptions {
            ttl_s: args.lease_ttl,
            back_off_s: args.retry_back_off,
        },
        ..args.data.options()
    };
    let server = serve::start(options).await?;
    let child = EvaluatorChild::start(&server, &args.evaluator, None)?;
    print(&format!("listening on {}", server.url));
    say(&format!(
        "the administrator's token is in `{}`",
        args.data.data.join("admin.token").display()
    ));
    let until = async {
        stop_signal().await;
        // The child first: its open requests would hold up the end of the server.
        child.stop().await;
    };
    server.run_until(until).await?;
    Ok(ExitCode::SUCCESS)
}
