//! What every handler and background task is given.

use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::{Mutex, Notify, Semaphore};

use crate::db::Db;
use crate::decoders::Decoders;
use crate::public_url::PublicUrl;
use crate::reached::TrustedProxy;
use crate::service::gauges::Gauges;
use crate::service::intake::Intake;
use crate::service::readiness::Probes;
use crate::service::token_use::TokenUses;
use crate::source::Reach;
use crate::store::Store;

/// Staged frames that are read and kept at the same time: what bounds the memory that they take.
const MAX_PARALLEL_STAGED: usize = 16;

/// Three days: a push session lasts two at the most.
pub(crate) const DEFAULT_GRACE: Duration = Duration::from_secs(3 * 24 * 60 * 60);

/// The registry's state; cheap to clone. Nothing in it outlives the process, so that replicas can stand beside it.
#[derive(Clone)]
pub(crate) struct App {
    pub(crate) db: Db,
    pub(crate) store: Store,
    pub(crate) options: Arc<Options>,
    /// Decode and hash what clients send and what is read back.
    pub(crate) decoders: Decoders,
    /// Rows of chunks that come in, on their way to the database.
    pub(crate) intake: Intake,
    /// Bounds the frames that are fetched from staging places.
    pub(crate) staged: Arc<Semaphore>,
    /// Wakes those who wait for a change of state (long polls); they look again at the database.
    pub(crate) changed: Arc<Notify>,
    /// Held by the one collection that runs.
    pub(crate) collecting: Arc<Mutex<()>>,
    /// Which tokens were used since that was written last.
    pub(crate) token_uses: Arc<TokenUses>,
    /// Whose turn it is to ask whether database and store are there.
    pub(crate) probes: Probes,
    /// When the database was last read for `/metrics`.
    pub(crate) gauges: Gauges,
    /// What `/metrics` shows.
    pub(crate) metrics: PrometheusHandle,
}

impl std::fmt::Debug for App {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("App")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// What the operator chose.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// Whether everybody may read every run.
    pub(crate) anonymous_read: bool,
    /// Where users reach the server, for absolute URLs; the request's own host when absent.
    pub(crate) public_url: Option<PublicUrl>,
    /// Whose forwarded headers are believed.
    pub(crate) trusted_proxies: Vec<TrustedProxy>,
    /// How long what nothing needs is kept; longer than any push session.
    pub(crate) grace: Duration,
    /// How long workers may be silent, and how long what failed waits.
    pub(crate) lease: LeaseOptions,
    /// What sources may reach.
    pub(crate) reach: Reach,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            anonymous_read: false,
            public_url: None,
            trusted_proxies: Vec::new(),
            grace: DEFAULT_GRACE,
            lease: LeaseOptions::default(),
            reach: Reach::default(),
        }
    }
}

/// How patient the registry is with workers.
#[derive(Debug, Clone, Copy)]
pub struct LeaseOptions {
    /// Seconds that a lease holds without a heartbeat; workers say one four times in it.
    pub ttl_s: u64,
    /// Seconds that an evaluation waits after its first failure; doubled after the second.
    pub back_off_s: u64,
}

impl Default for LeaseOptions {
    fn default() -> Self {
        Self {
            ttl_s: 60,
            back_off_s: 10,
        }
    }
}

impl App {
    pub(crate) fn new(db: Db, store: Store, options: Options, metrics: PrometheusHandle) -> Self {
        Self {
            db,
            store,
            options: Arc::new(options),
            decoders: Decoders::new(),
            intake: Intake::default(),
            staged: Arc::new(Semaphore::new(MAX_PARALLEL_STAGED)),
            changed: Arc::new(Notify::new()),
            collecting: Arc::default(),
            token_uses: Arc::default(),
            probes: Probes::default(),
            gauges: Gauges::default(),
            metrics,
        }
    }
}
