//! Programs that are run and looked at while they run: time, processor time, and the most memory that they had.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// How often a program is looked at; what it does after the last look is missed.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Kernel ticks in a second, by which `/proc` counts processor time: the same on every Linux.
const TICKS_PER_S: f64 = 100.0;

/// What a program took.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Taken {
    /// From its start to its end.
    pub(crate) wall_s: f64,
    /// Processor time, in the program and in the kernel for it.
    pub(crate) user_s: f64,
    pub(crate) system_s: f64,
    /// The most memory that was resident.
    pub(crate) peak_bytes: u64,
}

impl Taken {
    pub(crate) fn cpu_s(&self) -> f64 {
        self.user_s + self.system_s
    }

    /// What a process that goes on took between two looks; its peak is that of its whole life.
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            wall_s: 0.0,
            user_s: self.user_s - before.user_s,
            system_s: self.system_s - before.system_s,
            peak_bytes: self.peak_bytes,
        }
    }
}

/// Runs a program to its end, which must be a good one.
pub(crate) fn run(command: &mut Command) -> Result<Taken> {
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let started = Instant::now();
    let mut child = command.spawn().with_context(|| format!("{command:?}"))?;
    let mut taken = Taken::default();
    let status = loop {
        if let Ok(now) = look(child.id()) {
            taken = now;
        }
        if let Some(status) = child.try_wait()? {
            break status;
        }
        std::thread::sleep(LOOK_EVERY);
    };
    taken.wall_s = started.elapsed().as_secs_f64();
    ensure!(status.success(), "{command:?} ended with {status}");
    Ok(taken)
}

/// What a process took until now.
pub(crate) fn look(pid: u32) -> Result<Taken> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name before the last `)` may hold anything; utime and stime are the 12th and 13th behind it.
    let (_, fields) = stat.rsplit_once(')').context("no stat")?;
    let ticks = |at: usize| -> Result<f64> { Ok(fields.split_whitespace().nth(at).context("short stat")?.parse()?) };
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .context("no peak")?;
    let peak_kib: u64 = peak.trim().trim_end_matches(" kB").parse()?;
    Ok(Taken {
        wall_s: 0.0,
        user_s: ticks(11)? / TICKS_PER_S,
        system_s: ticks(12)? / TICKS_PER_S,
        peak_bytes: peak_kib << 10,
    })
}

/// A program that is ended when it is dropped.
pub(crate) struct Background(Child);

impl Background {
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        Ok(Self(
            command
                .stdin(Stdio::null())
                .spawn()
                .with_context(|| format!("{command:?}"))?,
        ))
    }

    pub(crate) fn look(&self) -> Result<Taken> {
        look(self.0.id())
    }

    /// Waits until `ready` gives something.
    pub(crate) fn wait_for<T>(&mut self, ready: impl Fn() -> Option<T>) -> Result<T> {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(found) = ready() {
                return Ok(found);
            }
            if let Some(status) = self.0.try_wait()? {
                bail!("the server ended with {status}");
            }
            ensure!(Instant::now() < deadline, "the server did not start within a minute");
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
