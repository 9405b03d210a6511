//! Scores of a run by step, and those posted from outside.

use fineline_api::{Page, PostScores, RunName, Score, path};
use serde::Deserialize;

use crate::call::Call;
use crate::error::{Error, Result};
use crate::http::Client;

/// Which scores are listed.
#[derive(Debug, Clone, Default)]
pub struct ScoreQuery {
    /// The first step.
    pub step_min: Option<u64>,
    /// The last step, included.
    pub step_max: Option<u64>,
    /// Of this task.
    pub task: Option<String>,
    /// Of this metric.
    pub metric: Option<String>,
    /// Measured by this harness; `fineline` is the registry's own.
    pub harness: Option<String>,
    /// Of replaced revisions too.
    pub all_revisions: bool,
}

/// What posting scores answers.
#[derive(Debug, Clone, Copy, Deserialize)]
struct Posted {
    n: u64,
}

impl Client {
    /// One page of a run's scores, by step, task and metric.
    ///
    /// # Errors
    /// As every call.
    pub async fn list_scores(
        &self,
        run: &RunName,
        query: &ScoreQuery,
        cursor: Option<&str>,
        limit: Option<u64>,
    ) -> Result<Page<Score>> {
        self.json(scores_call(run, query).query("cursor", cursor).query("limit", limit))
            .await
    }

    /// All of a run's scores as CSV with a header line, as the server writes it.
    ///
    /// # Errors
    /// As every call.
    pub async fn list_scores_csv(&self, run: &RunName, query: &ScoreQuery) -> Result<String> {
        let answer = self.send(&scores_call(run, query).query("format", Some("csv"))).await?;
        String::from_utf8(answer.body.into()).map_err(|_| Error::Protocol {
            url: answer.url,
            reason: "it is no UTF-8 text".to_owned(),
        })
    }

    /// Posts scores from outside for one checkpoint; tells how many rows it made or replaced.
    ///
    /// # Errors
    /// [`Error::Refused`] when the harness is called `fineline` or a value is not finite.
    pub async fn post_scores(&self, run: &RunName, scores: &PostScores) -> Result<u64> {
        let posted: Posted = self
            .json(Call::post_repeatable(path::run(run, "/scores")).json(scores))
            .await?;
        Ok(posted.n)
    }
}

fn scores_call(run: &RunName, query: &ScoreQuery) -> Call {
    Call::get(path::run(run, "/scores"))
        .query("step_min", query.step_min)
        .query("step_max", query.step_max)
        .query("task", query.task.as_ref())
        .query("metric", query.metric.as_ref())
        .query("harness", query.harness.as_ref())
        .query("all_revisions", query.all_revisions.then_some(true))
}
