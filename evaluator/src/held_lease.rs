//! A lease that this worker holds: renewed beside whatever is done under it.
//!
//! **Invariant:** it is renewed until it is lost, let go or dropped, and never behind that.

use std::time::Duration;

use fineline_api::Lease;
use fineline_client::{Client, Error};
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::status::SharedStatus;

/// How long a worker at work says nothing, at most.
const LONGEST_SILENCE: Duration = Duration::from_secs(5);

/// How long a worker that ends tries to give a lease back.
pub(crate) const FAREWELL: Duration = Duration::from_secs(5);

/// Work, and a task that keeps the right to do it.
pub(crate) struct HeldLease {
    pub(crate) lease: Lease,
    /// Speaks under the lease.
    pub(crate) client: Client,
    /// Each renewal says its progress.
    pub(crate) status: SharedStatus,
    renewing: JoinHandle<Error>,
}

impl HeldLease {
    /// Renews the lease from now on. It is held `ahead` until work under it begins.
    ///
    /// # Errors
    /// When its token can't stand in a header.
    pub(crate) fn keep(client: &Client, lease: Lease, ahead: bool) -> Result<Self, Error> {
        let client = client.with_lease(&lease.token)?;
        let status = SharedStatus::default();
        status.lock().progress.ahead = ahead;
        let every = (Duration::from_secs(lease.ttl_s.max(1)) / 4).min(LONGEST_SILENCE);
        let renewing = renew(client.clone(), lease.evaluation.id, every, status.clone());
        Ok(Self {
            renewing: tokio::spawn(renewing),
            lease,
            client,
            status,
        })
    }

    pub(crate) fn id(&self) -> Uuid {
        self.lease.evaluation.id
    }

    /// Work under it begins.
    pub(crate) fn begin(&self) {
        self.status.lock().progress.ahead = false;
    }

    /// Waits until it is lost, and gives what the server said. Not to be asked again then.
    pub(crate) async fn lost(&mut self) -> Error {
        match (&mut self.renewing).await {
            Ok(error) => error,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }

    /// Says in the log that it is lost.
    pub(crate) fn tell_lost(&self, reason: &dyn std::fmt::Display) {
        tracing::warn!(evaluation = %self.id(), %reason, "the lease is lost, the work is dropped");
    }

    /// Renews no more: a renewal that waits would hear of the work's end as of a loss.
    pub(crate) fn let_go(&self) {
        self.renewing.abort();
    }

    /// Gives it back, so that another worker goes on at once. Where the server does not hear of it in time it runs out.
    pub(crate) async fn give_back(self) {
        self.let_go();
        let id = self.id();
        let released = tokio::time::timeout(FAREWELL, self.client.release_evaluation(id)).await;
        match released {
            Ok(Ok(_)) => tracing::info!(evaluation = %id, "given back, since the worker ends"),
            Ok(Err(error @ Error::LeaseLost(_))) => self.tell_lost(&error),
            Ok(Err(error)) => tracing::warn!(evaluation = %id, %error, "can't be given back, and waits for its lease"),
            Err(_) => tracing::warn!(evaluation = %id, "can't be given back in time, and waits for its lease"),
        }
    }
}

impl Drop for HeldLease {
    fn drop(&mut self) {
        self.let_go();
    }
}

/// Renews the lease until it is lost. The answer waits until the next is due, so that a loss is heard of at once.
async fn renew(client: Client, id: Uuid, every: Duration, status: SharedStatus) -> Error {
    let mut due = tokio::time::Instant::now();
    loop {
        tokio::time::sleep_until(due).await;
        due = tokio::time::Instant::now() + every;
        let said = status.lock().progress.clone();
        fail_point!("worker.renewing");
        // One that stalls must not keep the next from being said in time.
        let renewed = client.heartbeat_evaluation(id, &said, every.as_secs());
        let Ok(renewed) = tokio::time::timeout(2 * every, renewed).await else {
            tracing::warn!("a heartbeat was not answered in time");
            continue;
        };
        match renewed {
            Err(error @ (Error::LeaseLost(_) | Error::NotFound(_) | Error::Unauthorized(_) | Error::Forbidden(_))) => {
                return error;
            }
            Err(error) => tracing::warn!(%error, "the lease could not be renewed"),
            Ok(_) => {
                fail_point!("worker.renewed");
            }
        }
    }
}
