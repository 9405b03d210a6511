//! Runs, and the pages of them.

use fineline_api::run::RunAttributes;
use fineline_api::{CreateRun, DefaultTokenizer, Page, Run, RunName, RunPattern, SetTokenizer, path};

use crate::call::Call;
use crate::error::Result;
use crate::http::Client;

impl Client {
    /// Creates a run.
    ///
    /// # Errors
    /// [`crate::Error::Conflict`] when it exists.
    pub async fn create_run(&self, run: &RunName, attributes: &RunAttributes) -> Result<Run> {
        let body = CreateRun {
            run: run.clone(),
            attributes: attributes.clone(),
        };
        self.json(Call::post(format!("{}/runs", path::API)).json(&body)).await
    }

    /// One page of the runs that the token reads, by name; those of `pattern` when there is one.
    ///
    /// # Errors
    /// As every call.
    pub async fn list_runs(
        &self,
        pattern: Option<&RunPattern>,
        cursor: Option<&str>,
        limit: Option<u64>,
    ) -> Result<Page<Run>> {
        let call = Call::get(format!("{}/runs", path::API));
        self.json(
            call.query("pattern", pattern)
                .query("cursor", cursor)
                .query("limit", limit),
        )
        .await
    }

    /// A run.
    ///
    /// # Errors
    /// [`crate::Error::NotFound`] when there is none that the token may know of.
    pub async fn get_run(&self, run: &RunName) -> Result<Run> {
        self.json(Call::get(path::run(run, ""))).await
    }

    /// Sets what describes a run.
    ///
    /// # Errors
    /// [`crate::Error::NotFound`] when there is none that the token may know of.
    pub async fn update_run(&self, run: &RunName, attributes: &RunAttributes) -> Result<Run> {
        self.json(Call::patch(path::run(run, "")).json(attributes)).await
    }

    /// Makes the tokenizer of a checkpoint the run's default, lent to steps that have none of their own.
    ///
    /// # Errors
    /// [`crate::Error::NotFound`] for a run or a checkpoint that the token may not know of, [`crate::Error::Refused`]
    /// when the checkpoint has no tokenizer.
    pub async fn set_run_tokenizer(&self, run: &RunName, tokenizer: &SetTokenizer) -> Result<DefaultTokenizer> {
        self.json(Call::put(path::run(run, "/tokenizer")).json(tokenizer)).await
    }
}
