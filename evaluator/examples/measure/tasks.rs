//! How long an engine takes for tasks, and on how many tokens.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use clap::Args;
use fineline_evaluator::candle::engine::Counts;
use fineline_evaluator::task::{Overrides, PreparedTask};
use fineline_format::task::TaskFile;
use serde_json::json;

use crate::{HowComputed, taken_bytes};

/// Prints a line of JSON for each task and writes its sample log into a folder.
#[derive(Debug, Args)]
pub(crate) struct Tasks {
    /// The checkpoint's folder.
    dir: PathBuf,
    #[command(flatten)]
    how: HowComputed,
    /// Documents of a task at most.
    #[arg(long)]
    limit: Option<u64>,
    /// Where the sample logs go.
    #[arg(long)]
    logs: PathBuf,
    /// Says `loaded` when the model is, and waits for a line.
    #[arg(long)]
    wait: bool,
    /// Task files, each with its shots where they are not those of the file.
    #[arg(required = true, value_name = "YAML[:SHOTS]")]
    tasks: Vec<String>,
}

impl Tasks {
    pub(crate) fn run(&self) -> Result<()> {
        let started = Instant::now();
        let device = self.how.open()?;
        let opened = Instant::now();
        let mut engine = self.how.load(&self.dir, &device)?;
        device.synchronize()?;
        let load_s = opened.elapsed().as_secs_f64();
        if self.wait {
            println!("loaded");
            std::io::stdin().read_line(&mut String::new())?;
        }
        for task in &self.tasks {
            let prepared = prepare(task, self.limit)?;
            let (before, begun) = (engine.counts(), Instant::now());
            let (mut asked, mut longest) = (Instant::now(), 0_f64);
            let result = prepared.run(&mut engine, &mut |_| {
                longest = longest.max(asked.elapsed().as_secs_f64());
                asked = Instant::now();
                Ok(())
            })?;
            let seconds = begun.elapsed().as_secs_f64();
            let counts = difference(engine.counts(), before);
            let log = self.logs.join(format!("{}.jsonl", prepared.name()));
            std::fs::write(&log, &result.samples_jsonl).with_context(|| log.display().to_string())?;
            println!(
                "{}",
                json!({
                    "task": prepared.name(),
                    "n_requests": prepared.n_requests(),
                    "seconds": seconds,
                    // A cancelled evaluation computes on for so long, at most.
                    "longest_silence_s": longest,
                    "n_asked": counts.n_asked,
                    "n_computed": counts.n_computed,
                    "n_looked_at": counts.n_looked_at,
                    "n_scored": counts.n_scored,
                    "open_s": (opened - started).as_secs_f64(),
                    "load_s": load_s,
                    "since_start_s": started.elapsed().as_secs_f64(),
                    "taken_bytes": taken_bytes(&device),
                })
            );
        }
        Ok(())
    }
}

fn difference(after: Counts, before: Counts) -> Counts {
    Counts {
        n_asked: after.n_asked - before.n_asked,
        n_computed: after.n_computed - before.n_computed,
        n_looked_at: after.n_looked_at - before.n_looked_at,
        n_scored: after.n_scored - before.n_scored,
    }
}

fn prepare(task: &str, limit: Option<u64>) -> Result<PreparedTask> {
    let (path, num_fewshot) = match task.rsplit_once(':') {
        Some((path, shots)) => (Path::new(path), Some(shots.parse()?)),
        None => (Path::new(task), None),
    };
    let yaml = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let dir = path.parent().unwrap_or(Path::new("."));
    let mut data = BTreeMap::new();
    for (split, paths) in TaskFile::parse(&yaml)?.data_files {
        let files = paths.iter().map(|path| std::fs::read(dir.join(path)));
        data.insert(split, files.collect::<std::io::Result<Vec<_>>>()?);
    }
    PreparedTask::new(&yaml, &data, Overrides { limit, num_fewshot })
}
