//! `fineline token create | list | revoke`, for administrators.

use clap::{Args, Subcommand};
use fineline_api::{CreateToken, CreatedToken, RunPattern, Scope, Token as TokenRow};
use serde_json::json;
use uuid::Uuid;

use super::context::Context;
use super::table::{Table, list, or_none, time};
use super::{Ending, Outcome};

/// What is done with tokens.
#[derive(Debug, Subcommand)]
pub(crate) enum Token {
    /// Make a token; its secret is printed this once.
    Create(Create),
    /// List all tokens, without their secrets.
    List,
    /// Revoke a token.
    Revoke {
        /// The token's id.
        id: Uuid,
    },
}

/// What a new token may do.
#[derive(Debug, Args)]
pub(crate) struct Create {
    /// What it is called in lists.
    name: String,
    /// What it may do: read, write, evaluate or admin; can be given several times.
    #[arg(long = "scope", value_name = "SCOPE", required = true)]
    scopes: Vec<Scope>,
    /// The runs it is for: `*`, `NAMESPACE/*`, `NAMESPACE/PREFIX*` or `NAMESPACE/NAME`.
    #[arg(long = "run", value_name = "PATTERN", default_value = "*")]
    pattern: RunPattern,
    /// Days until it expires; without it, never.
    #[arg(long, value_name = "DAYS")]
    expires_in_days: Option<u32>,
}

pub(crate) async fn run(context: &Context, command: Token) -> Outcome {
    let (client, printer) = (context.client()?, context.printer);
    match command {
        Token::Create(create) => {
            let token = CreateToken {
                name: create.name,
                scopes: create.scopes,
                pattern: create.pattern,
                expires_in_s: create.expires_in_days.map(|days| u64::from(days) * 86_400),
            };
            printer.data(&client.create_token(&token).await?, created)?;
        }
        Token::List => printer.data(&client.list_tokens().await?, |tokens| table(tokens))?,
        Token::Revoke { id } => {
            client.delete_token(id).await?;
            printer.data(&json!({ "revoked": id }), |_| format!("token {id} is revoked"))?;
        }
    }
    Ok(Ending::Good)
}

/// The secret alone, so that it can be piped.
fn created(created: &CreatedToken) -> String {
    created.secret.clone()
}

fn table(tokens: &[TokenRow]) -> String {
    let mut table = Table::new([
        "NAME",
        "SCOPES",
        "RUNS",
        "ID",
        "CREATED",
        "LAST USED",
        "EXPIRES",
        "REVOKED",
    ]);
    for token in tokens {
        table.row([
            token.name.clone(),
            list(&token.scopes),
            token.pattern.to_string(),
            token.id.to_string(),
            time(token.created_at),
            or_none(token.last_used_at.map(time)),
            or_none(token.expires_at.map(time)),
            or_none(token.revoked_at.map(time)),
        ]);
    }
    table.render("no tokens")
}
