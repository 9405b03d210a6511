//! Leases under faults: the real worker is killed, stopped, cut off and set to a wrong time, and what comes of an evaluation
//! is each time what comes of it undisturbed.

mod answers;
mod clock;
mod embedded;
mod killed;
mod parked;
mod race;
mod stale;
mod stopped;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use fineline_api::{Evaluation, EvaluationState, EventKind, RunName, Scope};
use fineline_client::{EvaluationQuery, PushOptions, ScoreQuery, apply_suite, push};
use fineline_registry::serve::LeaseOptions;
use harness::{TestServer, grammar_suite, serve_with, tiny_llama};
use tokio::sync::Mutex;
use tokio::time::Instant;

/// As short as workers on a busy machine can keep.
const SHORT: LeaseOptions = LeaseOptions {
    ttl_s: 2,
    back_off_s: 0,
};

/// What must happen happens within this.
const DEADLINE: Duration = Duration::from_secs(120);

/// A server with a suite of real tasks that is bound to every run, and a model that the real engine computes.
struct Stage {
    server: TestServer,
    suite: PathBuf,
    model: PathBuf,
    tasks: Vec<String>,
    /// By namespace: its workers share one, as a fleet does, so that only their leases tell them apart.
    tokens: Mutex<BTreeMap<String, String>>,
}

/// Everything that an evaluation leaves behind.
#[derive(Debug, Clone, PartialEq)]
struct Outcome {
    state: EvaluationState,
    /// (task, metric, bits of the value, bits of the error, samples)
    scores: Vec<(String, String, u64, Option<u64>, u64)>,
    logs: BTreeMap<String, Vec<u8>>,
    /// How often its end was told.
    n_ends: usize,
}

impl Stage {
    async fn new(lease: LeaseOptions) -> Self {
        let server = serve_with(|options| options.lease = lease).await;
        let (suite, tasks) = grammar_suite(server.dir.path(), 6);
        let model = tiny_llama(server.dir.path(), "model", 7);
        let stage = Self {
            server,
            suite,
            model,
            tasks,
            tokens: Mutex::default(),
        };
        stage.bind().await;
        stage
    }

    async fn bind(&self) {
        let everywhere = "*".parse().unwrap();
        apply_suite(&self.server.admin, &self.suite, &everywhere, false)
            .await
            .unwrap();
    }

    /// Pushes the model to a run of its own namespace, which queues an evaluation that only that namespace's workers take.
    async fn queue(&self, namespace: &str) -> RunName {
        self.queue_as(&format!("{namespace}/run"), &self.model).await
    }

    async fn queue_as(&self, run: &str, model: &Path) -> RunName {
        let run = self.server.run(run).await;
        let options = PushOptions::default();
        push(&self.server.admin, &run, 1, model, &options, |_| {})
            .await
            .unwrap();
        run
    }

    /// The command of a real worker that takes what is queued in the run's namespace.
    async fn worker(&self, url: &str, run: &RunName) -> Command {
        let mut tokens = self.tokens.lock().await;
        let token = match tokens.get(run.namespace()) {
            Some(token) => token.clone(),
            None => {
                self.server
                    .token(&[Scope::Evaluate], &format!("{}/*", run.namespace()))
                    .await
            }
        };
        tokens.insert(run.namespace().to_owned(), token.clone());
        let mut command = Command::new(env!("CARGO_BIN_EXE_worker-under-test"));
        command
            .args(["--server", url, "--name", "w"])
            .env("FINELINE_TOKEN", token);
        command.stderr(Stdio::null());
        command
    }

    async fn start(&self, run: &RunName, environment: &[(&str, &str)]) -> Process {
        let mut command = self.worker(&self.server.server.url, run).await;
        Process(command.envs(environment.iter().copied()).spawn().unwrap())
    }

    async fn evaluation(&self, run: &RunName) -> Evaluation {
        let query = EvaluationQuery {
            run: Some(run.clone()),
            ..EvaluationQuery::default()
        };
        let list = self.server.admin.list_evaluations(&query, None, None).await.unwrap();
        assert_eq!(list.items.len(), 1, "one model is evaluated once");
        list.items.into_iter().next().unwrap()
    }

    /// Waits until the run's evaluation is as wanted.
    async fn until(&self, run: &RunName, wanted: impl Fn(&Evaluation) -> bool) -> Evaluation {
        until(async || Some(self.evaluation(run).await).filter(|now| wanted(now))).await
    }

    /// Has a worker do what is left, and gives what came of it.
    async fn finish(&self, run: &RunName) -> Outcome {
        let _worker = self.start(run, &[]).await;
        self.until(run, |now| now.state == EvaluationState::Done).await;
        self.outcome(run).await
    }

    async fn outcome(&self, run: &RunName) -> Outcome {
        let (admin, evaluation) = (&self.server.admin, self.evaluation(run).await);
        let query = ScoreQuery::default();
        let scores = admin.list_scores(run, &query, None, Some(1000)).await.unwrap().items;
        let scores = scores.into_iter().map(|score| {
            let (value, stderr) = (score.value.to_bits(), score.stderr.map(f64::to_bits));
            (score.task, score.metric, value, stderr, score.n)
        });
        let mut logs = BTreeMap::new();
        for task in &self.tasks {
            if let Ok(log) = admin.get_samples(evaluation.id, task).await {
                logs.insert(task.clone(), log.to_vec());
            }
        }
        let events = admin.list_events(run, 0, 0, None).await.unwrap();
        let ends = [EventKind::EvaluationDone, EventKind::EvaluationEnded];
        Outcome {
            state: evaluation.state,
            scores: scores.collect(),
            logs,
            n_ends: events.iter().filter(|event| ends.contains(&event.kind)).count(),
        }
    }

    /// What comes of an evaluation that nothing disturbs.
    async fn undisturbed(&self) -> Outcome {
        let run = self.queue("calm").await;
        let outcome = self.finish(&run).await;
        assert_eq!(self.evaluation(&run).await.n_expiries, 0);
        assert_eq!((outcome.logs.len(), outcome.n_ends), (self.tasks.len(), 1));
        assert!(outcome.scores.len() >= self.tasks.len(), "{outcome:?}");
        outcome
    }
}

/// A process that ends with the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Process {
    async fn ended(&mut self) -> ExitStatus {
        until(async || self.0.try_wait().unwrap()).await
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let id = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(id, signal).unwrap();
    }

    /// Whether it is stopped, by the kernel's word.
    fn is_stopped(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id())).unwrap();
        stat.rsplit_once(") ").unwrap().1.starts_with('T')
    }
}

/// Asks until there is an answer, and fails at the deadline.
async fn until<T>(mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "it did not happen within {DEADLINE:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
