//! Back-filling: evaluating the steps that were there before a suite was bound. Counted before it starts, done in short
//! transactions, in an order in which curves show early where that is asked.
//!
//! **Invariant:** what is queued here has a place from 1 on, so a new step is evaluated before it.

use std::collections::{BTreeSet, HashMap};

use fineline_api::{Backfill, BackfillPlan, Binding, CheckpointState, RunPattern};
use fineline_format::Digest;

use crate::app::App;
use crate::db;
use crate::db::evaluation::EvaluationKey;
use crate::db::revision::{RevisionFilter, RevisionRow};
use crate::db::run::RunRow;
use crate::error::ApiResult;
use crate::service::enqueue;

/// Revisions that one transaction looks at.
const BATCH: usize = 100;

/// Rows of one read.
const PAGE: u64 = 1000;

/// Queues what the binding asks of the steps that are there already; gives how many evaluations were queued.
pub(crate) async fn fill(app: &App, binding: &Binding, backfill: Backfill) -> ApiResult<u64> {
    let mut n_queued = 0;
    let mut after = None;
    while let Some(run) = next_run(app, &binding.pattern, &mut after).await? {
        let chosen: Vec<_> = chosen(app, &run, (backfill, binding.every))
            .await?
            .into_iter()
            .enumerate()
            .collect();
        for batch in chosen.chunks(BATCH) {
            let txn = db::write_txn(&app.db).await?;
            for (at, seen) in batch {
                // It may have been replaced or deleted since it was listed.
                let row = db::revision::get(&txn, seen.id).await?;
                if row.current && row.state == CheckpointState::Ready {
                    let place = 1 + i64::try_from(*at).unwrap_or(i64::MAX - 1);
                    n_queued += u64::from(enqueue::for_binding(&txn, &run, &row, binding, place).await?);
                }
            }
            txn.commit().await?;
        }
    }
    app.changed.notify_waiters();
    Ok(n_queued)
}

/// What [`fill`] would do, for a suite that may be bound to nothing yet. `known` says whether the caller may know of the
/// suite: else nothing was measured by it.
pub(crate) async fn plan(
    app: &App,
    pattern: &RunPattern,
    (suite, dtype, known): (Digest, &str, bool),
    wanted: (Backfill, u64),
) -> ApiResult<BackfillPlan> {
    let conn = app.db.reader();
    let mut plan = BackfillPlan::default();
    let mut planned: HashMap<(String, Digest), Vec<i64>> = HashMap::new();
    let mut after = None;
    while let Some(run) = next_run(app, pattern, &mut after).await? {
        let chosen = chosen(app, &run, wanted).await?;
        plan.n_runs += u64::from(!chosen.is_empty());
        for model in chosen.into_iter().filter_map(|row| row.model_digest) {
            plan.n_steps += 1;
            let key = EvaluationKey {
                model,
                suite,
                dtype: dtype.to_owned(),
            };
            let ours = planned.entry((run.name.namespace().to_owned(), model)).or_default();
            let measured = known && enqueue::reusable(conn, &run, &key).await?.is_some();
            if measured || enqueue::shown_with(conn, &run, ours).await?.is_some() {
                plan.n_shown += 1;
            } else {
                plan.n_to_queue += 1;
                ours.push(run.id);
            }
        }
    }
    Ok(plan)
}

async fn next_run(app: &App, pattern: &RunPattern, after: &mut Option<RunRow>) -> ApiResult<Option<RunRow>> {
    let name = after.as_ref().map(|run| &run.name);
    let next = db::run::list(app.db.reader(), &[pattern], name, 1).await?.pop();
    (*after).clone_from(&next);
    Ok(next)
}

/// The evaluable steps of a run that a back-fill takes of those that a binding asks for, in its order.
async fn chosen(app: &App, run: &RunRow, (backfill, every): (Backfill, u64)) -> ApiResult<Vec<RevisionRow>> {
    if backfill == Backfill::None {
        return Ok(Vec::new());
    }
    let filter = RevisionFilter {
        state: Some(CheckpointState::Ready),
        evaluable: true,
        ..RevisionFilter::default()
    };
    let (mut steps, mut after) = (Vec::new(), None);
    loop {
        let rows = db::revision::list(app.db.reader(), run.id, filter, after, PAGE).await?;
        let Some(last) = rows.last() else { break };
        after = Some((last.step, last.id));
        steps.extend(rows.into_iter().filter(|row| row.step.is_multiple_of(every)));
    }
    Ok(match backfill {
        Backfill::None | Backfill::All => steps,
        Backfill::Newest(n) => steps
            .into_iter()
            .rev()
            .take(usize::try_from(n).unwrap_or(usize::MAX))
            .collect(),
        Backfill::Coarse => coarse_to_fine(steps.len())
            .into_iter()
            .map(|at| steps[at].clone())
            .collect(),
    })
}

/// The positions 0..n by bisection: the last, the first, the middle, the quarters and so on.
pub(crate) fn coarse_to_fine(n: usize) -> Vec<usize> {
    let Some(last) = n.checked_sub(1) else {
        return Vec::new();
    };
    let mut order = vec![last];
    let mut seen = BTreeSet::from([last]);
    let mut parts = 1;
    while seen.len() < n {
        let positions = (0..parts).map(|part| part * last / parts);
        order.extend(positions.filter(|at| seen.insert(*at)));
        parts *= 2;
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bisection_takes_every_position_once_and_the_ends_first() {
        assert_eq!(coarse_to_fine(0), Vec::<usize>::new());
        assert_eq!(coarse_to_fine(1), [0]);
        assert_eq!(coarse_to_fine(2), [1, 0]);
        assert_eq!(coarse_to_fine(9), [8, 0, 4, 2, 6, 1, 3, 5, 7]);
        for n in [10, 154, 1000] {
            let mut order = coarse_to_fine(n);
            // After 2^k + 1 positions no gap is wider than a 2^k-th of all.
            let mut first: Vec<usize> = order[..9].to_vec();
            first.sort_unstable();
            assert!(first.windows(2).all(|pair| pair[1] - pair[0] <= n / 8 + 1), "{first:?}");
            order.sort_unstable();
            assert_eq!(order, (0..n).collect::<Vec<_>>());
        }
    }
}
