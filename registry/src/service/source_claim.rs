//! Claims of sources: a lease, so that any replica can go on where another stopped.
//!
//! **Invariant:** how far a source and its checkpoints are is written only under a live claim; a claim is one look's.

use std::time::Duration;

use sea_orm::DatabaseTransaction;
use uuid::Uuid;

use crate::app::App;
use crate::db;
use crate::db::source::SourceRow;
use crate::error::ApiResult;
use crate::service::ingest_error::IngestError;

/// How long a claim holds without being renewed: what a crash can delay a look by.
const LEASE_MS: i64 = 6_000;
const RENEW_EVERY: Duration = Duration::from_millis(1500);

/// A source that this look alone writes to, for as long as it is renewed.
pub(crate) struct Claim {
    pub(crate) app: App,
    pub(crate) source: SourceRow,
    id: Uuid,
}

impl Claim {
    /// The source that is due for longest, where one is.
    pub(crate) async fn next(app: &App) -> ApiResult<Option<Self>> {
        // Asked without writing first: this is asked every second.
        if !db::source::any_due(app.db.reader()).await? {
            return Ok(None);
        }
        let id = Uuid::now_v7();
        let txn = db::write_txn(&app.db).await?;
        let source = db::source::claim(&txn, id, LEASE_MS).await?;
        txn.commit().await?;
        let claim = |source| Self {
            app: app.clone(),
            source,
            id,
        };
        Ok(source.map(claim))
    }

    /// A writing transaction that the claim is alive in.
    ///
    /// # Errors
    /// [`IngestError::Lost`] when it is not, or any of the database.
    pub(crate) async fn txn(&self) -> Result<DatabaseTransaction, IngestError> {
        let txn = db::write_txn(&self.app.db).await?;
        match db::source::renew(&txn, self.source.id, self.id, LEASE_MS).await? {
            true => Ok(txn),
            false => Err(IngestError::Lost),
        }
    }

    /// Whether it is still alive, and for how long it is then.
    ///
    /// # Errors
    /// As [`Claim::txn`].
    pub(crate) async fn renew(&self) -> Result<(), IngestError> {
        Ok(self.txn().await?.commit().await?)
    }

    /// Renews the claim; returns when it is lost.
    pub(crate) async fn keep(&self) {
        loop {
            tokio::time::sleep(RENEW_EVERY).await;
            match self.renew().await {
                Err(IngestError::Lost) => return,
                Err(error) => tracing::warn!(source = self.source.id, %error, "a claim could not be renewed"),
                Ok(()) => {}
            }
        }
    }

    /// Ends it with what the look came to.
    pub(crate) async fn end(&self, error: Option<&str>, next_ms: Option<i64>) -> ApiResult<()> {
        let txn = db::write_txn(&self.app.db).await?;
        db::source::end(&txn, &self.source, self.id, error, next_ms).await?;
        db::source::free(&txn, self.source.id, self.id).await?;
        Ok(txn.commit().await?)
    }

    /// Ends it without a word: whoever is next looks at once.
    pub(crate) async fn free(&self) -> ApiResult<()> {
        let txn = db::write_txn(&self.app.db).await?;
        db::source::free(&txn, self.source.id, self.id).await?;
        Ok(txn.commit().await?)
    }
}
