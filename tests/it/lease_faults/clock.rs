//! A worker whose clock is hours off.

use std::process::{Command, Stdio};

use super::{Process, SHORT, Stage};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_whose_clock_is_hours_off_works_like_any_other() {
    if Command::new("faketime").arg("--version").output().is_err() {
        println!("skipped: it/lease_faults: there is no faketime (Debian package `faketime`)");
        return;
    }
    let stage = Stage::new(SHORT).await;
    let calm = stage.undisturbed().await;
    for (namespace, off) in [("early", "-7h"), ("late", "+7h")] {
        let seconds = |program: &str, arguments: &[&str]| -> i64 {
            let out = Command::new(program).args(arguments).output().unwrap();
            String::from_utf8(out.stdout).unwrap().trim().parse().unwrap()
        };
        let apart = seconds("faketime", &["-f", off, "date", "+%s"]) - seconds("date", &["+%s"]);
        assert!(apart.abs() > 6 * 3600, "the clock is off by {apart} s");
        let run = stage.queue(namespace).await;
        let plain = stage.worker(&stage.server.server.url, &run).await;
        let mut command = Command::new("faketime");
        command
            .args(["-f", off])
            .arg(plain.get_program())
            .args(plain.get_args())
            .arg("--once");
        // A machine's monotonic clock is never off.
        command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").stderr(Stdio::null());
        command.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));

        assert!(Process(command.spawn().unwrap()).ended().await.success());

        assert_eq!(stage.outcome(&run).await, calm, "the clock {off}");
        assert_eq!(stage.evaluation(&run).await.n_expiries, 0);
    }
}
