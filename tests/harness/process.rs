//! The real programs as processes: a server that can be armed to die, and commands that are waited for.

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::database::postgres_of;
use crate::kill::KILL_AT;

/// The longest that anything here is waited for.
const PATIENCE: Duration = Duration::from_secs(120);

/// `fineline-registry serve` as a process of its own, which ends with this.
#[derive(Debug)]
pub struct ServerProcess {
    child: Child,
    /// Where it listens.
    pub url: String,
    /// Its data folder.
    pub data: PathBuf,
}

/// How a server is started.
#[derive(Debug, Clone, Copy, Default)]
pub struct Start<'a> {
    /// The fail point at which it dies.
    pub kill_at: Option<&'a str>,
    /// Further arguments.
    pub arguments: &'a [&'a str],
    /// Further variables.
    pub environment: &'a [(String, String)],
    /// The port of a server before it; a free one when absent.
    pub port: Option<u16>,
}

impl ServerProcess {
    /// Starts `program` on a data folder and waits until it listens; `Err` when it ended before that.
    pub fn start(program: &str, data: &Path, how: Start<'_>) -> Result<Self, ExitStatus> {
        let listen = format!("127.0.0.1:{}", how.port.unwrap_or(0));
        std::fs::create_dir_all(data).expect("a data folder");
        let mut command = Command::new(program);
        command
            .args(["serve", "--listen", &listen, "--evaluator", "off", "--data"])
            .arg(data);
        command.args(how.arguments).envs(environment(data));
        command.envs(how.environment.iter().cloned());
        if let Some(point) = how.kill_at {
            command.env(KILL_AT, point);
        }
        let log = std::fs::File::options()
            .append(true)
            .create(true)
            .open(data.join("server.log"));
        command.stderr(log.expect("a log")).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let mut line = String::new();
        let stdout = child.stdout.as_mut().expect("it is piped");
        BufReader::new(stdout).read_line(&mut line).expect("its output is text");
        match line.trim().strip_prefix("listening on ") {
            Some(url) => Ok(Self {
                child,
                url: url.to_owned(),
                data: data.to_owned(),
            }),
            None => Err(child.wait().expect("it was started")),
        }
    }

    /// The administrator's token.
    pub fn token(&self) -> String {
        let token = std::fs::read_to_string(self.data.join("admin.token")).expect("the first token");
        token.trim().to_owned()
    }

    /// Its port, for one that comes after it.
    pub fn port(&self) -> u16 {
        let port = self.url.rsplit(':').next().expect("an address has a port");
        port.parse().expect("a port is a number")
    }

    /// Waits until it died at its fail point.
    ///
    /// # Panics
    /// When it does not within two minutes, or ended otherwise.
    pub fn wait_for_death(mut self) {
        let status = wait(&mut self.child);
        assert_eq!(status.signal(), Some(9), "the server ended with {status}");
    }

    /// Ends it as `kill -9` does.
    pub fn kill(mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it was started");
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        // It may have ended before.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// What a program of the registry is told that works on a data folder.
pub fn environment(data: &Path) -> Vec<(&'static str, String)> {
    let mut environment = vec![("FINELINE_LOG", "warn".to_owned())];
    environment.extend(postgres_of(data).map(|url| ("FINELINE_DATABASE", url)));
    environment
}

/// Waits for a process that should end.
///
/// # Panics
/// When it does not within two minutes.
pub fn wait(child: &mut Child) -> ExitStatus {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("it was started") {
            return status;
        }
        if begun.elapsed() > PATIENCE {
            child.kill().ok();
            panic!("the process does not end");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
