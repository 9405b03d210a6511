//! A hold that lasts as long as its owner: renewed beside the work, given back at its end, run out when the process is gone.

use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::{KeepError, KeepResult};
use crate::db::{self, Db};

/// How long a hold lasts without being renewed: collection waits so long for a process that is gone.
const LASTS_MS: i64 = 60_000;
const RENEW_EVERY: Duration = Duration::from_secs(10);

/// While it is there, no frame is deleted.
pub(super) struct Hold {
    db: Db,
    id: Uuid,
    stop: watch::Sender<()>,
    renewing: JoinHandle<()>,
}

impl Hold {
    /// Begins a hold.
    ///
    /// # Errors
    /// [`KeepError::Refused`] while another lasts.
    pub(super) async fn begin(db: &Db, purpose: &str) -> KeepResult<Self> {
        let id = Uuid::now_v7();
        let txn = db::write_txn(db).await?;
        if let Some(other) = db::hold::begin(&txn, id, purpose, LASTS_MS).await? {
            return Err(KeepError::refused(
                format!("a {other} of this registry is under way"),
                "wait for its end; one that was killed is forgotten after a minute",
            ));
        }
        txn.commit().await?;
        let (stop, mut stopped) = watch::channel(());
        let renewed = db.clone();
        let renewing = tokio::spawn(async move {
            loop {
                tokio::select! {
                    // Its owner ended, one way or the other.
                    _ = stopped.changed() => return,
                    () = tokio::time::sleep(RENEW_EVERY) => {}
                }
                match renew(&renewed, id).await {
                    Ok(true) => {}
                    Ok(false) => return,
                    Err(error) => tracing::warn!(%error, "a hold could not be renewed"),
                }
            }
        });
        Ok(Self {
            db: db.clone(),
            id,
            stop,
            renewing,
        })
    }

    /// Makes sure that it lasted until now, and lasts on.
    ///
    /// # Errors
    /// [`KeepError::Refused`] when it ran out: what was named may have been deleted.
    pub(super) async fn check(&self) -> KeepResult<()> {
        if renew(&self.db, self.id).await? {
            return Ok(());
        }
        Err(KeepError::refused(
            "this process stood still for a minute, and what it copied may have been collected meanwhile",
            "begin again: what was copied is not copied twice",
        ))
    }

    /// Gives it back.
    pub(super) async fn end(self) {
        drop(self.stop);
        // It ends by itself once nobody can stop it.
        let _ = self.renewing.await;
        let ended = async {
            let txn = db::unasked_txn(&self.db).await?;
            db::hold::end(&txn, self.id).await?;
            txn.commit().await
        };
        if let Err(error) = ended.await {
            tracing::warn!(%error, "a hold could not be given back: it runs out within a minute");
        }
    }
}

async fn renew(db: &Db, id: Uuid) -> Result<bool, sea_orm::DbErr> {
    let txn = db::unasked_txn(db).await?;
    let lasts = db::hold::renew(&txn, id, LASTS_MS).await?;
    txn.commit().await?;
    Ok(lasts)
}
