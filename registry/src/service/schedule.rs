//! Which step of a run is evaluated next, where the binding that asked for it says so.
//!
//! The queue decides which run and suite come next, as ever. Of that run and suite, `newest` takes the highest step, and
//! `coarse` the one that is furthest from what is measured or being measured, counted in steps that were queued for it, whatever
//! became of them. That is worked out at each claim, from what is there then: steps that come, go, fail or are scored by another
//! worker need no renumbering, and the gaps of a curve are never wider than twice the narrowest that as many steps could leave.

use fineline_api::{ClaimEvaluation, EvaluationState, StepOrder};
use fineline_format::Digest;
use sea_orm::DatabaseTransaction;

use crate::db;
use crate::db::evaluation::EvaluationModel;
use crate::db::lease::CurveStep;
use crate::error::{ApiError, ApiResult};

/// The evaluation that is to be given in place of `first`, the first of the queue: of the same run, suite and dtype.
pub(crate) async fn next(
    txn: &DatabaseTransaction,
    first: EvaluationModel,
    claim: &ClaimEvaluation,
    now: i64,
) -> ApiResult<EvaluationModel> {
    let order = order(txn, &first).await?;
    if order == StepOrder::Arrival {
        return Ok(first);
    }
    let steps = db::lease::curve(txn, &first).await?;
    let may_be_given = |step: &CurveStep| {
        step.state == EvaluationState::Queued.as_str()
            && step.run_id == first.run_id
            && step.not_before_ms <= now
            && step
                .architecture
                .as_ref()
                .is_some_and(|needed| claim.architectures.contains(needed))
    };
    let waits: Vec<bool> = steps.iter().map(may_be_given).collect();
    let at = match order {
        StepOrder::Coarse => {
            let known = [EvaluationState::Done, EvaluationState::Leased].map(EvaluationState::as_str);
            let known: Vec<bool> = steps.iter().map(|step| known.contains(&step.state.as_str())).collect();
            furthest(&known, &waits)
        }
        _ => waits.iter().rposition(|waits| *waits),
    };
    // One that was queued for a replaced revision is on no curve: its turn comes when nothing of the curve waits.
    let Some(at) = at else { return Ok(first) };
    let found = db::evaluation::find(txn, steps[at].id).await?;
    found.ok_or_else(|| ApiError::internal("an evaluation went away in the transaction that saw it"))
}

/// What the newest binding of that suite to the run says; `arrival` when none is left.
async fn order(txn: &DatabaseTransaction, evaluation: &EvaluationModel) -> ApiResult<StepOrder> {
    let bindings = db::suite::bindings(txn).await?;
    if bindings.iter().all(|binding| binding.order == StepOrder::Arrival) {
        return Ok(StepOrder::Arrival);
    }
    let run = db::run::get(txn, evaluation.run_id).await?;
    let suite = evaluation.suite_digest.as_slice().try_into();
    let suite = suite.map(Digest::from_bytes).map_err(ApiError::internal)?;
    let mut asked = bindings.iter().rev().filter(|binding| {
        binding.suite_digest == suite && binding.dtype == evaluation.dtype && binding.pattern.matches(&run.name)
    });
    Ok(asked.next().map_or(StepOrder::Arrival, |binding| binding.order))
}

/// The position that waits and is furthest from any that is known: the last when nothing is, of equals the last of all, then
/// the first.
fn furthest(known: &[bool], waits: &[bool]) -> Option<usize> {
    let n = known.len();
    let Some(first_known) = known.iter().position(|known| *known) else {
        return waits.iter().rposition(|waits| *waits);
    };
    let mut distance = vec![0; n];
    let mut last_known = first_known;
    for at in 0..n {
        if known[at] {
            last_known = at;
        }
        distance[at] = at.abs_diff(last_known);
    }
    let mut next_known = last_known;
    for at in (0..n).rev() {
        if known[at] {
            next_known = at;
        }
        distance[at] = distance[at].min(at.abs_diff(next_known));
    }
    let waiting = (0..n).filter(|at| waits[*at]);
    waiting.max_by_key(|&at| (distance[at], at + 1 == n, std::cmp::Reverse(at)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The widest gap of a curve, with what lies before its first and behind its last step.
    fn widest(known: &[bool]) -> usize {
        let at: Vec<usize> = (0..known.len()).filter(|at| known[*at]).collect();
        let (Some(first), Some(last)) = (at.first(), at.last()) else {
            return 2 * known.len();
        };
        let inner = at.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0);
        // An end is reached from one side alone.
        inner.max(2 * first).max(2 * (known.len() - 1 - last))
    }

    /// Takes the next step until none waits; gives the order.
    fn all(known: &mut [bool], waits: &mut [bool]) -> Vec<usize> {
        let mut order = Vec::new();
        while let Some(at) = furthest(known, waits) {
            (known[at], waits[at]) = (true, false);
            order.push(at);
        }
        order
    }

    #[test]
    fn gaps_are_halved_and_the_ends_come_first() {
        let order = |n: usize| all(&mut vec![false; n], &mut vec![true; n]);
        assert_eq!(order(0), Vec::<usize>::new());
        assert_eq!(order(1), [0]);
        assert_eq!(order(9), [8, 0, 4, 2, 6, 1, 3, 5, 7]);
    }

    #[test]
    fn at_any_time_five_thousand_steps_are_known_evenly() {
        let n = 5000;
        let (mut known, mut waits) = (vec![false; n], vec![true; n]);
        for n_known in 1..=n {
            let at = furthest(&known, &waits).unwrap();
            (known[at], waits[at]) = (true, false);
            if n_known >= 2 {
                let best = (n - 1).div_ceil(n_known - 1);
                assert!(widest(&known) <= 2 * best, "{n_known}: {} and {best}", widest(&known));
            }
        }
    }

    proptest! {
        /// Whatever is measured when steps come, the next ones close the widest gaps.
        #[test]
        fn steps_that_come_keep_it_even(pushes in proptest::collection::vec((1usize..40, 0usize..25), 1..30)) {
            let (mut known, mut waits) = (Vec::new(), Vec::new());
            for (n_new, n_evaluated) in pushes {
                known.resize(known.len() + n_new, false);
                waits.resize(known.len(), true);
                for _ in 0..n_evaluated {
                    let before = widest(&known);
                    let Some(at) = furthest(&known, &waits) else { break };
                    let nearest = (0..known.len()).filter(|i| known[*i]).map(|i| i.abs_diff(at)).min();
                    // It stands in the middle of a widest gap, or at an end that is as far.
                    prop_assert!(nearest.is_none_or(|nearest| 2 * nearest + 1 >= before), "{at} {before} {nearest:?}");
                    (known[at], waits[at]) = (true, false);
                    prop_assert!(widest(&known) <= before);
                }
            }
            all(&mut known, &mut waits);
            prop_assert!(known.iter().all(|known| *known));
        }

        /// Steps that can't be measured leave holes and stop nothing.
        #[test]
        fn holes_are_passed_over(states in proptest::collection::vec(0u8..3, 0..200)) {
            let mut known: Vec<bool> = states.iter().map(|state| *state == 0).collect();
            let mut waits: Vec<bool> = states.iter().map(|state| *state == 1).collect();
            let mut order = all(&mut known, &mut waits);
            order.sort_unstable();
            let waited: Vec<usize> = (0..states.len()).filter(|at| states[*at] == 1).collect();
            prop_assert_eq!(order, waited);
        }
    }
}
