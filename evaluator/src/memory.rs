//! Whether a model fits in memory, worked out from its config before anything of it is read: with one batch, which is the least
//! that it is ever asked for. Of a text longer than a batch more keys and values are kept, which is checked when it comes: models
//! that read very long ones are seldom given them.
//!
//! What there is is the kernel's word (`MemAvailable`) or the cgroup's, whichever is less: a container's limit does not show
//! in /proc/meminfo, and a process beyond it is killed without a word.

use std::io::{Error, ErrorKind};
use std::path::{Path, PathBuf};

use anyhow::Result;
use fineline_format::suite::EvalDtype;

use crate::candle::engine::logits_at_once;
use crate::config::Config;
use crate::engine::EngineOptions;

/// Bytes that a model takes where it is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needed {
    /// Of its weights, which the CPU has in float32 whatever the dtype and a card in the dtype, and of the rotary embedding's tables.
    pub weights: u64,
    /// Of the keys and values of a batch's tokens.
    pub kept: u64,
    /// Of a batch between the layers, or of a tensor that is being read, whichever is more.
    pub work: u64,
    /// What the numbers are of.
    pub computed_in: EvalDtype,
}

impl Needed {
    /// What a model of that shape takes, on the CPU or on a card.
    pub fn of(config: &Config, options: &EngineOptions, is_cpu: bool) -> Self {
        const F32: u64 = 4;
        let computed_in = computed_in(options.dtype, is_cpu);
        let number = number_bytes(computed_in) as u64;
        let size = |n: usize| n as u64;
        let (hidden, inner, vocabulary) = (
            size(config.hidden_size),
            size(config.intermediate_size),
            size(config.vocab_size),
        );
        let head_dim = size(config.head_dim);
        let heads = (size(config.n_heads) + 2 * size(config.n_kv_heads)) * head_dim;
        // The CPU's output matrix is turned, and so another than the embedding even where both are one.
        let turned = if config.tied && is_cpu { vocabulary * hidden } else { 0 };
        let rotary = size(config.max_length) * head_dim;
        let n_tokens = match is_cpu {
            true => size(options.max_batch_tokens.min(config.max_length)),
            false => size(options.max_batch_tokens),
        };
        let rows = n_tokens * number * (6 * hidden + 3 * inner + 4 * heads);
        let logits = number * (n_tokens * vocabulary).min(vocabulary.max(size(logits_at_once(is_cpu))));
        // Read and turned, or read and rounded: two copies beside the one that stays.
        let largest = 2 * F32 * hidden * vocabulary.max(inner).max(heads);
        Self {
            weights: number * (config.n_parameters() + turned) + F32 * rotary,
            kept: size(config.kept_bytes(computed_in)) * n_tokens,
            work: largest.max(rows + logits),
            computed_in,
        }
    }

    /// Checks that it fits in what is available; gives the bytes that are left for keys and values.
    ///
    /// # Errors
    /// With the numbers. It is an [`std::io::Error`], since another worker or another time may have more.
    pub fn check(&self, available: u64) -> Result<u64> {
        let sum = self.weights + self.kept + self.work;
        if sum <= available {
            return Ok(available - self.weights - self.work);
        }
        let computed_in = self.computed_in;
        let [sum, weights, kept, work, available] = [sum, self.weights, self.kept, self.work, available].map(gib);
        let text = format!(
            "the model needs {sum} GiB of memory ({weights} of weights in {computed_in}, {kept} of kept keys and values, {work} to \
             work with) and {available} are available: evaluate it where there is more"
        );
        Err(Error::new(ErrorKind::OutOfMemory, text).into())
    }
}

/// What a model of that dtype is computed in: its own on a card, and always float32 on the CPU.
pub(crate) fn computed_in(dtype: EvalDtype, is_cpu: bool) -> EvalDtype {
    if is_cpu { EvalDtype::Float32 } else { dtype }
}

/// Bytes of a number.
pub(crate) fn number_bytes(dtype: EvalDtype) -> usize {
    match dtype {
        EvalDtype::Float32 => 4,
        EvalDtype::Bfloat16 | EvalDtype::Float16 => 2,
    }
}

/// Checks that the keys and values of so many tokens, each of `kept_bytes`, fit in what [`Needed::check`] left.
///
/// # Errors
/// With the numbers, as [`Needed::check`].
pub(crate) fn check_kept(kept_bytes: usize, n_tokens: usize, left: u64) -> Result<()> {
    let needed = kept_bytes as u64 * n_tokens as u64;
    if needed <= left {
        return Ok(());
    }
    let (needed, left) = (gib(needed), gib(left));
    let text = format!(
        "a text needs {needed} GiB of memory for the keys and values of {n_tokens} tokens and {left} are left beside the model: \
         evaluate it where there is more"
    );
    Err(Error::new(ErrorKind::OutOfMemory, text).into())
}

fn gib(bytes: u64) -> String {
    format!("{:.2}", bytes as f64 / f64::from(1 << 30))
}

/// Bytes that this process may still take; `None` where the kernel does not say.
pub fn available_bytes() -> Option<u64> {
    Memory::of(Path::new("/")).available
}

/// Bytes that this process may have in all; 0 where the kernel does not say.
pub fn total_bytes() -> u64 {
    Memory::of(Path::new("/")).total.unwrap_or(0)
}

#[derive(Debug, PartialEq)]
struct Memory {
    total: Option<u64>,
    available: Option<u64>,
}

impl Memory {
    /// Reads /proc and /sys below a root.
    fn of(root: &Path) -> Self {
        let info = read(&root.join("proc/meminfo"));
        let field = |name: &str| {
            let rest = info.lines().find_map(|line| line.strip_prefix(name))?;
            let kib: u64 = rest.trim().trim_end_matches("kB").trim().parse().ok()?;
            Some(kib * 1024)
        };
        let mut memory = Self {
            total: field("MemTotal:"),
            available: field("MemAvailable:"),
        };
        for (limit, used) in limits(root) {
            let less = |known: Option<u64>, limit: u64| Some(known.map_or(limit, |known| known.min(limit)));
            memory.total = less(memory.total, limit);
            memory.available = less(memory.available, limit.saturating_sub(used));
        }
        memory
    }
}

/// The limit and the use of each cgroup that this process is in, up to the root: of version 2 or 1.
fn limits(root: &Path) -> Vec<(u64, u64)> {
    let groups = read(&root.join("proc/self/cgroup"));
    let mut found = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else {
            continue;
        };
        let (mount, names) = match controllers {
            "" => ("sys/fs/cgroup", ["memory.max", "memory.current", "inactive_file "]),
            list if list.split(',').any(|name| name == "memory") => (
                "sys/fs/cgroup/memory",
                ["memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file "],
            ),
            _ => continue,
        };
        // In a container the path may be the host's; its own group is then the mount itself.
        let mount = root.join(mount);
        let mut dir: PathBuf = mount.join(path.trim_start_matches('/'));
        loop {
            found.extend(limit(&dir, names));
            if dir == mount || !dir.pop() {
                break;
            }
        }
    }
    found
}

/// The limit and the use of one cgroup, without what the kernel would give back: files that nobody has read for a while.
fn limit(dir: &Path, [max, current, inactive]: [&str; 3]) -> Option<(u64, u64)> {
    let number = |name: &str| read(&dir.join(name)).trim().parse::<u64>().ok();
    let limit = number(max)?;
    let stat = read(&dir.join("memory.stat"));
    let inactive = stat
        .lines()
        .find_map(|line| line.strip_prefix(inactive)?.parse::<u64>().ok());
    Some((limit, number(current)?.saturating_sub(inactive.unwrap_or(0))))
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(files: &[(&str, &str)]) -> Memory {
        let root = tempfile::tempdir().unwrap();
        let info = (
            "proc/meminfo",
            "MemTotal:       16777216 kB\nMemAvailable:    8388608 kB\n",
        );
        for (path, text) in files.iter().chain([&info]) {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        Memory::of(root.path())
    }

    fn gib(total: f64, available: f64) -> Memory {
        let bytes = |gib: f64| Some((gib * f64::from(1 << 30)) as u64);
        Memory {
            total: bytes(total),
            available: bytes(available),
        }
    }

    #[test]
    fn the_least_limit_counts_without_pages_that_can_be_given_back() {
        assert_eq!(machine(&[]), gib(16.0, 8.0));
        let second = [
            ("proc/self/cgroup", "0::/a/b\n"),
            ("sys/fs/cgroup/a/memory.max", "4294967296\n"),
            ("sys/fs/cgroup/a/memory.current", "3221225472\n"),
            ("sys/fs/cgroup/a/memory.stat", "anon 1\ninactive_file 1073741824\n"),
            ("sys/fs/cgroup/a/b/memory.max", "max\n"),
            ("sys/fs/cgroup/a/b/memory.current", "1\n"),
        ];
        assert_eq!(machine(&second), gib(4.0, 2.0));
        let first = [
            ("proc/self/cgroup", "5:cpu:/x\n4:memory:/docker/1\n0::/\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "2147483648\n"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "1073741824\n"),
        ];
        assert_eq!(machine(&first), gib(2.0, 1.0));
    }

    #[test]
    fn a_model_that_does_not_fit_is_refused_with_the_numbers() {
        let config = r#"{"hidden_size":4096,"intermediate_size":11008,"num_hidden_layers":32,"num_attention_heads":32,"vocab_size":32000}"#;
        let config = Config::parse(config.as_bytes()).unwrap();
        let needed = Needed::of(&config, &EngineOptions::default(), true);
        // 6,738,415,616 parameters and the tables of 2,048 positions by 128, in float32.
        assert_eq!(needed.weights, 4 * (6_738_415_616 + 2048 * 128));
        assert_eq!(needed.kept, 8 * 32 * 4096 * 2048);
        let error = needed.check(20 << 30).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("(25.10 of weights in float32, 2.00 of kept keys") && text.contains("20.00 are available"),
            "{text}"
        );
        assert!(error.is::<Error>(), "another worker may have more");
        assert_eq!(
            needed.check(40 << 30).unwrap(),
            (40 << 30) - needed.weights - needed.work
        );
        let kept_bytes = config.kept_bytes(EvalDtype::Float32);
        check_kept(kept_bytes, 2048, needed.kept).unwrap();
        let error = check_kept(kept_bytes, 4096, needed.kept).unwrap_err();
        assert!(
            error.to_string().contains("4.00 GiB") && error.to_string().contains("2.00 are left"),
            "{error}"
        );
        // On a card in bfloat16: half of everything but the tables, and a whole batch's keys and values.
        let options = EngineOptions {
            dtype: EvalDtype::Bfloat16,
            max_batch_tokens: 8192,
            ..EngineOptions::default()
        };
        let on_a_card = Needed::of(&config, &options, false);
        assert_eq!(on_a_card.weights, 2 * 6_738_415_616 + 4 * 2048 * 128);
        assert_eq!(on_a_card.kept, 4 * 32 * 4096 * 8192);
        let text = on_a_card.check(16 << 30).unwrap_err().to_string();
        assert!(
            text.contains("(12.55 of weights in bfloat16, 4.00 of kept keys"),
            "{text}"
        );
    }
}
