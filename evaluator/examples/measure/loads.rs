//! Whether loading models, one after the other, leaves anything behind in memory.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use fineline_evaluator::engine::Engine;
use serde_json::json;

use crate::{HowComputed, taken_bytes};

/// Loads checkpoints in turn, asks each a question and drops it; prints what this process has resident and what is taken of the
/// device after some of them.
#[derive(Debug, Args)]
pub(crate) struct Loads {
    /// Folders of checkpoints.
    #[arg(required = true)]
    dirs: Vec<PathBuf>,
    #[command(flatten)]
    how: HowComputed,
    #[arg(long, default_value_t = 200)]
    times: usize,
    /// After how many it is looked.
    #[arg(long, value_delimiter = ',', default_value = "20,100,200")]
    looks: Vec<usize>,
}

impl Loads {
    pub(crate) fn run(&self) -> Result<()> {
        let device = self.how.open()?;
        // Of a batch, so that attention's and the products' memory is asked for as well.
        let ask = |n: usize| ("It was a bright cold day. ".repeat(n), "The clocks".to_owned());
        let questions: Vec<_> = (1..9).map(ask).collect();
        for (n, dir) in (1..=self.times).zip(self.dirs.iter().cycle()) {
            let mut engine = self.how.load(dir, &device)?;
            engine.loglikelihood(&questions, &mut |_| Ok(()))?;
            drop(engine);
            if self.looks.contains(&n) {
                device.synchronize()?;
                let (resident, taken) = (resident_bytes()?, taken_bytes(&device));
                println!(
                    "{}",
                    json!({ "n": n, "resident_bytes": resident, "taken_bytes": taken })
                );
            }
        }
        Ok(())
    }
}

fn resident_bytes() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")).context("VmRSS")?;
    Ok(kib.trim().parse::<u64>()? * 1024)
}
