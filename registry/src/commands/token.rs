//! `token create`, `token list`, `token revoke`: on the data folder itself, for who runs the server.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use fineline_api::{CreateToken, RunPattern, Scope};
use uuid::Uuid;

use crate::commands::print;
use crate::commands::serve::DataArgs;
use crate::serve;
use crate::service;

/// What `token` is told.
#[derive(Debug, Args)]
pub(crate) struct TokenArgs {
    #[command(subcommand)]
    command: TokenCommand,
    #[command(flatten)]
    data: DataArgs,
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Makes a token and prints its secret, once.
    Create {
        /// What it is called in lists.
        #[arg(long)]
        name: String,
        /// What it may do: `read`, `write`, `evaluate` or `admin`; may be given several times.
        #[arg(long = "scope", required = true)]
        scopes: Vec<Scope>,
        /// The runs that it is for: `*`, `NAMESPACE/*`, `NAMESPACE/PREFIX*` or `NAMESPACE/NAME`.
        #[arg(long, default_value = "*")]
        runs: RunPattern,
        /// A file with a secret that you chose: then the token's id is printed, and the same command again changes nothing.
        #[arg(long)]
        secret_file: Option<PathBuf>,
        /// Days until it expires; never when absent.
        #[arg(long)]
        expires_in_days: Option<u64>,
    },
    /// Lists all tokens without their secrets.
    List {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Revokes a token by its id.
    Revoke {
        /// Its id, as `token list` prints it.
        id: Uuid,
    },
}

/// Carries out the command.
pub(crate) async fn run(args: TokenArgs) -> anyhow::Result<ExitCode> {
    let app = serve::open(&args.data.options()).await?;
    let db = &app.db;
    match args.command {
        TokenCommand::Create {
            name,
            scopes,
            runs,
            secret_file,
            expires_in_days,
        } => {
            let expires_in_s = expires_in_days.map(|days| days.saturating_mul(24 * 60 * 60));
            let new = CreateToken {
                name,
                scopes,
                pattern: runs,
                expires_in_s,
            };
            match secret_file {
                Some(path) => print(
                    &service::token::ensure(db, &serve::read_secret(&path)?, new)
                        .await?
                        .id
                        .to_string(),
                ),
                None => print(&service::token::create(db, new).await?.secret),
            }
        }
        TokenCommand::List { json } => {
            let tokens = service::token::list(&app, &RunPattern::All).await?;
            if json {
                print(&serde_json::to_string_pretty(&tokens)?);
            } else {
                for token in tokens {
                    let scopes: Vec<_> = token.scopes.iter().map(|scope| scope.as_str()).collect();
                    let state = if token.revoked_at.is_some() { "revoked" } else { "" };
                    let used = token
                        .last_used_at
                        .map(|at| at.format("used %Y-%m-%d %H:%M").to_string());
                    let used = used.unwrap_or_else(|| "never used".to_owned());
                    let (id, pattern, name) = (token.id, token.pattern.to_string(), token.name);
                    print(&format!(
                        "{id}  {:20} {pattern:24} {used:21}  {name}  {state}",
                        scopes.join(",")
                    ));
                }
            }
        }
        TokenCommand::Revoke { id } => service::token::revoke(db, &RunPattern::All, id).await?,
    }
    Ok(ExitCode::SUCCESS)
}
