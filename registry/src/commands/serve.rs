//! `serve`: the registry until it is told to stop.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use crate::commands::worker::{Evaluator, EvaluatorChild};
use crate::commands::{print, say, stop_signal};
use crate::serve::{
    self, AllowedHost, AwsVariables, LeaseOptions, PublicUrl, Reach, ServeOptions, StoreOptions, TrustedProxy,
};

/// What `serve` is told.
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// Address to listen on; port 0 takes a free one and prints it.
    #[arg(long, env = "FINELINE_LISTEN", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    #[command(flatten)]
    data: DataArgs,
    /// A file with the secret of the administrator's token (`fl_` and 43 letters and digits or more), for replicas that
    /// share a database; without it the token is made at the first start and kept in the data folder.
    #[arg(long, env = "FINELINE_ADMIN_TOKEN_FILE")]
    admin_token_file: Option<PathBuf>,
    /// Where users reach the server, for links and absolute URLs: `https://HOST[:PORT][/PATH]`, PATH taken off by a proxy.
    #[arg(long, env = "FINELINE_PUBLIC_URL")]
    public_url: Option<PublicUrl>,
    /// A proxy whose forwarded headers are believed, by address or network; may be given several times.
    #[arg(long = "trusted-proxy", env = "FINELINE_TRUSTED_PROXY", value_delimiter = ',')]
    trusted_proxies: Vec<TrustedProxy>,
    /// Where clients reach the bucket, when it is by another name than the server's own: `https://HOST[:PORT]`. URLs for
    /// direct transfer are signed for it.
    #[arg(long, env = "FINELINE_STORE_PUBLIC_URL")]
    store_public_url: Option<String>,
    /// Whether clients send to and read from the bucket by themselves: `auto` or `off`, where they can't reach it.
    #[arg(long, env = "FINELINE_STORE_DIRECT", default_value = "auto", value_parser = ["auto", "off"])]
    store_direct: String,
    /// The embedded evaluator: `cpu` or `off`.
    #[arg(long, env = "FINELINE_EVALUATOR", default_value = "cpu")]
    evaluator: Evaluator,
    /// How long content that nothing needs any more is kept before it is deleted (`3d`, `12h`). A push that takes longer
    /// than two thirds of it is given up.
    #[arg(long, env = "FINELINE_GRACE", default_value = "3d", value_parser = grace)]
    grace: Duration,
    /// Let everybody who reaches the server read every run.
    #[arg(long, env = "FINELINE_ANONYMOUS_READ")]
    anonymous_read: bool,
    /// A folder below which sources may read; may be given several times, and without it no source is a folder.
    #[arg(long = "source-root", env = "FINELINE_SOURCE_ROOT", value_delimiter = ',')]
    source_roots: Vec<PathBuf>,
    /// A host that sources may reach although its addresses are private: `NAME`, or an address, with `:PORT` if only that; may
    /// be given several times.
    #[arg(long = "source-allow", env = "FINELINE_SOURCE_ALLOW", value_delimiter = ',')]
    source_allowed: Vec<AllowedHost>,
    /// Seconds that a worker may be silent before its work goes to another.
    #[arg(long, env = "FINELINE_LEASE_TTL", default_value_t = LeaseOptions::default().ttl_s,
        value_parser = clap::value_parser!(u64).range(1..=86_400))]
    lease_ttl: u64,
    /// Seconds that an evaluation waits after its first failure; doubled after the second.
    #[arg(long, env = "FINELINE_RETRY_BACK_OFF", default_value_t = LeaseOptions::default().back_off_s,
        value_parser = clap::value_parser!(u64).range(0..=86_400))]
    retry_back_off: u64,
}

fn grace(text: &str) -> Result<Duration, String> {
    let grace = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if grace < Duration::from_secs(1) {
        return Err("it must be a second at least, and should be longer than any push".to_owned());
    }
    Ok(grace)
}

/// Where a registry keeps what it holds.
#[derive(Debug, Clone, Args)]
pub(crate) struct DataArgs {
    /// Folder of the embedded database and store, and of the first token.
    #[arg(long, env = "FINELINE_DATA", global = true, default_value = "fineline-data")]
    pub(crate) data: PathBuf,
    /// Another database than the one in the folder: `sqlite://PATH` or `postgres://USER:PASSWORD@HOST/DATABASE`.
    #[arg(long, env = "FINELINE_DATABASE", global = true, hide_env_values = true)]
    database: Option<String>,
    /// Another store than the one in the folder: `file:///DIR`, or `s3://BUCKET/PREFIX` with the variables AWS_ACCESS_KEY_ID,
    /// AWS_SECRET_ACCESS_KEY, AWS_REGION and AWS_ENDPOINT_URL.
    #[arg(long, env = "FINELINE_STORE", global = true)]
    store: Option<String>,
}

impl DataArgs {
    /// Options with these places and all else as it is by default.
    pub(crate) fn options(&self) -> ServeOptions {
        options_of(&self.data, self.database.as_ref(), self.store.as_ref())
    }
}

/// Options with a data folder, and database and store elsewhere where they are given; a bucket by this process's variables.
pub(crate) fn options_of(data: &Path, database: Option<&String>, store: Option<&String>) -> ServeOptions {
    ServeOptions {
        database: database.cloned(),
        store: store.cloned(),
        store_options: StoreOptions {
            aws: AwsVariables::from_environment(),
            ..StoreOptions::default()
        },
        ..ServeOptions::local(data)
    }
}

/// Serves until ctrl-c or SIGTERM.
pub(crate) async fn run(args: ServeArgs) -> anyhow::Result<ExitCode> {
    if args.anonymous_read && !args.listen.ip().is_loopback() {
        say("warning: everybody who reaches this address can read every run (--anonymous-read)");
    }
    let places = args.data.options();
    let options = ServeOptions {
        store_options: StoreOptions {
            direct_off: args.store_direct == "off",
            public_url: args.store_public_url,
            ..places.store_options
        },
        listen: args.listen,
        admin_token_file: args.admin_token_file.clone(),
        public_url: args.public_url,
        trusted_proxies: args.trusted_proxies,
        anonymous_read: args.anonymous_read,
        grace: args.grace,
        lease: LeaseOptions {
            ttl_s: args.lease_ttl,
            back_off_s: args.retry_back_off,
        },
        reach: Reach {
            roots: args.source_roots,
            allowed: args.source_allowed,
        },
        ..places
    };
    let server = serve::start(options).await?;
    let child = EvaluatorChild::start(&server, &args.evaluator, None)?;
    print(&format!("listening on {}", server.url));
    let in_folder = || args.data.data.join("admin.token");
    say(&format!(
        "the administrator's token is in `{}`",
        args.admin_token_file.unwrap_or_else(in_folder).display()
    ));
    let until = async {
        stop_signal().await;
        // The child first: its open requests would hold up the end of the server.
        child.stop().await;
    };
    server.run_until(until).await?;
    Ok(ExitCode::SUCCESS)
}
