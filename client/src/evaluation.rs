//! Evaluations: what users ask and do, and what workers do under a lease.
//!
//! A worker's calls after the claim need the client that [`Client::with_lease`] gives.

use bytes::Bytes;
use fineline_api::{
    ClaimEvaluation, CompleteEvaluation, Evaluation, EvaluationState, FailEvaluation, Lease, Page, Progress, Reference,
    RenewedLease, RunName, TaskScore, path,
};
use uuid::Uuid;

use crate::call::Call;
use crate::error::{Error, Result};
use crate::http::Client;

/// The media type of a sample log: JSON Lines.
const SAMPLES_MEDIA_TYPE: &str = "application/jsonl";

/// Which evaluations are listed.
#[derive(Debug, Clone, Default)]
pub struct EvaluationQuery {
    /// Of this run.
    pub run: Option<RunName>,
    /// Of this checkpoint of the run.
    pub reference: Option<Reference>,
    /// In this state.
    pub state: Option<EvaluationState>,
}

impl Client {
    /// One page of evaluations, newest first.
    ///
    /// # Errors
    /// As every call.
    pub async fn list_evaluations(
        &self,
        query: &EvaluationQuery,
        cursor: Option<&str>,
        limit: Option<u64>,
    ) -> Result<Page<Evaluation>> {
        let call = Call::get(format!("{}/evaluations", path::API))
            .query("run", query.run.as_ref())
            .query("ref", query.reference.as_ref())
            .query("state", query.state)
            .query("cursor", cursor)
            .query("limit", limit);
        self.json(call).await
    }

    /// An evaluation.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is none that the token may know of.
    pub async fn get_evaluation(&self, id: Uuid) -> Result<Evaluation> {
        self.json(Call::get(evaluation_path(id, ""))).await
    }

    /// Queues an evaluation that failed, was parked or cancelled again.
    ///
    /// # Errors
    /// [`Error::Conflict`] when it is in another state.
    pub async fn retry_evaluation(&self, id: Uuid) -> Result<Evaluation> {
        self.json(Call::post(evaluation_path(id, "/retry"))).await
    }

    /// Takes an evaluation back.
    ///
    /// # Errors
    /// [`Error::Conflict`] when it has ended.
    pub async fn cancel_evaluation(&self, id: Uuid) -> Result<Evaluation> {
        self.json(Call::post(evaluation_path(id, "/cancel"))).await
    }

    /// Asks for work; `None` when there is none within `claim.wait_s`.
    ///
    /// # Errors
    /// As every call.
    pub async fn claim_evaluation(&self, claim: &ClaimEvaluation) -> Result<Option<Lease>> {
        let claim_path = format!("{}/evaluations/claim", path::API);
        let call = match claim.claim_id {
            Some(_) => Call::post_repeatable(claim_path),
            None => Call::post(claim_path),
        };
        let answer = self.send(&call.json(claim).patient(claim.wait_s)).await?;
        if answer.body.is_empty() {
            return Ok(None);
        }
        serde_json::from_slice(&answer.body)
            .map(Some)
            .map_err(|error| Error::Protocol {
                url: answer.url,
                reason: error.to_string(),
            })
    }

    /// A file of the tokenizer that a lease lends.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is none, or the lease is over.
    pub async fn get_tokenizer_file(&self, id: Uuid, file: &str) -> Result<Bytes> {
        let call = Call::get(evaluation_path(id, &format!("/tokenizer/{}", path::segment(file))));
        Ok(self.send(&call).await?.body)
    }

    /// Renews the lease, says how far the work is, and waits for the lease to end otherwise, at most `wait_s` seconds.
    ///
    /// # Errors
    /// [`Error::LeaseLost`] when the work is cancelled or belongs to someone else: drop it.
    pub async fn heartbeat_evaluation(&self, id: Uuid, progress: &Progress, wait_s: u64) -> Result<RenewedLease> {
        let call = Call::post_repeatable(evaluation_path(id, "/heartbeat")).wait_s(wait_s);
        self.json(call.json(progress)).await
    }

    /// Posts a task's scores in place of those posted before.
    ///
    /// # Errors
    /// [`Error::LeaseLost`] when the work belongs to someone else.
    pub async fn post_task_scores(&self, id: Uuid, task: &str, scores: &[TaskScore]) -> Result<()> {
        self.done(Call::post_repeatable(task_path(id, task, "scores")).json(&scores))
            .await
    }

    /// Stores a task's sample log (JSON Lines) in place of the one stored before.
    ///
    /// # Errors
    /// [`Error::LeaseLost`] when the work belongs to someone else.
    pub async fn put_samples(&self, id: Uuid, task: &str, samples: Bytes) -> Result<()> {
        self.done(Call::put(task_path(id, task, "samples")).bytes(SAMPLES_MEDIA_TYPE, samples))
            .await
    }

    /// A task's sample log (JSON Lines).
    ///
    /// # Errors
    /// [`Error::NotFound`] when it has none.
    pub async fn get_samples(&self, id: Uuid, task: &str) -> Result<Bytes> {
        Ok(self.send(&Call::get(task_path(id, task, "samples"))).await?.body)
    }

    /// Ends an evaluation; the same lease with the same result again is a success.
    ///
    /// # Errors
    /// [`Error::LeaseLost`] when the work belongs to someone else.
    pub async fn complete_evaluation(&self, id: Uuid, complete: &CompleteEvaluation) -> Result<Evaluation> {
        self.json(Call::post_repeatable(evaluation_path(id, "/complete")).json(complete))
            .await
    }

    /// Ends a try before all scores are there; the same lease again is a success.
    ///
    /// # Errors
    /// [`Error::LeaseLost`] when the work belongs to someone else.
    pub async fn fail_evaluation(&self, id: Uuid, fail: &FailEvaluation) -> Result<Evaluation> {
        self.json(Call::post_repeatable(evaluation_path(id, "/fail")).json(fail))
            .await
    }

    /// Gives the lease back, which counts as no failure: the evaluation waits for the next worker. The same lease again is a success.
    ///
    /// # Errors
    /// [`Error::LeaseLost`] when the work belongs to someone else.
    pub async fn release_evaluation(&self, id: Uuid) -> Result<Evaluation> {
        self.json(Call::post_repeatable(evaluation_path(id, "/release"))).await
    }
}

fn evaluation_path(id: Uuid, rest: &str) -> String {
    format!("{}/evaluations/{id}{rest}", path::API)
}

fn task_path(id: Uuid, task: &str, what: &str) -> String {
    evaluation_path(id, &format!("/tasks/{}/{what}", path::segment(task)))
}
