//! Measures push and pull of whole checkpoints with the real programs over loopback. `tests/bench/transfer.sh` builds
//! everything and runs this.

mod generate;
mod place;
mod process;
mod rates;
mod report;
mod transfer;

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};

use crate::place::Place;
use crate::report::Report;

/// How much more memory either end may take for the largest checkpoint than for the smallest.
const MAX_GROWTH_BYTES: u64 = 32 << 20;
/// How much memory either end may take at all.
const MAX_PEAK_BYTES: u64 = 512 << 20;

#[derive(Debug, Parser)]
struct Arguments {
    /// Folder of `fineline` and `fineline-registry`.
    #[arg(long)]
    bin: PathBuf,
    /// Folder on a disk for everything that is made; what is made in it is taken away again.
    #[arg(long)]
    work: PathBuf,
    /// Sizes of the checkpoints, in MiB.
    #[arg(long, value_delimiter = ',', default_values_t = [1024, 4096])]
    mib: Vec<u64>,
    #[command(subcommand)]
    mode: Mode,
}

#[derive(Debug, Subcommand)]
enum Mode {
    /// Times push and pull beside their peers and writes the page.
    Time {
        /// Folder on a memory file system.
        #[arg(long, default_value = "/dev/shm")]
        memory: PathBuf,
        /// How often everything is done.
        #[arg(long, default_value_t = 3)]
        repeat: usize,
        /// What is said of the results; copied to the end of the page.
        #[arg(long)]
        notes: PathBuf,
        /// The page.
        #[arg(long)]
        out: PathBuf,
    },
    /// Compares the memory that both ends take for the smallest and the largest checkpoint; fails when it is not flat.
    Flat,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    match &arguments.mode {
        Mode::Time {
            memory,
            repeat,
            notes,
            out,
        } => {
            let notes = std::fs::read_to_string(notes).with_context(|| format!("notes `{}`", notes.display()))?;
            let mut report = Report::default();
            for mib in &arguments.mib {
                let data = Place::new(&arguments.work, "data")?;
                generate::checkpoint(data.dir(), mib << 20, 1)?;
                for (name, parent) in [("disk", &arguments.work), ("memory", memory)] {
                    for n in 0..*repeat {
                        say(&format!("{mib} MiB to {name}, {} of {repeat}", n + 1));
                        let round = transfer::round(&arguments.bin, data.dir(), parent)?;
                        report.add(*mib, name, round);
                    }
                }
            }
            std::fs::write(out, report.page(*repeat, &notes)).with_context(|| format!("page `{}`", out.display()))
        }
        Mode::Flat => flat(&arguments),
    }
}

fn flat(arguments: &Arguments) -> Result<()> {
    let mut peaks = Vec::new();
    for mib in &arguments.mib {
        let data = Place::new(&arguments.work, "data")?;
        generate::checkpoint(data.dir(), mib << 20, 1)?;
        let peak = transfer::peaks(&arguments.bin, data, &arguments.work)?;
        say(&format!("{mib} MiB: {peak:?} bytes at the most"));
        peaks.push(peak);
    }
    let (first, last) = (peaks.first().context("no size")?, peaks.last().context("no size")?);
    for ((end, small), (_, large)) in first.iter().zip(last) {
        let (growth, mib) = (large.saturating_sub(*small), 1 << 20);
        say(&format!(
            "{end}: {} MiB, {} MiB more than for the smallest",
            large / mib,
            growth / mib
        ));
        ensure!(
            *large < MAX_PEAK_BYTES,
            "{end} takes {large} bytes, {MAX_PEAK_BYTES} are the bound"
        );
        ensure!(
            growth < MAX_GROWTH_BYTES,
            "{end} takes {growth} bytes more, {MAX_GROWTH_BYTES} are the bound"
        );
    }
    say("memory is flat");
    Ok(())
}

#[expect(clippy::print_stderr, reason = "what a script tells who watches it")]
pub(crate) fn say(text: &str) {
    eprintln!("{text}");
}
