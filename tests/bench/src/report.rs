//! The page: medians and minima of all rounds.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use crate::process::Taken;
use crate::rates::Limit;
use crate::transfer::Round;

/// All rounds by size in MiB and destination, in the order that they were made.
#[derive(Debug, Default)]
pub(crate) struct Report(Vec<(u64, &'static str, Vec<Round>)>);

impl Report {
    pub(crate) fn add(&mut self, mib: u64, place: &'static str, round: Round) {
        match self.0.iter_mut().find(|(size, to, _)| (*size, *to) == (mib, place)) {
            Some((_, _, rounds)) => rounds.push(round),
            None => self.0.push((mib, place, vec![round])),
        }
    }

    /// The page, with `notes` at its end.
    pub(crate) fn page(&self, repeat: usize, notes: &str) -> String {
        let mut page = String::from(
            "# Push and pull: how fast, and how far from the limit\n\n\
             Written by `tests/bench/transfer.sh`; the words under \"What was changed\" stand in `tests/bench/notes.md`.\n\n",
        );
        let (date, machine) = (chrono::Utc::now().format("%Y-%m-%d %H:%M UTC"), machine());
        let _ = writeln!(
            page,
            "{date}; {machine}. {repeat} rounds; each cell is the median (minimum).\n"
        );
        page.push_str(METHOD);
        for (mib, place, rounds) in &self.0 {
            section(&mut page, *mib, place, rounds);
        }
        page.push('\n');
        page.push_str(notes);
        page
    }
}

const METHOD: &str = "\
Two safetensors shards of bf16 weights with a trained model's statistics (`tests/bench/src/generate.rs`: bell-shaped, 2.6 bits
of entropy in the exponent, no chunk twice, so deduplication can do nothing), read from the file cache, over the loopback
address, client and server on the same cores. A push ends when the registry has read every file back from its store and
compared its SHA-256; a pull ends when every file was compared and fsynced. Everything is fsynced on disk. restic encrypts,
which Fineline does not; it does not compare what it wrote with what it read, and does not fsync what it restores. Peers run
in the same rounds, one after the other, each into an empty place and after 15 s of rest. `huggingface_hub` against the Hub is not
here: it needs the internet, which the machine does not have.

**The limit** is the sum of the work that can't be left out, in core-seconds that were measured in the same round on all cores
at once (`tests/bench/src/rates.rs`; SHA-256 by `openssl speed`; writing by plain files of as many bytes, after the same rest), over
the cores, or the time that such files take where that is longer. Push: the client reads, hashes twice (chunks, files) and encodes;
the server decodes, hashes, writes with fsync, reads back, decodes, hashes. Pull: the server reads; the client decodes, hashes,
writes with fsync. HTTP, the kernel's copies over the loopback address and the database are not in it: they are what is left.
";

fn section(page: &mut String, mib: u64, place: &str, rounds: &[Round]) {
    let title = match place {
        "disk" => "to disk, with fsync",
        _ => "to a memory file system (/dev/shm)",
    };
    let _ = writeln!(page, "\n## {mib} MiB {title}\n");
    page.push_str("| | s | MB/s | of the limit | processor, s | client's peak, MiB | server's peak, MiB |\n");
    page.push_str("|---|---|---|---|---|---|---|\n");
    let raw = |round: &Round| round.raw_bytes as f64;
    let limit = |name: &str, of: &dyn Fn(&Round) -> f64, page: &mut String| {
        let seconds = values(rounds, of);
        let rate = values(rounds, |round| raw(round) / of(round) / 1e6);
        let _ = writeln!(
            page,
            "| {name}: the limit | {} | {} | 1 | | | |",
            cell(&seconds, 2),
            cell(&rate, 0)
        );
    };
    limit("push", &|round| push_limit(round).wall_s, page);
    row(
        page,
        "**fineline push**",
        rounds,
        |round| (round.push, Some(round.push_server)),
        |round| Some(push_limit(round).wall_s),
    );
    row(page, "restic backup", rounds, |round| (round.backup, None), |_| None);
    limit("pull", &|round| pull_limit(round).wall_s, page);
    row(
        page,
        "**fineline pull**",
        rounds,
        |round| (round.pull, Some(round.pull_server)),
        |round| Some(pull_limit(round).wall_s),
    );
    row(page, "restic restore", rounds, |round| (round.restore, None), |_| None);
    row(
        page,
        "`openssl dgst` + `cp` + `sync`",
        rounds,
        |round| (round.copy, None),
        |_| None,
    );
    profile(page, rounds);
}

fn row(
    page: &mut String,
    name: &str,
    rounds: &[Round],
    taken: impl Fn(&Round) -> (Taken, Option<Taken>),
    limit: impl Fn(&Round) -> Option<f64>,
) {
    let seconds = values(rounds, |round| taken(round).0.wall_s);
    let rate = values(rounds, |round| round.raw_bytes as f64 / taken(round).0.wall_s / 1e6);
    let ratios: Vec<f64> = rounds
        .iter()
        .filter_map(|round| Some(limit(round)? / taken(round).0.wall_s))
        .collect();
    let ratio = if ratios.is_empty() {
        String::new()
    } else {
        cell(&ratios, 2)
    };
    let cpu = values(rounds, |round| {
        let (client, server) = taken(round);
        client.cpu_s() + server.unwrap_or_default().cpu_s()
    });
    let peak = |of: &dyn Fn(&Round) -> Option<u64>| {
        let peaks: Vec<f64> = rounds
            .iter()
            .filter_map(|round| Some(of(round)? as f64 / (1 << 20) as f64))
            .collect();
        peaks
            .iter()
            .copied()
            .reduce(f64::max)
            .map_or_else(String::new, |peak| format!("{peak:.0}"))
    };
    let (client, server) = (
        peak(&|round| taken(round).1.map(|_| taken(round).0.peak_bytes)),
        peak(&|round| taken(round).1.map(|server| server.peak_bytes)),
    );
    let (seconds, rate, cpu) = (cell(&seconds, 2), cell(&rate, 0), cell(&cpu, 2));
    let _ = writeln!(
        page,
        "| {name} | {seconds} | {rate} | {ratio} | {cpu} | {client} | {server} |"
    );
}

/// What the processors did: the work of the limit by its parts, and what both programs took.
fn profile(page: &mut String, rounds: &[Round]) {
    let gib = |of: &dyn Fn(&Round) -> f64| {
        let core_s = values(rounds, |round| {
            of(round) / (round.raw_bytes as f64 / (1u64 << 30) as f64)
        });
        format!("{:.2}", median(&core_s))
    };
    let raw = |round: &Round| round.raw_bytes as f64;
    let _ = writeln!(
        page,
        "\nCore-seconds for a GiB: SHA-256 {}, encode {}, decode {}, read {}, write {} where a push does and {} where a pull does; \
         frames take {:.3} of the bytes; writing a GiB takes {} s, the frames of one {} s.",
        gib(&|round| raw(round) * round.rates.sha256),
        gib(&|round| raw(round) * round.rates.encode),
        gib(&|round| raw(round) * round.rates.decode),
        gib(&|round| raw(round) * round.rates.read),
        gib(&|round| raw(round) * round.push_writing.cpu),
        gib(&|round| raw(round) * round.pull_writing.cpu),
        median(&values(rounds, |round| round.rates.stored)),
        gib(&|round| raw(round) * round.pull_writing.wall),
        gib(&|round| raw(round) * round.rates.stored * round.push_writing.wall),
    );
    for (name, taken, limit) in [
        (
            "Push",
            (|round: &Round| (round.push, round.push_server)) as fn(&Round) -> (Taken, Taken),
            push_limit as fn(&Round) -> Limit,
        ),
        ("Pull", |round| (round.pull, round.pull_server), pull_limit),
    ] {
        let _ = writeln!(
            page,
            "{name}: client {} in itself and {} in the kernel, server {} and {}; {} beyond the limit's work.",
            gib(&|round| taken(round).0.user_s),
            gib(&|round| taken(round).0.system_s),
            gib(&|round| taken(round).1.user_s),
            gib(&|round| taken(round).1.system_s),
            gib(&|round| taken(round).0.cpu_s() + taken(round).1.cpu_s() - limit(round).core_s),
        );
    }
}

fn push_limit(round: &Round) -> Limit {
    round.rates.push(round.raw_bytes as f64, round.push_writing)
}

fn pull_limit(round: &Round) -> Limit {
    round.rates.pull(round.raw_bytes as f64, round.pull_writing)
}

fn values(rounds: &[Round], of: impl Fn(&Round) -> f64) -> Vec<f64> {
    rounds.iter().map(of).collect()
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len();
    match n {
        0 => f64::NAN,
        _ => (sorted[(n - 1) / 2] + sorted[n / 2]) / 2.0,
    }
}

fn cell(values: &[f64], digits: usize) -> String {
    let least = values.iter().copied().reduce(f64::min).unwrap_or(f64::NAN);
    format!("{:.digits$} ({least:.digits$})", median(values))
}

fn machine() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    let n_cores = std::thread::available_parallelism().map_or(0, usize::from);
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split_whitespace().next().unwrap_or("?");
    let version = |program: &str, flag: &str| {
        let output = Command::new(program)
            .arg(flag)
            .output()
            .map(|output| output.stdout)
            .unwrap_or_default();
        String::from_utf8_lossy(&output)
            .lines()
            .next()
            .unwrap_or_default()
            .to_owned()
    };
    format!(
        "{n_cores} cores of {}, load {load} at the end; {}; {}",
        model.unwrap_or("an unknown processor"),
        version("openssl", "version"),
        version("restic", "version"),
    )
}
