//! The rates of the work that can't be left out, on all cores at once and in core-seconds: what other programs take from
//! the machine meanwhile does not count.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result};
use fineline_format::frame::{Decoder, Encoder};
use fineline_format::{Element, MAX_CHUNK_BYTES};

/// Chunks that each core works on.
const N_CHUNKS: usize = 8;

/// What plain writing costs for a byte, with fsync and in as large an amount as is compared with it: how much of the memory that
/// the file cache takes is fresh decides most of it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Writing {
    /// Core-seconds.
    pub(crate) cpu: f64,
    /// Seconds of all writers together.
    pub(crate) wall: f64,
}

/// The work of a push or a pull that can't be left out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limit {
    /// On all cores together.
    pub(crate) core_s: f64,
    /// On all cores at once, or what writing takes, whichever is longer.
    pub(crate) wall_s: f64,
}

/// Core-seconds for a byte of each kind of work.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Rates {
    pub(crate) n_cores: usize,
    /// For a raw byte.
    pub(crate) sha256: f64,
    pub(crate) encode: f64,
    pub(crate) decode: f64,
    /// For a byte out of the file cache.
    pub(crate) read: f64,
    /// Bytes of frames for a raw byte.
    pub(crate) stored: f64,
}

impl Rates {
    /// What a push of `raw` bytes can't go below.
    pub(crate) fn push(&self, raw: f64, writing: Writing) -> Limit {
        // Client: read, hash as chunk and as file, encode. Server: decode, hash; read back, decode, hash.
        let cpu = self.read + 2.0 * self.sha256 + self.encode + self.decode + self.sha256;
        let cpu = cpu + self.stored * self.read + self.decode + self.sha256;
        self.limit(raw, cpu, self.stored, writing)
    }

    /// What a pull of `raw` bytes can't go below.
    pub(crate) fn pull(&self, raw: f64, writing: Writing) -> Limit {
        // Server: read. Client: decode, hash, write.
        let cpu = self.stored * self.read + self.decode + self.sha256;
        self.limit(raw, cpu, 1.0, writing)
    }

    fn limit(&self, raw: f64, cpu: f64, written: f64, writing: Writing) -> Limit {
        let core_s = raw * (cpu + written * writing.cpu);
        Limit {
            core_s,
            wall_s: (core_s / self.n_cores as f64).max(raw * written * writing.wall),
        }
    }
}

/// Measures all rates of work with chunks of the checkpoint in `data`.
pub(crate) fn measure(data: &Path) -> Result<Rates> {
    let n_cores = n_cores();
    let shard = fs::read_dir(data)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "safetensors"))
        .context("no shard")?;
    let worked = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..n_cores).map(|_| scope.spawn(|| work(&shard))).collect();
        let worked = workers
            .into_iter()
            .map(|worker| worker.join().map_err(|_| anyhow::anyhow!("a worker panicked"))?);
        worked.collect::<Result<Vec<_>>>()
    })?;
    let mean = |of: fn(&Rates) -> f64| worked.iter().map(of).sum::<f64>() / n_cores as f64;
    Ok(Rates {
        n_cores,
        sha256: sha256(n_cores)?,
        encode: mean(|rates| rates.encode),
        decode: mean(|rates| rates.decode),
        read: mean(|rates| rates.read),
        stored: mean(|rates| rates.stored),
    })
}

/// `openssl speed` on all cores at once: core-seconds for a byte. One program a core, since with its own `-multi` it counts
/// the time that other programs take too.
fn sha256(n_cores: usize) -> Result<f64> {
    let start = || {
        let mut command = Command::new("openssl");
        command.args(["speed", "-seconds", "1", "-bytes", "1048576", "-evp", "sha256"]);
        command
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("openssl")
    };
    let running: Vec<_> = (0..n_cores).map(|_| start()).collect::<Result<_>>()?;
    let mut core_s = 0.0;
    for child in running {
        let text = String::from_utf8_lossy(&child.wait_with_output()?.stdout).into_owned();
        let rate = text
            .split_whitespace()
            .rev()
            .find_map(|word| word.strip_suffix('k')?.parse::<f64>().ok());
        core_s += 1.0 / (1000.0 * rate.with_context(|| format!("openssl said {text}"))?);
    }
    Ok(core_s / n_cores as f64)
}

/// Writes so many bytes below `to` with fsync, a file for each core, and takes them away again.
pub(crate) fn write(to: &Path, n_bytes: u64) -> Result<Writing> {
    fs::create_dir_all(to)?;
    let n_cores = n_cores() as u64;
    let write = |writer: u64| {
        let piece: Vec<u8> = (0..MAX_CHUNK_BYTES).map(|at| (at % 251) as u8).collect();
        let mut file = File::create(to.join(writer.to_string()))?;
        cpu_s(|| {
            let mut left = usize::try_from(n_bytes / n_cores).map_err(std::io::Error::other)?;
            while left > 0 {
                let n = left.min(piece.len());
                file.write_all(&piece[..n])?;
                left -= n;
            }
            file.sync_all()
        })
    };
    let begun = Instant::now();
    let cpu_s = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..n_cores).map(|writer| scope.spawn(move || write(writer))).collect();
        let written = writers
            .into_iter()
            .map(|writer| writer.join().map_err(|_| anyhow::anyhow!("a writer panicked"))?);
        written.sum::<Result<f64>>()
    })?;
    let wall_s = begun.elapsed().as_secs_f64();
    fs::remove_dir_all(to)?;
    Ok(Writing {
        cpu: cpu_s / n_bytes as f64,
        wall: wall_s / n_bytes as f64,
    })
}

fn n_cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn work(shard: &Path) -> Result<Rates> {
    let mut file = File::open(shard)?;
    let (mut chunk, mut frame, mut stored) = (vec![0; MAX_CHUNK_BYTES], Vec::new(), 0);
    let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new());
    let mut rates = Rates::default();
    for n in 0..=N_CHUNKS {
        // The first time everything that is used again is fresh, and is not counted.
        let counted = if n == 0 { 0.0 } else { 1.0 };
        rates.read += counted * cpu_s(|| file.read_exact(&mut chunk))?;
        rates.encode += counted
            * cpu_s(|| {
                encoder.encode(&chunk, Element::Bf16, &mut frame);
                Ok(())
            })?;
        let mut last = 0;
        rates.decode += counted
            * cpu_s(|| {
                let decoded = decoder.decode(&frame, |piece| last ^= piece[0]);
                decoded.map(drop).map_err(std::io::Error::other)
            })?;
        std::hint::black_box(last);
        stored += frame.len();
    }
    let raw = (N_CHUNKS * MAX_CHUNK_BYTES) as f64;
    Ok(Rates {
        encode: rates.encode / raw,
        decode: rates.decode / raw,
        read: rates.read / raw,
        stored: stored as f64 / ((N_CHUNKS + 1) * MAX_CHUNK_BYTES) as f64,
        ..rates
    })
}

/// The processor time of this thread for `work`.
fn cpu_s(work: impl FnOnce() -> std::io::Result<()>) -> Result<f64> {
    let before = thread_s()?;
    work()?;
    Ok(thread_s()? - before)
}

fn thread_s() -> Result<f64> {
    let text = fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanoseconds: f64 = text.split_whitespace().next().context("no schedstat")?.parse()?;
    Ok(nanoseconds / 1e9)
}
