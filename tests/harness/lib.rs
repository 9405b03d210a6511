//! What the integration tests share: a server on a free port with a data folder of its own, clients with chosen tokens,
//! and small checkpoints.

mod bucket;
mod database;
mod engine;
mod garage;
mod kill;
mod process;
mod proxy;
mod tiny_llama;

use std::path::{Path, PathBuf};

use fineline_api::{ClaimEvaluation, CreateToken, RunName, Scope};
use fineline_client::Client;
use fineline_evaluator::device::Wanted;
use fineline_evaluator::stop::Stop;
use fineline_evaluator::worker::{LoadEngine, WorkerOptions, run_with};
use fineline_registry::serve::{RunningServer, ServeOptions, start};
use tempfile::TempDir;

pub use bucket::Bucket;
pub use database::postgres_of;
pub use engine::{FakeEngine, engine_suite, load_fake};
pub use garage::{Garage, garage};
pub use kill::{HOLD_AT, KILL_AT, STOP_AT, arm_fail_points, die_at_fail_point};
pub use process::{ServerProcess, Start, environment, wait};
pub use proxy::{Cut, Exchange, Proxy};
pub use tiny_llama::{grammar_suite, tiny_llama};

/// A server that ends with the test.
#[derive(Debug)]
pub struct TestServer {
    /// The running server.
    pub server: RunningServer,
    /// Its data folder.
    pub dir: TempDir,
    /// A client with the administrator's token.
    pub admin: Client,
}

/// Starts a server.
pub async fn serve() -> TestServer {
    serve_with(|_| {}).await
}

/// Starts a server with other options than usual.
pub async fn serve_with(change: impl FnOnce(&mut ServeOptions)) -> TestServer {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut options = options_of(dir.path());
    change(&mut options);
    let server = start(options).await.expect("the server starts");
    let admin = Client::new(&server.url, Some(&server.admin_token)).expect("a client");
    TestServer { server, dir, admin }
}

/// How a server is started on a data folder, with the folder's database on the engine that the tests run on.
pub fn options_of(data: &Path) -> ServeOptions {
    ServeOptions {
        database: postgres_of(data),
        ..ServeOptions::local(data)
    }
}

impl TestServer {
    /// The secret of a new token.
    pub async fn token(&self, scopes: &[Scope], pattern: &str) -> String {
        let new = CreateToken {
            name: "test".to_owned(),
            scopes: scopes.to_vec(),
            pattern: pattern.parse().expect("a pattern"),
            expires_in_s: None,
        };
        self.admin.create_token(&new).await.expect("a token").secret
    }

    /// A client with a new token.
    pub async fn client(&self, scopes: &[Scope], pattern: &str) -> Client {
        Client::new(&self.server.url, Some(&self.token(scopes, pattern).await)).expect("a client")
    }

    /// A new run.
    pub async fn run(&self, name: &str) -> RunName {
        let name: RunName = name.parse().expect("a run's name");
        self.admin.create_run(&name, &Default::default()).await.expect("a run");
        name
    }

    /// A worker of all runs that works until there is no work.
    pub async fn work(&self, load: LoadEngine) {
        self.worked(load, None).await;
    }

    /// The same, with checkpoints kept in `cache`.
    pub async fn work_with_cache(&self, load: LoadEngine, cache: &Path) {
        self.worked(load, Some(cache.to_owned())).await;
    }

    async fn worked(&self, load: LoadEngine, cache: Option<PathBuf>) {
        let options = WorkerOptions {
            cache,
            ..self.worker_options().await
        };
        run_with(options, load, Stop::never()).await.expect("the worker works");
    }

    /// What a worker of all runs is told that works until there is no work.
    pub async fn worker_options(&self) -> WorkerOptions {
        WorkerOptions {
            server: self.server.url.clone(),
            token: self.token(&[Scope::Evaluate], "*").await,
            device: Wanted::Cpu,
            name: Some("w".to_owned()),
            scratch: None,
            cache: None,
            cache_gib: 1,
            batch_tokens: Some(4096),
            once: true,
            drain_timeout_s: 30,
            metrics: None,
        }
    }
}

/// What a worker asks for that can do all that [`checkpoint`]s and [`suite`]s need, and doesn't wait.
pub fn claim() -> ClaimEvaluation {
    ClaimEvaluation {
        worker: "w".to_owned(),
        device: "cpu".to_owned(),
        memory_bytes: 1 << 30,
        dtypes: vec!["float32".to_owned()],
        architectures: vec!["LlamaForCausalLM".to_owned()],
        wait_s: 0,
        claim_id: None,
        harness_version: None,
    }
}

/// Writes a checkpoint with one tensor of `n` bf16 values that follow from `seed`; with config and tokenizer files that
/// make it evaluable (no engine could load it).
pub fn checkpoint(parent: &Path, name: &str, n: usize, seed: u32) -> PathBuf {
    let dir = parent.join(name);
    std::fs::create_dir_all(&dir).expect("a folder");
    let header = format!(
        r#"{{"w":{{"dtype":"BF16","shape":[{n}],"data_offsets":[0,{}]}}}}"#,
        2 * n
    );
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    let mut state = seed.wrapping_mul(2) | 1;
    for _ in 0..n {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        bytes.extend(&state.to_le_bytes()[..2]);
    }
    std::fs::write(dir.join("model.safetensors"), bytes).expect("weights");
    std::fs::write(dir.join("config.json"), r#"{"architectures":["LlamaForCausalLM"]}"#).expect("a config");
    std::fs::write(dir.join("tokenizer.json"), "{}").expect("a tokenizer");
    dir
}

/// Writes a suite of one task `tiny` with three multiple-choice documents; gives the suite's path.
pub fn suite(dir: &Path) -> PathBuf {
    suite_about(dir, "x")
}

/// The YAML of the suites' one task.
pub const TASK: &str = "task: tiny\ndataset_path: json\ndataset_kwargs: {data_files: {test: docs.jsonl}}\n\
    output_type: multiple_choice\ntest_split: test\ndoc_to_text: q\ndoc_to_target: gold\ndoc_to_choice: [a, bb]\n";

/// The documents of a suite that asks about `subject`.
pub fn documents_about(subject: &str) -> String {
    let document = |gold: u8| format!("{{\"q\": \"{subject}\", \"gold\": {gold}}}\n");
    [0, 0, 1].map(document).concat()
}

/// Writes the same suite about another subject, which makes it another suite.
pub fn suite_about(dir: &Path, subject: &str) -> PathBuf {
    std::fs::write(dir.join("tiny.yaml"), TASK).expect("a task");
    std::fs::write(dir.join("docs.jsonl"), documents_about(subject)).expect("documents");
    let file = dir.join("suite.yaml");
    std::fs::write(&file, "suite: s\ntasks: [tiny.yaml]\n").expect("a suite");
    file
}

/// Waits until something is so; fails the test when it is not within 30 seconds.
pub async fn until(mut is_so: impl AsyncFnMut() -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while !is_so().await {
        assert!(std::time::Instant::now() < deadline, "it did not come about in time");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}
