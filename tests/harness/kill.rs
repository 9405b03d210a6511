//! Dying on the spot at a fail point, as by `kill -9`: nothing is flushed, closed or told.

use std::sync::atomic::{AtomicU64, Ordering};

/// `NAME` or `NAME:N`: the process dies when it passes that fail point for the Nth time, the first when N is absent.
pub const KILL_AT: &str = "FINELINE_KILL_AT";

/// Arms the fail point that the environment names.
pub fn die_at_fail_point() {
    let Ok(point) = std::env::var(KILL_AT) else { return };
    let (name, nth) = point.rsplit_once(':').unwrap_or((&point, "1"));
    let nth: u64 = nth.parse().expect("a count behind the fail point's name");
    let passed = AtomicU64::new(0);
    let die_at_nth = move || {
        if passed.fetch_add(1, Ordering::SeqCst) + 1 == nth {
            let own = rustix::process::getpid();
            rustix::process::kill_process(own, rustix::process::Signal::KILL).expect("a process may kill itself");
        }
    };
    fail::cfg_callback(name, die_at_nth).expect("a fail point can be armed");
}
