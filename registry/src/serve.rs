//! Starting and stopping a server: what `serve` and `demo` do, and what tests start without a process of its own.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use fineline_api::error::ErrorCode;
use fineline_api::{CreateToken, RunPattern, Scope};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

pub use crate::app::LeaseOptions;
use crate::app::{App, DEFAULT_GRACE, Options};
use crate::commands::failure::UserError;
use crate::db::departure::Departure;
use crate::db::{self, Db};
pub use crate::public_url::PublicUrl;
pub use crate::reached::TrustedProxy;
use crate::router;
use crate::service::keep::relocate::Place;
use crate::service::{self, sweep, sync, token_use, verify};
pub use crate::source::{AllowedHost, Reach};
use crate::store::Store;
pub use crate::store::{AwsVariables, StoreOptions};
use crate::telemetry;

/// What a server is started with.
#[derive(Debug, Clone)]
pub struct ServeOptions {
    /// Address to listen on; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Folder of the embedded database and store, and of the first token.
    pub data: PathBuf,
    /// Another database than the one in the folder.
    pub database: Option<String>,
    /// Another store than the one in the folder.
    pub store: Option<String>,
    /// A file with the secret of the administrator's token; the one in the folder when absent.
    pub admin_token_file: Option<PathBuf>,
    /// How a bucket is reached, where the store is one.
    pub store_options: StoreOptions,
    /// Where users reach the server.
    pub public_url: Option<PublicUrl>,
    /// Whose forwarded headers are believed.
    pub trusted_proxies: Vec<TrustedProxy>,
    /// Whether everybody may read every run.
    pub anonymous_read: bool,
    /// How long what nothing needs is kept before it is deleted; a push session lasts two thirds of it at the most.
    pub grace: Duration,
    /// How patient it is with workers.
    pub lease: LeaseOptions,
    /// What sources may reach.
    pub reach: Reach,
}

impl ServeOptions {
    /// A server on a free port of the loopback address.
    pub fn local(data: &Path) -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            data: data.to_owned(),
            database: None,
            store: None,
            admin_token_file: None,
            store_options: StoreOptions::default(),
            public_url: None,
            trusted_proxies: Vec::new(),
            anonymous_read: false,
            grace: DEFAULT_GRACE,
            lease: LeaseOptions::default(),
            reach: Reach::default(),
        }
    }
}

/// A server that runs until it is stopped or dropped.
#[derive(Debug)]
pub struct RunningServer {
    /// Where it listens: `http://ADDRESS`.
    pub url: String,
    /// The administrator's token.
    pub admin_token: String,
    pub(crate) app: App,
    stop: watch::Sender<bool>,
    tasks: JoinSet<io::Result<()>>,
}

/// Starts a server: opens database and store, runs the migrations, makes the first token, listens, and begins the
/// background work.
///
/// # Errors
/// What can't be opened, by name.
pub async fn start(options: ServeOptions) -> anyhow::Result<RunningServer> {
    let app = open(&options).await?;
    app.store.try_out().await.map_err(|error| unusable(&error))?;
    let admin_token = match &options.admin_token_file {
        Some(path) => given_admin_token(&app.db, path).await?,
        None => first_admin_token(&app.db, &options.data).await?,
    };
    let listener = TcpListener::bind(options.listen)
        .await
        .with_context(|| format!("can't listen on `{}`", options.listen))?;
    let url = format!("http://{}", listener.local_addr()?);
    let (stop, mut stopped) = watch::channel(false);
    let mut tasks = JoinSet::new();
    let router = router::router(app.clone()).into_make_service_with_connect_info::<SocketAddr>();
    tasks.spawn(async move {
        let stopped = async move { drop(stopped.wait_for(|stop| *stop).await) };
        axum::serve(listener, router).with_graceful_shutdown(stopped).await
    });
    let (verifying, sweeping) = (verify::run_forever(app.clone()), sweep::run_forever(app.clone()));
    let syncing = sync::run_forever(app.clone());
    let writing_uses = token_use::run_forever(app.clone());
    let folding_in = db::sqlite::fold_in_forever(app.db.clone());
    let measuring = telemetry::keep_up(app.metrics.clone());
    let mut stopped = stop.subscribe();
    tasks.spawn(async move {
        tokio::select! {
            () = verifying => {}
            () = sweeping => {}
            () = syncing => {}
            () = writing_uses => {}
            () = folding_in => {}
            () = measuring => {}
            _ = stopped.wait_for(|stop| *stop) => {}
        }
        Ok(())
    });
    Ok(RunningServer {
        url,
        admin_token,
        app,
        stop,
        tasks,
    })
}

impl RunningServer {
    /// Runs until `until` resolves or the server fails, then lets the requests at hand end.
    ///
    /// # Errors
    /// Why the server failed.
    pub async fn run_until(mut self, until: impl Future<Output = ()>) -> anyhow::Result<()> {
        let ended = tokio::select! {
            () = until => None,
            ended = self.tasks.join_next() => ended,
        };
        self.stop().await;
        match ended {
            None => Ok(()),
            Some(ended) => Ok(ended??),
        }
    }

    /// Stops the server: takes no more requests and waits a while for those at hand.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        let rest = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(Duration::from_secs(10), rest).await.is_err() {
            tracing::warn!("requests that did not end within 10 s are cut off");
        }
        let write_uses = token_use::write(&self.app);
        if tokio::time::timeout(Duration::from_secs(5), write_uses).await.is_err() {
            tracing::warn!("the last use of tokens is not written: the database does not answer");
        }
    }
}

/// Opens database and store as the options say.
///
/// # Errors
/// What can't be opened, by name; where the registry went, when it moved.
pub(crate) async fn open(options: &ServeOptions) -> anyhow::Result<App> {
    let Place { db, store, .. } = open_place(options).await?;
    if let Some(departure) = db::departure::find(db.reader()).await? {
        let Departure {
            database, store, ended, ..
        } = departure;
        return Err(if ended {
            UserError::new(
                format!("this registry moved to database `{database}` and store `{store}`"),
                "give these with --database and --store; the old database takes no writes any more",
            )
        } else {
            UserError::new(
                format!("this registry is on its way to database `{database}` and store `{store}`"),
                "give the same `move` again to end it, or `move --abort` to serve the registry from here",
            )
        }
        .into());
    }
    let chosen = Options {
        anonymous_read: options.anonymous_read,
        public_url: options.public_url.clone(),
        grace: options.grace,
        trusted_proxies: options.trusted_proxies.clone(),
        lease: options.lease,
        reach: options.reach.clone(),
    };
    Ok(App::new(db, store, chosen, metrics_handle()))
}

/// The same with what it is called, and wherever the registry went.
pub(crate) async fn open_place(options: &ServeOptions) -> anyhow::Result<Place> {
    let (database_url, store_url) = urls(options)?;
    let shown = without_secret(&database_url);
    let db = Db::open(&database_url).await;
    Ok(Place {
        db: db.with_context(|| format!("database `{shown}`"))?,
        store: open_store(&store_url, options)?,
        database_url: shown,
        store_url: without_secret(&store_url),
    })
}

/// Demands that there is a registry in the data folder, where that is where its database is: what is kept or moved is not
/// made by asking for it.
pub(crate) fn require_registry(options: &ServeOptions) -> anyhow::Result<()> {
    let database = options.data.join("fineline.db");
    if options.database.is_some() || database.exists() {
        return Ok(());
    }
    let message = format!("there is no registry here: `{}` is missing", database.display());
    Err(UserError::new(message, "name its folder with --data, or its database").into())
}

/// The same, and leaves the database's schema as it is.
pub(crate) async fn connect(options: &ServeOptions) -> anyhow::Result<(Db, Store)> {
    let (database_url, store_url) = urls(options)?;
    let db = Db::connect(&database_url).await;
    let db = db.with_context(|| format!("database `{}`", without_secret(&database_url)))?;
    Ok((db, open_store(&store_url, options)?))
}

/// The URLs of database and store; makes the data folder.
fn urls(options: &ServeOptions) -> anyhow::Result<(String, String)> {
    let data = &options.data;
    std::fs::create_dir_all(data).with_context(|| format!("folder `{}` can't be made", data.display()))?;
    let data = data
        .canonicalize()
        .with_context(|| format!("folder `{}`", data.display()))?;
    let database = match &options.database {
        None => format!("sqlite://{}", data.join("fineline.db").display()),
        Some(url)
            if ["sqlite:", "postgres:", "postgresql:"]
                .iter()
                .any(|scheme| url.starts_with(scheme)) =>
        {
            url.clone()
        }
        Some(url) => {
            let hint = "use `sqlite://PATH` or `postgres://USER:PASSWORD@HOST/DATABASE`";
            return Err(unsupported("database", url, hint));
        }
    };
    let store = match &options.store {
        None => format!("file://{}", data.join("store").display()),
        Some(url) if url.starts_with("file://") || url.starts_with("s3://") => url.clone(),
        Some(url) => return Err(unsupported("store", url, "use `file:///DIR` or `s3://BUCKET/PREFIX`")),
    };
    Ok((database, store))
}

/// Opens the store at `url`; a bucket as the options say.
pub(crate) fn open_store(url: &str, options: &ServeOptions) -> anyhow::Result<Store> {
    let is_bucket = url.starts_with("s3://");
    if !is_bucket && options.store_options.public_url.is_some() {
        let hint = "leave it out, or give a bucket with `--store s3://BUCKET/PREFIX`";
        return Err(UserError::new("`--store-public-url` is for a bucket, and the store is a folder", hint).into());
    }
    Store::open(url, &options.store_options).map_err(|error| {
        if is_bucket {
            unusable(&error)
        } else {
            anyhow::Error::msg(error)
        }
    })
}

/// A store that does not do what a store must.
fn unusable(error: &str) -> anyhow::Error {
    let hint = "check the bucket's name and its rights to read, write and delete, and the variables AWS_ENDPOINT_URL, \
        AWS_REGION, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY";
    UserError::new(format!("the store can't be used: {error}"), hint).into()
}

/// Says so by the URL's scheme alone: the rest may be a secret.
fn unsupported(what: &str, url: &str, hint: &str) -> anyhow::Error {
    let scheme = url.split_once(':').map_or(url, |(scheme, _)| scheme);
    UserError::new(format!("{what} `{scheme}` is not supported by this build"), hint).into()
}

/// A database's URL as it may be shown: without user, password and options.
fn without_secret(url: &str) -> String {
    // A password may have any of these signs; what is behind the last `@` has no secret but in its options.
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, place))) => {
            format!("{scheme}://{}", place.split_once('?').map_or(place, |(place, _)| place))
        }
        (Some((scheme, _)), None) if url.contains('?') => format!("{scheme}://…"),
        _ => url.to_owned(),
    }
}

/// The process's metrics; servers in one process share them.
fn metrics_handle() -> PrometheusHandle {
    static HANDLE: std::sync::OnceLock<PrometheusHandle> = std::sync::OnceLock::new();
    let install = || {
        let recorder = telemetry::recorder();
        let handle = recorder.handle();
        // Another recorder can only be there when a host program set its own, which then counts.
        let _ = metrics::set_global_recorder(recorder);
        handle
    };
    HANDLE.get_or_init(install).clone()
}

/// The administrator's token whose secret the operator gives, the same to every replica.
async fn given_admin_token(db: &Db, path: &Path) -> anyhow::Result<String> {
    let secret = read_secret(path)?;
    let new = administrator("administrator by file");
    match service::token::ensure(db, &secret, new).await {
        // One that leaked and was revoked stays so, and the server runs on without it.
        Err(error) if error.code() == ErrorCode::Conflict => {
            tracing::warn!(path = %path.display(), %error, "the given administrator's token does not work");
        }
        ensured => drop(ensured.with_context(|| format!("file `{}`", path.display()))?),
    }
    Ok(secret)
}

/// The secret in a file, without the line's end.
pub(crate) fn read_secret(path: &Path) -> anyhow::Result<String> {
    let secret = std::fs::read_to_string(path).with_context(|| format!("file `{}`", path.display()))?;
    Ok(secret.trim().to_owned())
}

fn administrator(name: &str) -> CreateToken {
    CreateToken {
        name: name.to_owned(),
        scopes: vec![Scope::Admin],
        pattern: RunPattern::All,
        expires_in_s: None,
    }
}

/// The administrator's token: made at the first start, then read from its file.
async fn first_admin_token(db: &Db, data: &Path) -> anyhow::Result<String> {
    let path = data.join("admin.token");
    match std::fs::read_to_string(&path) {
        Ok(token) => return Ok(token.trim().to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("file `{}`", path.display())),
    }
    let created = service::token::create(db, administrator("first administrator")).await?;
    write_private(&path, &created.secret).with_context(|| format!("file `{}`", path.display()))?;
    Ok(created.secret)
}

/// Writes a file that only its owner reads, whole or not at all.
fn write_private(path: &Path, text: &str) -> io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let partial = path.with_extension("partial");
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&partial)?;
    writeln!(file, "{text}")?;
    file.sync_all()?;
    std::fs::rename(partial, path)
}
