//! When tokens were used last. A use is noted in memory and written with all others once a minute, so that no request
//! waits for it or fails by it; a process that is killed forgets the last minute.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use crate::app::App;
use crate::db;
use crate::error::ApiResult;

const EVERY: Duration = Duration::from_secs(60);

/// The uses that are not written yet: of each token the last. There are as many as there are live tokens at most.
#[derive(Debug, Default)]
pub(crate) struct TokenUses(Mutex<BTreeMap<Uuid, Instant>>);

impl TokenUses {
    /// Notes that a token was used now.
    pub(crate) fn note(&self, token_id: Uuid) {
        self.lock().insert(token_id, Instant::now());
    }

    fn take(&self) -> BTreeMap<Uuid, Instant> {
        std::mem::take(&mut self.lock())
    }

    /// Takes back what could not be written, but for what was noted anew.
    fn put_back(&self, uses: BTreeMap<Uuid, Instant>) {
        let mut noted = self.lock();
        for (id, at) in uses {
            noted.entry(id).or_insert(at);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Uuid, Instant>> {
        // A map that was left in the middle of an insert is a map all the same.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes what was noted, until the task is dropped.
pub(crate) async fn run_forever(app: App) {
    loop {
        tokio::time::sleep(EVERY).await;
        write(&app).await;
    }
}

/// Writes what was noted. What can't be written is kept for the next time, and the log says why.
pub(crate) async fn write(app: &App) {
    let uses = app.token_uses.take();
    if uses.is_empty() {
        return;
    }
    if let Err(error) = write_all(app, &uses).await {
        tracing::warn!(%error, "the last use of tokens is written later");
        app.token_uses.put_back(uses);
    }
}

async fn write_all(app: &App, uses: &BTreeMap<Uuid, Instant>) -> ApiResult<()> {
    let txn = db::write_txn(&app.db).await?;
    let now = db::now_ms(&txn).await?;
    // In the order of their ids, so that two replicas never wait for each other.
    for (id, at) in uses {
        let ago_ms = i64::try_from(at.elapsed().as_millis()).unwrap_or(i64::MAX);
        db::token::set_last_used(&txn, *id, now.saturating_sub(ago_ms)).await?;
    }
    Ok(txn.commit().await?)
}
