//! `fineline login`.

use std::io::{self, BufRead as _, IsTerminal as _};

use anyhow::Context as _;
use clap::Args;
use fineline_client::{Client, Error};

use super::config::{self, Config};
use super::context::{Context, impatient};
use super::failure::UserError;
use super::{Ending, Outcome};

/// Takes `--url` and `--token`, or reads the token from a prompt or from stdin.
#[derive(Debug, Args)]
pub(crate) struct Login {}

pub(crate) async fn run(context: &Context, _command: Login) -> Outcome {
    let url = context.settings_for_login()?.url;
    let token = match context.given_token() {
        Some(token) => token.to_owned(),
        None => read_token(&url)?,
    };
    let client = Client::with_options(&url, Some(&token), impatient())?;
    match client.list_runs(None, None, Some(1)).await {
        // A worker's token reads no runs, and is a good one all the same.
        Ok(_) | Err(Error::Forbidden(_)) => {}
        Err(error) => return Err(error.into()),
    }
    let path = config::path()?;
    let token = Some(token);
    config::save(
        &path,
        &Config {
            url: client.url().to_owned(),
            token,
        },
    )?;
    context
        .printer
        .word(&format!("logged in to {}, kept in {}", client.url(), path.display()));
    Ok(Ending::Good)
}

fn read_token(url: &str) -> anyhow::Result<String> {
    let line = if io::stdin().is_terminal() {
        rpassword::prompt_password(format!("token for {url}: ")).context("can't read the token from the terminal")?
    } else {
        let mut line = String::new();
        io::stdin()
            .lock()
            .read_line(&mut line)
            .context("can't read the token from stdin")?;
        line
    };
    match line.trim() {
        "" => Err(UserError::new("no token was given", "give `--token`, or write it to stdin").into()),
        token => Ok(token.to_owned()),
    }
}
