//! One round: the same checkpoint out and back through Fineline and its peers, each into a fresh place.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::place::Place;
use crate::process::{Background, Taken, run};
use crate::rates::{self, Rates, Writing};

/// How long the machine rests before each thing that is timed, so that memory is as fresh for one as for another: where a
/// hypervisor takes back what is not used, a page that was given back just now costs a tenth of one that was so before.
const REST: Duration = Duration::from_secs(15);

/// What one round took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Round {
    pub(crate) rates: Rates,
    /// Of as many bytes as a push writes, and as a pull writes.
    pub(crate) push_writing: Writing,
    pub(crate) pull_writing: Writing,
    pub(crate) raw_bytes: u64,
    pub(crate) push: Taken,
    pub(crate) push_server: Taken,
    pub(crate) pull: Taken,
    pub(crate) pull_server: Taken,
    /// `openssl dgst -sha256` and `cp` with a sync of each file, all files at once.
    pub(crate) copy: Taken,
    pub(crate) backup: Taken,
    pub(crate) restore: Taken,
}

/// Runs everything once.
pub(crate) fn round(bin: &Path, data: &Path, parent: &Path) -> Result<Round> {
    let place = Place::new(parent, "round")?;
    let dir = |name: &str| place.dir().join(name);
    let raw_bytes = size(data)?;
    let rates = rates::measure(data)?;
    settle()?;
    let push_writing = rates::write(&dir("written"), (raw_bytes as f64 * rates.stored) as u64)?;
    settle()?;
    let pull_writing = rates::write(&dir("written"), raw_bytes)?;

    let registry = Registry::start(bin, &dir("registry"))?;
    let before = registry.server.look()?;
    let push = timed(&mut registry.push(data))?;
    let pushed = registry.server.look()?;
    let pull = timed(&mut registry.pull(&dir("pulled")))?;
    let pulled = registry.server.look()?;
    drop(registry);
    ensure_same(data, &dir("pulled"))?;
    fs::remove_dir_all(dir("pulled"))?;
    fs::remove_dir_all(dir("registry"))?;

    let copy = timed(&mut copy(data, &dir("copy")))?;
    fs::remove_dir_all(dir("copy"))?;

    let repository = dir("restic");
    run(&mut restic(&repository, &["init"]))?;
    let shown = data.to_str().context("a path that is no UTF-8")?;
    let backup = timed(&mut restic(&repository, &["backup", shown]))?;
    let restored = dir("restored");
    let to = restored.to_str().context("a path that is no UTF-8")?;
    let restore = timed(&mut restic(&repository, &["restore", "latest", "--target", to]))?;
    Ok(Round {
        rates,
        push_writing,
        pull_writing,
        raw_bytes,
        push,
        push_server: pushed.since(before),
        pull,
        pull_server: pulled.since(pushed),
        copy,
        backup,
        restore,
    })
}

/// The most memory that each end has in a push and a pull of the checkpoint in `data`, which is taken away in between: on a
/// small disk there is no room for it three times.
pub(crate) fn peaks(bin: &Path, data: Place, parent: &Path) -> Result<[(&'static str, u64); 3]> {
    let place = Place::new(parent, "peaks")?;
    let registry = Registry::start(bin, &place.dir().join("registry"))?;
    let push = run(&mut registry.push(data.dir()))?;
    drop(data);
    let pull = run(&mut registry.pull(&place.dir().join("pulled")))?;
    let server = registry.server.look()?;
    Ok([
        ("the pushing client", push.peak_bytes),
        ("the pulling client", pull.peak_bytes),
        ("the server", server.peak_bytes),
    ])
}

/// Runs a program after a rest.
fn timed(command: &mut Command) -> Result<Taken> {
    settle()?;
    run(command)
}

/// Waits until nothing that was written waits for the disk any more, and rests.
fn settle() -> Result<()> {
    run(&mut Command::new("sync"))?;
    std::thread::sleep(REST);
    Ok(())
}

/// A server with an empty run, and its client.
struct Registry {
    server: Background,
    bin: PathBuf,
    dir: PathBuf,
    url: String,
    token: String,
}

impl Registry {
    fn start(bin: &Path, dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir)?;
        let said = dir.join("stdout");
        let mut serve = Command::new(bin.join("fineline-registry"));
        serve.args(["serve", "--listen", "127.0.0.1:0", "--evaluator", "off", "--data"]);
        serve.arg(dir).stdout(File::create(&said)?).stderr(Stdio::null());
        let mut server = Background::start(&mut serve)?;
        let url = server.wait_for(|| {
            let text = fs::read_to_string(&said).ok()?;
            let url = text.split_whitespace().find(|word| word.starts_with("http://"))?;
            Some(url.trim_end_matches(|end: char| !end.is_ascii_digit()).to_owned())
        })?;
        let registry = Self {
            server,
            bin: bin.to_owned(),
            dir: dir.to_owned(),
            url,
            token: fs::read_to_string(dir.join("admin.token"))?.trim().to_owned(),
        };
        run(&mut registry.client(&["run", "create", "lab/bench"]))?;
        Ok(registry)
    }

    fn client(&self, arguments: &[&str]) -> Command {
        let mut client = Command::new(self.bin.join("fineline"));
        client.args(arguments).env("FINELINE_URL", &self.url);
        client.env("FINELINE_TOKEN", &self.token);
        client.env("FINELINE_CONFIG", self.dir.join("client.toml"));
        client
    }

    fn push(&self, data: &Path) -> Command {
        let mut push = self.client(&["push", "lab/bench", "1"]);
        push.arg(data);
        push
    }

    fn pull(&self, to: &Path) -> Command {
        let mut pull = self.client(&["pull", "lab/bench@1"]);
        pull.arg(to);
        pull
    }
}

fn copy(from: &Path, to: &Path) -> Command {
    let script = r#"
        mkdir -p "$2"
        for file in "$1"/*; do
            (openssl dgst -sha256 "$file" >/dev/null & cp "$file" "$2/" && sync "$2/${file##*/}" && wait) &
        done
        wait"#;
    let mut copy = Command::new("sh");
    copy.args(["-c", script, "copy"]).arg(from).arg(to);
    copy
}

fn restic(repository: &Path, arguments: &[&str]) -> Command {
    let mut restic = Command::new("restic");
    restic
        .args(["--quiet", "--no-cache", "--repo"])
        .arg(repository)
        .args(arguments);
    restic.env("RESTIC_PASSWORD", "bench").stderr(Stdio::null());
    restic
}

fn ensure_same(a: &Path, b: &Path) -> Result<()> {
    for entry in fs::read_dir(a)? {
        let name = entry?.file_name();
        let status = Command::new("cmp").arg(a.join(&name)).arg(b.join(&name)).status()?;
        ensure!(status.success(), "`{}` was pulled as something else", name.display());
    }
    Ok(())
}

fn size(dir: &Path) -> Result<u64> {
    let sizes = fs::read_dir(dir)?.map(|entry| Ok(entry?.metadata()?.len()));
    sizes.sum()
}
