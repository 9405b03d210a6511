//! `fineline wait`.

use std::time::Duration;

use clap::Args;
use fineline_client::{WaitOutcome, wait};

use super::context::Context;
use super::target::Target;
use super::{Ending, Outcome};

/// What is waited for.
#[derive(Debug, Args)]
pub(crate) struct Wait {
    /// The run, as NAMESPACE/NAME, or a checkpoint of it, as NAMESPACE/NAME@REF.
    #[arg(value_name = "RUN[@REF]")]
    target: Target,
    /// Give up after so many seconds.
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
}

pub(crate) async fn run(context: &Context, command: Wait) -> Outcome {
    let client = context.patient_client()?;
    let Target { run, reference } = &command.target;
    let timeout = command.timeout.map(Duration::from_secs);
    let tell = |reason: &str| context.printer.word(&format!("waiting: {reason}"));
    let outcome = wait(&client, run, reference.as_ref(), timeout, tell).await?;
    context.printer.data(&outcome, told)?;
    Ok(if outcome.is_good() { Ending::Good } else { Ending::Bad })
}

fn told(outcome: &WaitOutcome) -> String {
    let mut lines = Vec::new();
    if outcome.timed_out {
        lines.push(format!("the time is over: {}", outcome.reasons.join("; ")));
    }
    lines.extend(
        outcome
            .failed_steps
            .iter()
            .map(|step| format!("step {step} failed verification")),
    );
    lines.extend(outcome.ended_without_scores.iter().map(|evaluation| {
        let reason = evaluation
            .reason
            .as_deref()
            .map(|reason| format!(": {reason}"))
            .unwrap_or_default();
        format!(
            "suite {} on step {} is {}{reason}",
            evaluation.suite, evaluation.step, evaluation.state
        )
    }));
    lines.push(format!("{} evaluations are done", outcome.n_done));
    lines.join("\n")
}
