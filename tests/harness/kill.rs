//! What a test does to a process at a fail point: it dies on the spot, as by `kill -9` (nothing is flushed, closed or
//! told), is stopped, or has the thread there wait.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::process::{Signal, getpid, kill_process};

/// `NAME` or `NAME:N`: the process dies when it passes that fail point for the Nth time, the first when N is absent.
pub const KILL_AT: &str = "FINELINE_KILL_AT";

/// The same, and it is stopped there as by `SIGSTOP`; `SIGCONT` lets it go on.
pub const STOP_AT: &str = "FINELINE_STOP_AT";

/// The same, and the thread that passes waits there until the process ends; the others go on.
pub const HOLD_AT: &str = "FINELINE_HOLD_AT";

/// Arms the fail points that the environment names.
pub fn arm_fail_points() {
    die_at_fail_point();
    arm(STOP_AT, || signal_itself(Signal::STOP));
    arm(HOLD_AT, || {
        loop {
            std::thread::sleep(Duration::from_secs(3600));
        }
    });
}

/// Arms the fail point that the environment names for dying.
pub fn die_at_fail_point() {
    arm(KILL_AT, || signal_itself(Signal::KILL));
}

fn arm(variable: &str, act: impl Fn() + Send + Sync + 'static) {
    let Ok(point) = std::env::var(variable) else { return };
    let (name, nth) = point.rsplit_once(':').unwrap_or((&point, "1"));
    let nth: u64 = nth.parse().expect("a count behind the fail point's name");
    let passed = AtomicU64::new(0);
    let act_at_nth = move || {
        if passed.fetch_add(1, Ordering::SeqCst) + 1 == nth {
            act();
        }
    };
    fail::cfg_callback(name, act_at_nth).expect("a fail point can be armed");
}

fn signal_itself(signal: Signal) {
    kill_process(getpid(), signal).expect("a process may signal itself");
}
