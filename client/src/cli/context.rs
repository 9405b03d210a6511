//! What every command starts from: how to print, and a client when it needs one.

use std::time::Duration;

use clap::Args;
use fineline_client::{Client, ClientOptions, Direct};

use super::Global;
use super::config::{self, Config, Settings};
use super::printer::Printer;

/// How long a command that someone waits for keeps trying.
const SHORT_PATIENCE: Duration = Duration::from_secs(4);

/// How a command moves bytes.
#[derive(Debug, Clone, Args)]
pub(crate) struct Transfer {
    /// `auto`: straight to and from the registry's bucket where it offers that and the bucket can be reached. `off`:
    /// through the registry.
    #[arg(long, value_name = "auto|off", env = "FINELINE_DIRECT", default_value = "auto")]
    direct: Direct,
}

/// What a command starts from.
pub(crate) struct Context {
    pub(crate) printer: Printer,
    global: Global,
}

impl Context {
    pub(super) fn new(global: Global, printer: Printer) -> Self {
        Self { printer, global }
    }

    /// URL and token.
    pub(crate) fn settings(&self) -> anyhow::Result<Settings> {
        self.settings_with(config::load(&config::path()?)?)
    }

    /// As [`Context::settings`], where a file that can't be read is about to be written anew.
    pub(crate) fn settings_for_login(&self) -> anyhow::Result<Settings> {
        self.settings_with(config::load(&config::path()?).unwrap_or_default())
    }

    fn settings_with(&self, kept: Option<Config>) -> anyhow::Result<Settings> {
        let (url, token) = (self.global.url.clone(), self.global.token.clone());
        Ok(config::resolve(url, token, kept)?)
    }

    /// What stands on the command line or in the environment as the token.
    pub(crate) fn given_token(&self) -> Option<&str> {
        self.global.token.as_deref().filter(|token| !token.is_empty())
    }

    /// A client for a question that is answered at once or not at all.
    pub(crate) fn client(&self) -> anyhow::Result<Client> {
        self.client_with(impatient())
    }

    /// A client for work that should survive a registry's restart.
    pub(crate) fn patient_client(&self) -> anyhow::Result<Client> {
        self.client_with(ClientOptions::default())
    }

    /// The same for a push or a pull.
    pub(crate) fn transfer_client(&self, transfer: &Transfer) -> anyhow::Result<Client> {
        self.client_with(ClientOptions {
            direct: transfer.direct,
            ..ClientOptions::default()
        })
    }

    fn client_with(&self, options: ClientOptions) -> anyhow::Result<Client> {
        let settings = self.settings()?;
        Ok(Client::with_options(&settings.url, settings.token.as_deref(), options)?)
    }
}

/// For a command that someone waits for.
pub(crate) fn impatient() -> ClientOptions {
    ClientOptions {
        retry_for: SHORT_PATIENCE,
        ..ClientOptions::default()
    }
}
