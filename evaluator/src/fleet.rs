//! A worker process a card: `--device cuda:auto`. Each is this program with the same arguments and a card of its own, so that what
//! goes wrong on one card ends one process.
//!
//! **Invariant:** a process whose parent is gone is told to end, and drains; the parent ends when all have ended.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::device::Wanted;
use crate::worker::WorkerOptions;

/// When a process that failed is started again.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// One that fails so soon after it was first started would fail again: a token that is refused, a card that is taken.
    start: Duration,
    /// How long its card rests first; twice as long each time.
    rest: Duration,
    longest_rest: Duration,
}

const PACE: Pace = Pace {
    start: Duration::from_secs(20),
    rest: Duration::from_secs(5),
    longest_rest: Duration::from_secs(300),
};

/// Set for a process that has a parent.
const PARENT: &str = "FINELINE_WORKER_PARENT";

/// Runs a worker on each of so many cards until all have ended: those that fail are started again. `signals` counts what the parent
/// was told to end by; each is passed on.
///
/// # Errors
/// When a process can't be started, or fails at its start: then all are stopped.
pub(crate) async fn run(options: &WorkerOptions, n_cards: usize, signals: watch::Receiver<usize>) -> Result<()> {
    let program = std::env::current_exe().context("this program's own path")?;
    let given: Vec<OsString> = std::env::args_os().skip(1).collect();
    let command = |card: usize| -> Result<Command> {
        let mut command = Command::new(&program);
        command.args(&given).args(["--device", &Wanted::Cuda(card).to_string()]);
        if let Some(name) = &options.name {
            command.args(["--name", &format!("{name}-{card}")]);
        }
        if let Some(address) = options.metrics {
            command.args(["--metrics", &metrics_of(address, card)?.to_string()]);
        }
        Ok(command)
    };
    tracing::info!(n_cards, "a worker process a card");
    supervise((0..n_cards).map(command).collect::<Result<_>>()?, PACE, signals).await
}

/// Where a card's process serves its metrics: each at a port of its own.
fn metrics_of(first: SocketAddr, card: usize) -> Result<SocketAddr> {
    let port = usize::from(first.port());
    // At port 0 each takes a free one.
    let own = if port == 0 { 0 } else { port + card };
    let own = u16::try_from(own).with_context(|| format!("there is no port {own} for the metrics of card {card}"))?;
    Ok(SocketAddr::new(first.ip(), own))
}

/// Ties this process to its parent, where it is one of a fleet.
///
/// # Errors
/// When the parent is gone already.
pub(crate) fn follow_parent() -> Result<()> {
    let Ok(parent) = std::env::var(PARENT) else {
        return Ok(());
    };
    set_parent_process_death_signal(Some(Signal::TERM)).context("the parent's end")?;
    let is_there = rustix::process::getppid().is_some_and(|pid| pid.as_raw_nonzero().to_string() == parent);
    if !is_there {
        bail!("the process that started this worker is gone");
    }
    Ok(())
}

async fn supervise(commands: Vec<Command>, pace: Pace, signals: watch::Receiver<usize>) -> Result<()> {
    let (give_up, given_up) = watch::channel(false);
    let mut cards = JoinSet::new();
    for (card, command) in commands.into_iter().enumerate() {
        cards.spawn(keep_running(card, command, pace, signals.clone(), given_up.clone()));
    }
    let mut outcome = Ok(());
    while let Some(ended) = cards.join_next().await {
        let ended = ended.context("a card's keeper panicked").and_then(|ended| ended);
        if outcome.is_ok() && ended.is_err() {
            outcome = ended;
            give_up.send_replace(true);
        }
    }
    outcome
}

/// Runs the process of a card until it is to end, or ends well.
async fn keep_running(
    card: usize,
    mut command: Command,
    pace: Pace,
    mut signals: watch::Receiver<usize>,
    mut given_up: watch::Receiver<bool>,
) -> Result<()> {
    // A terminal's ctrl-c is for the parent, which passes it on.
    command.env(PARENT, std::process::id().to_string()).process_group(0);
    let mut rest = pace.rest;
    let begun = Instant::now();
    loop {
        let mut child = command.spawn().with_context(|| format!("the worker of card {card}"))?;
        let status = ended(&mut child, &mut signals, &mut given_up).await?;
        if status.success() || *signals.borrow() > 0 || *given_up.borrow() {
            return Ok(());
        }
        if begun.elapsed() < pace.start {
            bail!("the worker of card {card} failed at its start ({status}): its log says why");
        }
        tracing::error!(card, %status, "a worker failed and is started again in {} s", rest.as_secs());
        tokio::select! {
            () = tokio::time::sleep(rest) => rest = (2 * rest).min(pace.longest_rest),
            _ = signals.wait_for(|&n| n > 0) => return Ok(()),
            _ = given_up.wait_for(|&given_up| given_up) => return Ok(()),
        }
    }
}

/// Waits for a process, and passes on what its parent is told.
async fn ended(
    child: &mut Child,
    signals: &mut watch::Receiver<usize>,
    given_up: &mut watch::Receiver<bool>,
) -> Result<ExitStatus> {
    let (mut n_told, mut is_told) = (0, false);
    loop {
        tokio::select! {
            status = child.wait() => return status.context("a worker's end"),
            Ok(n) = signals.wait_for(|&n| n > n_told) => n_told = *n,
            Ok(_) = given_up.wait_for(|&given_up| given_up), if !is_told => is_told = true,
        }
        let pid = child.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        if let Some(pid) = pid {
            // One that has just ended is waited for above.
            kill_process(pid, Signal::TERM).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn each_card_has_a_port_for_its_metrics() {
        let of = |first: &str, card| metrics_of(first.parse().unwrap(), card).map(|address| address.to_string());
        assert_eq!(of("127.0.0.1:9464", 0).unwrap(), "127.0.0.1:9464");
        assert_eq!(of("[::1]:9464", 7).unwrap(), "[::1]:9471");
        assert_eq!(of("127.0.0.1:0", 3).unwrap(), "127.0.0.1:0");
        assert!(of("127.0.0.1:65535", 1).unwrap_err().to_string().contains("card 1"));
    }

    #[tokio::test]
    async fn workers_that_end_well_end_the_fleet() {
        let (_signals, receiver) = watch::channel(0);
        supervise(vec![shell("exit 0"), shell("exit 0")], PACE, receiver)
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn a_worker_that_fails_at_its_start_stops_the_others() {
        let (_signals, receiver) = watch::channel(0);
        let begun = Instant::now();
        let failed = supervise(vec![shell("exec sleep 600"), shell("exit 3")], PACE, receiver).await;
        let text = failed.unwrap_err().to_string();
        assert!(text.contains("card 1") && text.contains('3'), "{text}");
        assert!(begun.elapsed() < Duration::from_secs(60));
    }

    #[tokio::test]
    async fn each_signal_is_passed_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("told");
        // Ends at the second, as a worker does.
        let script = format!(
            "trap 'echo told >> {0}; [ $(wc -l < {0}) -ge 2 ] && exit 0' TERM; touch {0}; while :; do sleep 0.02; done",
            path.display()
        );
        let (signals, receiver) = watch::channel(0);
        let fleet = tokio::spawn(supervise(vec![shell(&script)], PACE, receiver));
        let n_told = || std::fs::read_to_string(&path).map(|text| text.lines().count());
        for n in [1, 2] {
            while n_told().ok() != Some(n - 1) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            signals.send_replace(n);
        }
        fleet.await.unwrap().unwrap();
        assert_eq!(n_told().unwrap(), 2);
    }

    #[tokio::test]
    async fn a_worker_that_fails_later_is_started_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("started");
        let script = format!("echo started >> {0}; [ $(wc -l < {0}) -ge 3 ]", path.display());
        let (_signals, receiver) = watch::channel(0);
        let pace = Pace {
            start: Duration::ZERO,
            rest: Duration::from_millis(1),
            longest_rest: Duration::from_millis(2),
        };
        supervise(vec![shell(&script)], pace, receiver).await.unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 3);
    }
}
