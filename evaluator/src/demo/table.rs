//! The table of scores by step, a row as soon as a step has all of its scores.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use fineline_api::{Reference, RunName, Score};
use fineline_client::{Client, Error, ScoreQuery, all_pages};

use super::checkpoint::State;
use super::tasks::measured;

/// How often the scores are asked for.
const PAUSE: Duration = Duration::from_millis(500);

/// How long a step may be without its scores after the one before it had them.
const PATIENCE: Duration = Duration::from_secs(300);

/// The line of titles.
pub(super) fn head() -> String {
    let titles = measured().into_iter().map(|(task, metric)| match metric {
        "acc" => format!("{task:>11}"),
        _ => format!("{:>11}", "bits/byte"),
    });
    format!(
        "{:>6} {:>10} {:>7}{}",
        "step",
        "tokens",
        "loss",
        titles.collect::<String>()
    )
}

/// A step's row; nothing while a score is missing.
fn row(state: State, scores: &BTreeMap<(String, String), f64>) -> Option<String> {
    let mut cells = String::new();
    for (task, metric) in measured() {
        let value = scores.get(&(task.to_owned(), metric.to_owned()))?;
        cells.push_str(&format!("{value:>11.3}"));
    }
    let loss = state.loss.map_or_else(|| "-".to_owned(), |loss| format!("{loss:.3}"));
    Some(format!("{:>6} {:>10} {loss:>7}{cells}", state.step, state.tokens))
}

/// Writes a row to `out` for each step that `states` tells of, in their order, until no more are told.
///
/// # Errors
/// When a step gets no scores, or `out` can't be written to.
pub(super) async fn follow(
    client: &Client,
    run: &RunName,
    mut states: tokio::sync::mpsc::UnboundedReceiver<State>,
    out: &mut impl Write,
) -> Result<()> {
    writeln!(out, "{}", head())?;
    while let Some(state) = states.recv().await {
        let begun = Instant::now();
        let line = loop {
            if let Some(line) = row(state, &scores(client, run, state.step).await?) {
                break line;
            }
            check(client, run, state.step).await?;
            if begun.elapsed() > PATIENCE {
                bail!("step {} has no scores after {} s", state.step, PATIENCE.as_secs());
            }
            tokio::time::sleep(PAUSE).await;
        };
        writeln!(out, "{line}")?;
        out.flush()?;
    }
    Ok(())
}

/// Whether a step can still get its scores.
async fn check(client: &Client, run: &RunName, step: u64) -> Result<()> {
    match client.get_checkpoint(run, &Reference::Step(step)).await {
        Ok(checkpoint) if checkpoint.evaluations.failed + checkpoint.evaluations.parked > 0 => {
            bail!("the evaluation of step {step} failed: see `fineline eval list {run}`")
        }
        // Not there yet: it is on its way.
        Ok(_) | Err(Error::NotFound(_)) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

async fn scores(client: &Client, run: &RunName, step: u64) -> Result<BTreeMap<(String, String), f64>> {
    let query = ScoreQuery {
        step_min: Some(step),
        step_max: Some(step),
        ..ScoreQuery::default()
    };
    let page = async |cursor: Option<String>| client.list_scores(run, &query, cursor.as_deref(), None).await;
    let scores: Vec<Score> = all_pages(page).await?;
    Ok(scores
        .into_iter()
        .map(|score| ((score.task, score.metric), score.value))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_stands_under_its_titles_and_waits_for_every_score() {
        let state = State {
            step: 20,
            tokens: 46_080,
            loss: Some(3.25),
        };
        let score = |(task, metric): (&str, &str)| ((task.to_owned(), metric.to_owned()), 0.5);
        let mut scores: BTreeMap<_, _> = measured().into_iter().map(score).collect();
        assert_eq!(row(state, &scores).unwrap().len(), head().len());
        scores.pop_first();
        assert_eq!(row(state, &scores), None);
    }
}
