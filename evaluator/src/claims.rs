//! Asking a registry for work: when there is none at hand, and shortly before the work at hand is done.
//!
//! **Invariant:** a claim whose answer was lost or not waited for is sent again as the same one, since it may have got a lease.

use std::time::Duration;

use anyhow::Result;
use fineline_api::ClaimEvaluation;
use fineline_client::{Client, Error};
use fineline_format::suite::EvalDtype;
use uuid::Uuid;

use crate::config::ARCHITECTURE;
use crate::held_lease::{FAREWELL, HeldLease};
use crate::memory;
use crate::status::SharedStatus;
use crate::task::VERSION;
use crate::worker::WorkerOptions;

/// How long the server is asked to wait for work to appear.
const CLAIM_WAIT_S: u64 = 25;

/// How long a worker rests after the server could not be asked, or had nothing to do next.
const REST: Duration = Duration::from_secs(5);

/// How often a worker that is to end when there is no work asks a registry that does not answer.
const MAX_FAILED_CLAIMS: u32 = 5;

/// How often it is looked whether the next evaluation is to be claimed. What is done sooner needs no next.
const LOOK: Duration = Duration::from_secs(1);

/// How long before the end, at least, the next evaluation is claimed.
const LEAD: Duration = Duration::from_secs(5);

/// A worker's claims.
pub(crate) struct Claims<'a> {
    client: &'a Client,
    claim: ClaimEvaluation,
    is_once: bool,
    /// Whether the claim was sent and its answer was not heard.
    is_unheard: bool,
}

impl<'a> Claims<'a> {
    pub(crate) fn new(client: &'a Client, options: &WorkerOptions, name: &str) -> Self {
        let claim = ClaimEvaluation {
            worker: name.to_owned(),
            device: options.device.to_string(),
            memory_bytes: memory::total_bytes(),
            dtypes: [EvalDtype::Float32, EvalDtype::Bfloat16, EvalDtype::Float16]
                .map(|d| d.to_string())
                .to_vec(),
            architectures: vec![ARCHITECTURE.to_owned()],
            wait_s: 0,
            claim_id: Some(new_claim_id()),
            harness_version: Some(VERSION.to_owned()),
        };
        Self {
            client,
            claim,
            is_once: options.once,
            is_unheard: false,
        }
    }

    /// Asks until there is work; `None` when there is none and the worker is to end then.
    ///
    /// # Errors
    /// What asking again would get again.
    pub(crate) async fn wait(&mut self) -> Result<Option<HeldLease>> {
        let mut n_failed = 0;
        loop {
            match self.ask(if self.is_once { 0 } else { CLAIM_WAIT_S }, false).await {
                Ok(Some(held)) => return Ok(Some(held)),
                Ok(None) if self.is_once => return Ok(None),
                Ok(None) => {}
                Err(
                    error @ (Error::Unauthorized(_)
                    | Error::Forbidden(_)
                    | Error::NotFound(_)
                    | Error::Refused(_)
                    | Error::Protocol { .. }),
                ) => return Err(error.into()),
                Err(error) if self.is_once && n_failed == MAX_FAILED_CLAIMS => return Err(error.into()),
                Err(error) => {
                    n_failed += 1;
                    tracing::warn!(%error, "can't ask for work");
                    tokio::time::sleep(REST).await;
                }
            }
        }
    }

    /// Asks when the work at hand is almost done: in twice the time that its checkpoint took until it computed. Until then, and
    /// where nothing waits, this does not end.
    pub(crate) async fn ahead(&mut self, at_hand: &SharedStatus) -> HeldLease {
        loop {
            tokio::time::sleep(LOOK).await;
            let (preparation, ends_in) = {
                let status = at_hand.lock();
                (status.preparation, status.ends_in)
            };
            if !matches!((preparation, ends_in), (Some(took), Some(left)) if left <= 2 * took + LEAD) {
                continue;
            }
            match self.ask(0, true).await {
                Ok(Some(held)) => return held,
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, "can't ask for the next work"),
            }
            tokio::time::sleep(REST).await;
        }
    }

    /// Gives back what a claim got whose answer was not waited for, and gets nothing new: it is sent again as that of a worker that
    /// can do nothing.
    pub(crate) async fn give_back_unheard(&mut self) {
        if !self.is_unheard {
            return;
        }
        self.claim.dtypes.clear();
        let asked = tokio::time::timeout(FAREWELL, self.ask(0, true)).await;
        if let Ok(Ok(Some(held))) = asked {
            held.give_back().await;
        }
    }

    async fn ask(&mut self, wait_s: u64, ahead: bool) -> Result<Option<HeldLease>, Error> {
        self.claim.wait_s = wait_s;
        self.is_unheard = true;
        let lease = self.client.claim_evaluation(&self.claim).await?;
        self.is_unheard = false;
        self.claim.claim_id = Some(new_claim_id());
        let Some(lease) = lease else { return Ok(None) };
        fail_point!("worker.claimed");
        Ok(Some(HeldLease::keep(self.client, lease, ahead)?))
    }
}

/// Random throughout: a lease's token follows from it.
fn new_claim_id() -> Uuid {
    uuid::Builder::from_random_bytes(rand::random()).into_uuid()
}
