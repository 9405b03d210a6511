//! Waiting until a run has nothing under way: no step receiving or verifying, no evaluation queued or leased.
//!
//! **Invariant:** quiet is only believed when it was seen twice in a row, since an expired lease goes back from leased
//! to queued between two questions.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use fineline_api::{Checkpoint, CheckpointState, Evaluation, EvaluationState, Reference, RunName};

use crate::checkpoint::{CheckpointQuery, StateFilter};
use crate::error::{Error, Result};
use crate::evaluation::EvaluationQuery;
use crate::http::Client;
use crate::page::all_pages;

const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How many of those under way are looked at for their reasons.
const N_LOOKED_AT: u64 = 100;

/// How a wait ended.
#[derive(Debug, Clone, serde::Serialize)]
pub struct WaitOutcome {
    /// Whether the time was over while something was still under way.
    pub timed_out: bool,
    /// What was still under way then, in sentences.
    pub reasons: Vec<String>,
    /// Steps that failed verification.
    pub failed_steps: Vec<u64>,
    /// Evaluations that have all their scores.
    pub n_done: u64,
    /// Evaluations that failed, were parked or cancelled.
    pub ended_without_scores: Vec<Evaluation>,
}

impl WaitOutcome {
    /// Whether all that was to be done was done.
    pub fn is_good(&self) -> bool {
        !self.timed_out && self.failed_steps.is_empty() && self.ended_without_scores.is_empty()
    }
}

/// Waits for a run, or for one checkpoint of it. `on_reason` is told why it waits, each time the reason changes.
///
/// # Errors
/// [`crate::Error::NotFound`] when there is no such run or checkpoint, and what every call may give.
pub async fn wait(
    client: &Client,
    run: &RunName,
    reference: Option<&Reference>,
    timeout: Option<Duration>,
    mut on_reason: impl FnMut(&str),
) -> Result<WaitOutcome> {
    let deadline = timeout.map(|timeout| Instant::now() + timeout);
    let mut pause = FIRST_PAUSE;
    let (mut told, mut quiet) = (String::new(), false);
    loop {
        let reasons = under_way(client, run, reference).await?;
        let timed_out = !reasons.is_empty() && deadline.is_some_and(|deadline| Instant::now() >= deadline);
        if timed_out || reasons.is_empty() && quiet {
            return outcome(client, run, reference, timed_out, reasons).await;
        }
        quiet = reasons.is_empty();
        if quiet {
            continue;
        }
        let text = reasons.join("; ");
        if text != told {
            on_reason(&text);
            told = text;
            pause = FIRST_PAUSE;
        }
        let left = deadline.map_or(pause, |deadline| deadline.saturating_duration_since(Instant::now()));
        tokio::time::sleep(pause.min(left)).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// What is under way, in sentences; asked in the order in which work goes on, so that nothing slips by.
async fn under_way(client: &Client, run: &RunName, reference: Option<&Reference>) -> Result<Vec<String>> {
    let mut reasons = Vec::new();
    for state in [CheckpointState::Receiving, CheckpointState::Verifying] {
        let steps = checkpoints(client, run, reference, state).await?;
        if let Some(first) = steps.first() {
            let (n, step) = (steps.len(), first.step);
            reasons.push(match n {
                1 => format!("step {step} is {state}"),
                _ => format!("{n} steps are {state} (step {step} first)"),
            });
        }
    }
    for state in [EvaluationState::Queued, EvaluationState::Leased] {
        let query = evaluation_query(run, reference, Some(state));
        let page = client.list_evaluations(&query, None, Some(N_LOOKED_AT)).await?;
        reasons.extend(summary(state, &page.items, page.next_cursor.is_some()));
    }
    Ok(reasons)
}

/// One sentence for each reason that evaluations give.
fn summary(state: EvaluationState, evaluations: &[Evaluation], more: bool) -> Vec<String> {
    let mut by_reason: BTreeMap<&str, Vec<&Evaluation>> = BTreeMap::new();
    for evaluation in evaluations {
        by_reason
            .entry(evaluation.reason.as_deref().unwrap_or_default())
            .or_default()
            .push(evaluation);
    }
    let sentence = |(reason, evaluations): (&str, Vec<&Evaluation>)| {
        let first = evaluations.iter().min_by_key(|evaluation| evaluation.step)?;
        let (n, least) = (evaluations.len(), if more { "at least " } else { "" });
        let (step, suite) = (first.step, &first.suite);
        let what = match n {
            1 => format!("suite `{suite}` on step {step} is {state}"),
            _ => format!("{least}{n} evaluations are {state} (suite `{suite}` on step {step} first)"),
        };
        Some(if reason.is_empty() {
            what
        } else {
            format!("{what}: {reason}")
        })
    };
    by_reason.into_iter().filter_map(sentence).collect()
}

async fn outcome(
    client: &Client,
    run: &RunName,
    reference: Option<&Reference>,
    timed_out: bool,
    reasons: Vec<String>,
) -> Result<WaitOutcome> {
    let mut failed_steps = Vec::new();
    for step in checkpoints(client, run, reference, CheckpointState::Failed).await? {
        // A push that failed is of the past when another one of its step was good.
        match client.get_checkpoint(run, &Reference::Step(step.step)).await {
            Ok(ready) if ready.ready_at >= Some(step.created_at) => {}
            Ok(_) | Err(Error::NotFound(_)) => failed_steps.push(step.step),
            Err(error) => return Err(error),
        }
    }
    let query = evaluation_query(run, reference, None);
    let evaluations =
        all_pages(async |cursor: Option<String>| client.list_evaluations(&query, cursor.as_deref(), None).await);
    let (mut n_done, mut ended) = (0, Vec::new());
    for evaluation in evaluations.await? {
        match evaluation.state {
            EvaluationState::Done => n_done += 1,
            // Nobody waits for what went with its step.
            EvaluationState::Cancelled if evaluation.deleted => {}
            EvaluationState::Failed | EvaluationState::Parked | EvaluationState::Cancelled => ended.push(evaluation),
            EvaluationState::Queued | EvaluationState::Leased => {}
        }
    }
    Ok(WaitOutcome {
        timed_out,
        reasons,
        failed_steps,
        n_done,
        ended_without_scores: ended,
    })
}

/// The checkpoints in a state: of the whole run, of a step, or the one that another reference means.
async fn checkpoints(
    client: &Client,
    run: &RunName,
    reference: Option<&Reference>,
    state: CheckpointState,
) -> Result<Vec<Checkpoint>> {
    let step = match reference {
        None => None,
        Some(Reference::Step(step)) => Some(*step),
        Some(reference) => {
            let checkpoint = client.get_checkpoint(run, reference).await?;
            return Ok(Some(checkpoint)
                .filter(|checkpoint| checkpoint.state == state)
                .into_iter()
                .collect());
        }
    };
    let query = CheckpointQuery {
        step_min: step,
        step_max: step,
        state: StateFilter::Only(state),
        all_revisions: false,
    };
    all_pages(async |cursor: Option<String>| client.list_checkpoints(run, &query, cursor.as_deref(), None).await).await
}

fn evaluation_query(run: &RunName, reference: Option<&Reference>, state: Option<EvaluationState>) -> EvaluationQuery {
    EvaluationQuery {
        run: Some(run.clone()),
        reference: reference.cloned(),
        state,
    }
}
