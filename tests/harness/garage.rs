//! A Garage (an S3 server) for the tests of one process: one node on free ports with a folder of its own, which ends with
//! the process, however that ends. Tests keep apart by prefixes of the one bucket.
//!
//! The program is found by `$GARAGE`, in `$PATH` or where cargo installs; without it tests skip and say so.

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// The one bucket.
const BUCKET: &str = "ckpt";
const ACCESS_KEY: &str = "GK0123456789abcdef01234567";
const SECRET_KEY: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const PATIENCE: Duration = Duration::from_secs(60);

/// Ends the server and takes its folder away once nobody holds the other end of its standard input.
const GUARD: &str = r#"
"$0" -c "$1/garage.toml" server --single-node --default-bucket >"$1/log" 2>&1 </dev/null &
child=$!
cat >/dev/null
kill -9 $child
wait $child
rm -rf "$1"
"#;

/// A Garage that runs.
#[derive(Debug)]
pub struct Garage {
    /// `http://ADDRESS`.
    pub endpoint: String,
    /// Holds the other end of the guard's standard input.
    _guard: Child,
}

/// The Garage of this process; `None` when there is no program for it, which is then told as a skip of `part`.
pub fn garage(part: &str) -> Option<&'static Garage> {
    static GARAGE: OnceLock<Option<Garage>> = OnceLock::new();
    let garage = GARAGE.get_or_init(|| program().map(|program| Garage::start(&program)));
    if garage.is_none() {
        // Also where a test's own output is kept back: what did not run is told.
        let why = "there is no garage: set GARAGE, or `cargo install garage --version 2.5.0 --locked \
            --no-default-features --features bundled-libs,sqlite`";
        writeln!(std::io::stdout(), "skipped: {part}: {why}").expect("there is a standard output");
    }
    garage.as_ref()
}

fn program() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("GARAGE").filter(|named| !named.is_empty()) {
        return Some(named.into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let installed = std::env::home_dir().map(|home| home.join(".cargo/bin"));
    std::env::split_paths(&path)
        .chain(installed)
        .map(|dir| dir.join("garage"))
        .find(|program| program.is_file())
}

impl Garage {
    fn start(program: &Path) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder").keep();
        let (rpc, s3) = (free_address(), free_address());
        let data = dir.display();
        let config = format!(
            "metadata_dir = \"{data}/meta\"\ndata_dir = \"{data}/data\"\ndb_engine = \"sqlite\"\nreplication_factor = 1\n\
             rpc_bind_addr = \"{rpc}\"\nrpc_secret = \"{SECRET_KEY}\"\n\
             [s3_api]\ns3_region = \"garage\"\napi_bind_addr = \"{s3}\"\n"
        );
        fs::write(dir.join("garage.toml"), config).expect("a configuration");
        let mut guard = Command::new("sh");
        guard.arg("-c").arg(GUARD).arg(program).arg(&dir);
        guard
            .env("GARAGE_DEFAULT_ACCESS_KEY", ACCESS_KEY)
            .env("GARAGE_DEFAULT_SECRET_KEY", SECRET_KEY)
            .env("GARAGE_DEFAULT_BUCKET", BUCKET)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let guard = guard.spawn().expect("a shell");
        let begun = Instant::now();
        // The bucket is made some time after the port is open.
        while !has_bucket(program, &dir) {
            let log = || fs::read_to_string(dir.join("log")).unwrap_or_default();
            assert!(begun.elapsed() < PATIENCE, "garage does not start: {}", log());
            std::thread::sleep(Duration::from_millis(50));
        }
        Self {
            endpoint: format!("http://{s3}"),
            _guard: guard,
        }
    }

    /// The variables by which a registry finds it.
    pub fn variables(&self) -> Vec<(String, String)> {
        let variables = [
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
            ("AWS_REGION", "garage"),
            ("AWS_ENDPOINT_URL", &self.endpoint),
        ];
        variables
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into()
    }

    /// A store that nobody else has: the bucket under that prefix.
    pub fn store(&self, prefix: &str) -> String {
        format!("s3://{BUCKET}/{prefix}")
    }
}

fn has_bucket(program: &Path, dir: &Path) -> bool {
    let mut info = Command::new(program);
    info.arg("-c")
        .arg(dir.join("garage.toml"))
        .args(["bucket", "info", BUCKET]);
    info.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    info.status().is_ok_and(|status| status.success())
}

fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("it is bound").to_string()
}
