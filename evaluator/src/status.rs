//! How far an evaluation is: what its heartbeats say, and by what the worker claims the next one.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fineline_api::Progress;
use fineline_format::task::OutputType;

use crate::engine::Done;
use crate::task::PreparedTask;

/// What is known of an evaluation in the making.
#[derive(Debug, Default)]
pub(crate) struct Status {
    /// What heartbeats say.
    pub(crate) progress: Progress,
    /// How long it took to fetch and load the checkpoint; none until it computes.
    pub(crate) preparation: Option<Duration>,
    /// How long it goes on, where that is known: what is left of the task at hand goes on as it began, and later tasks take a
    /// request what the slowest of their kind took so far. A kind of which nothing was computed yet may take any time.
    pub(crate) ends_in: Option<Duration>,
}

/// A status that several look at.
#[derive(Debug, Clone, Default)]
pub(crate) struct SharedStatus(Arc<Mutex<Status>>);

impl SharedStatus {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Status> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Requests of one kind: what takes about the same time.
#[derive(Debug, Clone, Copy)]
struct Requests {
    kind: OutputType,
    n: u64,
}

impl Requests {
    fn of(task: &PreparedTask) -> Self {
        Self {
            kind: task.output_type(),
            n: task.n_requests(),
        }
    }
}

/// Keeps an evaluation's status as it is computed.
#[derive(Debug, Clone)]
pub(crate) struct Meter {
    status: SharedStatus,
    /// When it began to compute.
    begun: Instant,
    /// The task at hand, and when it began.
    task: Option<(String, Requests, Instant)>,
    later: Vec<Requests>,
    /// Seconds that a request of each kind took in the slowest task so far.
    slowest: Vec<(OutputType, f64)>,
    /// Requests of the tasks that an earlier lease did.
    n_scored: u64,
    /// Requests of the tasks before this one, whoever did them.
    n_before: u64,
    /// Tokens computed for the tasks before this one.
    n_tokens_before: u64,
    n_total: u64,
}

impl Meter {
    /// Of an evaluation of which an earlier lease did `scored`, and which goes on with `tasks`.
    pub(crate) fn new(status: SharedStatus, scored: &[PreparedTask], tasks: &[PreparedTask]) -> Self {
        let sum = |tasks: &[PreparedTask]| tasks.iter().map(PreparedTask::n_requests).sum();
        let n_scored: u64 = sum(scored);
        let n_tasks: u64 = sum(tasks);
        let meter = Self {
            status,
            begun: Instant::now(),
            task: None,
            later: tasks.iter().map(Requests::of).collect(),
            slowest: Vec::new(),
            n_scored,
            n_before: n_scored,
            n_tokens_before: 0,
            n_total: n_scored + n_tasks,
        };
        meter.say(Done::default());
        meter
    }

    /// The model is there, after so long.
    pub(crate) fn loaded(&mut self, preparation: Duration) {
        self.begun = Instant::now();
        self.status.lock().preparation = Some(preparation);
    }

    /// The next task begins.
    pub(crate) fn begin(&mut self, task: &PreparedTask) {
        self.task = Some((task.name().to_owned(), Requests::of(task), Instant::now()));
        self.later.remove(0);
    }

    /// The task at hand is so far.
    pub(crate) fn say(&self, done: Done) {
        let n_done = self.n_before + done.n_requests;
        let (n_mine, n_tokens) = (n_done - self.n_scored, self.n_tokens_before + done.n_tokens);
        let seconds = self.begun.elapsed().as_secs_f64();
        let left_s = (self.n_total - n_done) as f64 * seconds / n_mine as f64;
        let mut status = self.status.lock();
        status.progress = Progress {
            task: self.task.as_ref().map(|(name, ..)| name.clone()),
            n_done,
            n_total: self.n_total,
            tokens_per_s: (n_tokens > 0).then(|| n_tokens as f64 / seconds),
            eta_s: (n_mine > 0).then_some(left_s as u64),
            ahead: false,
        };
        status.ends_in = self.ends_in(done.n_requests);
    }

    /// The task at hand is done, and its scores are stored.
    pub(crate) fn end(&mut self, n_tokens: u64) {
        if let Some((_, requests, begun)) = self.task.take() {
            self.slowest = self.slower(requests.kind, begun, requests.n);
            self.n_before += requests.n;
        }
        self.n_tokens_before += n_tokens;
    }

    /// How long all goes on when so many requests of the task at hand are done.
    fn ends_in(&self, n_done: u64) -> Option<Duration> {
        let &(_, requests, begun) = self.task.as_ref()?;
        if n_done == 0 {
            return None;
        }
        let own = requests.n.saturating_sub(n_done) as f64 * begun.elapsed().as_secs_f64() / n_done as f64;
        let slowest = self.slower(requests.kind, begun, n_done);
        let of_kind = |wanted: OutputType| slowest.iter().find(|(kind, _)| *kind == wanted);
        let later = self
            .later
            .iter()
            .map(|later| Some(of_kind(later.kind)?.1 * later.n as f64));
        Duration::try_from_secs_f64(own + later.sum::<Option<f64>>()?).ok()
    }

    /// The slowest of each kind with a task that began then and did so many.
    fn slower(&self, kind: OutputType, begun: Instant, n_done: u64) -> Vec<(OutputType, f64)> {
        let seconds = begun.elapsed().as_secs_f64() / n_done.max(1) as f64;
        let mut slowest = self.slowest.clone();
        match slowest.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, most)) => *most = most.max(seconds),
            None => slowest.push((kind, seconds)),
        }
        slowest
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;
    use crate::task::Overrides;

    fn task(name: &str, output_type: &str, n: usize) -> PreparedTask {
        let mut yaml = json!({
            "task": name, "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": "t.jsonl"}},
            "test_split": "test", "output_type": output_type, "doc_to_text": "q", "doc_to_target": "q",
        });
        if output_type == "generate_until" {
            yaml["generation_kwargs"] = json!({"until": ["\n"]});
        }
        let documents: Vec<String> = (0..n).map(|i| json!({"q": format!("{i}")}).to_string()).collect();
        let data = BTreeMap::from([("test".to_owned(), vec![documents.join("\n").into_bytes()])]);
        PreparedTask::new(&yaml.to_string(), &data, Overrides::default()).unwrap()
    }

    fn done(n_requests: u64) -> Done {
        Done {
            n_requests,
            n_tokens: n_requests,
        }
    }

    /// Lets a task look as if it had begun so long ago.
    fn pass(meter: &mut Meter, seconds: u64) {
        let (_, _, begun) = meter.task.as_mut().unwrap();
        *begun -= Duration::from_secs(seconds);
    }

    #[test]
    fn the_end_is_known_once_every_kind_of_task_was_seen() {
        let tasks = [
            task("a", "loglikelihood", 10),
            task("b", "loglikelihood", 20),
            task("c", "generate_until", 4),
            task("d", "loglikelihood", 10),
        ];
        let status = SharedStatus::default();
        let mut meter = Meter::new(status.clone(), &[], &tasks);
        let ends_in = || status.lock().ends_in.map(|time| time.as_secs());
        meter.loaded(Duration::from_secs(3));
        assert_eq!(status.lock().preparation, Some(Duration::from_secs(3)));

        meter.begin(&tasks[0]);
        pass(&mut meter, 10);
        meter.say(done(5));
        assert_eq!(ends_in(), None, "nobody knows how long a text takes to generate");
        meter.end(5);

        meter.begin(&tasks[1]);
        meter.end(20);
        meter.begin(&tasks[2]);
        meter.say(done(0));
        assert_eq!(ends_in(), None);
        pass(&mut meter, 40);
        meter.say(done(2));
        // Another 40 s for the rest of it; then ten, as slow as the ten of the first task: 10 s.
        assert_eq!(ends_in(), Some(50));
        meter.end(2);

        meter.begin(&tasks[3]);
        pass(&mut meter, 100);
        meter.say(done(8));
        assert_eq!(ends_in(), Some(25));
        let progress = status.lock().progress.clone();
        assert_eq!((progress.n_done, progress.n_total), (42, 44));
        assert_eq!(progress.task.as_deref(), Some("d"));
    }

    #[test]
    fn what_an_earlier_lease_did_counts_as_done() {
        let scored = [task("a", "loglikelihood", 10)];
        let tasks = [task("b", "loglikelihood", 20)];
        let status = SharedStatus::default();
        Meter::new(status.clone(), &scored, &tasks);
        let progress = status.lock().progress.clone();
        assert_eq!((progress.n_done, progress.n_total, progress.eta_s), (10, 30, None));
    }
}
