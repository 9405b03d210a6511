//! `fineline watch`: the one command that has no end of its own; with `--json` each event is a document on its line.

use std::time::Duration;

use clap::Args;
use fineline_api::{Event, EventKind, RunName};
use fineline_client::Client;

use super::context::Context;
use super::table::time;
use super::{Ending, Outcome};

/// How long the server is asked to wait for an event before it answers.
const WAIT_S: u64 = 25;
const PAUSE: Duration = Duration::from_millis(50);

/// What is followed.
#[derive(Debug, Args)]
pub(crate) struct Watch {
    /// The run, as NAMESPACE/NAME.
    run: RunName,
    /// Begin with what happened so far.
    #[arg(long)]
    history: bool,
}

pub(crate) async fn run(context: &Context, command: Watch) -> Outcome {
    let client = context.patient_client()?;
    tokio::select! {
        ended = follow(context, &client, &command) => ended,
        stopped = tokio::signal::ctrl_c() => { stopped?; Ok(Ending::Good) }
    }
}

async fn follow(context: &Context, client: &Client, command: &Watch) -> Outcome {
    let (mut after, mut shown, mut wait_s) = (0, command.history, 0);
    loop {
        let events = client.list_events(&command.run, after, wait_s, None).await?;
        if events.is_empty() {
            // All of the past was read: from here on it is news. The server waits for us; the pause only keeps a loop
            // from spinning where it can't.
            (shown, wait_s) = (true, WAIT_S);
            tokio::time::sleep(PAUSE).await;
        }
        for event in events {
            after = after.max(event.id);
            if shown {
                context.printer.item(&event, told)?;
            }
        }
    }
}

fn told(event: &Event) -> String {
    let what = match event.kind {
        EventKind::CheckpointDeleted => "was deleted",
        EventKind::CheckpointReady => "is ready",
        EventKind::CheckpointEvaluable => "can be evaluated by its run's tokenizer",
        EventKind::CheckpointFailed => "failed verification",
        EventKind::EvaluationQueued => "has an evaluation queued",
        EventKind::EvaluationDone => "has an evaluation done",
        EventKind::EvaluationEnded => "has an evaluation that ended without scores",
    };
    let data = match &event.data {
        serde_json::Value::Object(data) if !data.is_empty() => format!(" {}", event.data),
        _ => String::new(),
    };
    format!("{} step {} {what}{data}", time(event.created_at), event.step)
}
