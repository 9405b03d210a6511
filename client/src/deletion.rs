//! Taking checkpoints and runs away, and which steps a run keeps.

use fineline_api::{CollectGarbage, Deletion, GarbageReport, Reference, Retention, RunName, path};

use crate::call::Call;
use crate::error::Result;
use crate::http::Client;

/// A collection of a large store, or counting what a deletion frees, may take its time before it answers.
const PATIENCE_S: u64 = 60 * 60;

/// What a deletion may do.
#[derive(Debug, Clone, Copy, Default)]
pub struct DeleteOptions {
    /// Tagged and released steps too, their tags and releases with them.
    pub force: bool,
    /// Scores too; else they stay.
    pub scores: bool,
    /// Only says what would go.
    pub dry_run: bool,
}

impl Client {
    /// Takes a step away with all its revisions; by digest that revision alone. Its bytes go with a collection after the
    /// registry's grace.
    ///
    /// # Errors
    /// [`crate::Error::NotFound`] for the reference, [`crate::Error::Conflict`] for a tagged or released step without
    /// `force`.
    pub async fn delete_checkpoint(
        &self,
        run: &RunName,
        reference: &Reference,
        options: DeleteOptions,
    ) -> Result<Deletion> {
        // Asked again after a lost answer, a name would mean the next step: what is deleted is named once and for all.
        let named = match reference {
            Reference::Step(_) | Reference::Digest(_) => reference.clone(),
            Reference::Name(_) => Reference::Step(self.get_checkpoint(run, reference).await?.step),
        };
        let call = Call::delete(path::checkpoint(run, &named, "")).patient(PATIENCE_S);
        self.json(
            call.query("force", options.force.then_some(true))
                .query("scores", options.scores.then_some(true))
                .query("dry_run", options.dry_run.then_some(true)),
        )
        .await
    }

    /// Takes a run away with its checkpoints and scores.
    ///
    /// # Errors
    /// [`crate::Error::Conflict`] when it has tags or releases and `force` is not said.
    pub async fn delete_run(&self, run: &RunName, options: DeleteOptions) -> Result<Deletion> {
        let call = Call::delete(path::run(run, "")).patient(PATIENCE_S);
        self.json(
            call.query("force", options.force.then_some(true))
                .query("dry_run", options.dry_run.then_some(true)),
        )
        .await
    }

    /// Sets which steps a run keeps and takes the others away, now and from now on; with `dry_run` only says which.
    ///
    /// # Errors
    /// [`crate::Error::Refused`] for a rule that keeps nothing.
    pub async fn set_retention(&self, run: &RunName, rule: &Retention, dry_run: bool) -> Result<Deletion> {
        let call = Call::put(path::run(run, "/retention")).query("dry_run", dry_run.then_some(true));
        let call = call.patient(PATIENCE_S);
        self.json(call.json(rule)).await
    }

    /// Lets a run keep all its steps from now on.
    ///
    /// # Errors
    /// As every call.
    pub async fn delete_retention(&self, run: &RunName) -> Result<()> {
        self.done(Call::delete(path::run(run, "/retention"))).await
    }

    /// Collects garbage now; with `dry_run` only counts. For administrators of all runs.
    ///
    /// # Errors
    /// As every call.
    pub async fn collect_garbage(&self, dry_run: bool) -> Result<GarbageReport> {
        let call = Call::post_repeatable(format!("{}/storage/gc", path::API)).patient(PATIENCE_S);
        self.json(call.json(&CollectGarbage { dry_run })).await
    }
}
