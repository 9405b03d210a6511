//! A worker's metrics: every name with its type and what it means, in one table. docs/OPERATIONS.md lists the same, and a test
//! compares the two. They are kept only where somebody may ask for them (`--metrics`).
//!
//! Not the process's recorder: several workers of one process, and a registry beside them, have their own.
//!
//! **Invariant:** a label is an outcome or an activity: never a name, a path or anything else that a caller chooses.

mod http;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use metrics::{Counter, Gauge, Histogram, Unit};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusRecorder};
use metrics_process::Collector;

use crate::device::Memory;
use crate::engine::Done;

pub(crate) use http::Listener;

/// Says what the device has of memory, where it has its own.
pub(crate) type DeviceMemory = Box<dyn Fn() -> Option<Memory> + Send + Sync>;

/// Of a batch's places.
const BATCH_FILL: [f64; 10] = [0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0];

/// What a worker's time goes into; always one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Activity {
    /// For work.
    Waiting,
    /// Fetching what an evaluation needs, and loading its model.
    Loading,
    /// Doing tasks, until their scores are stored.
    Computing,
}

impl Activity {
    const ALL: [Self; 3] = [Self::Waiting, Self::Loading, Self::Computing];

    fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Loading => "loading",
            Self::Computing => "computing",
        }
    }
}

/// A worker's metrics. Without a recorder all that is told goes nowhere.
pub(crate) struct Metrics {
    tokens: Counter,
    requests: Counter,
    batches: Counter,
    batch_fill: Histogram,
    pub(crate) done: Counter,
    pub(crate) failed: Counter,
    pub(crate) lost: Counter,
    seconds: [Counter; 3],
    at_work: Gauge,
    clock: Mutex<Clock>,
    kept: Option<(PrometheusRecorder, DeviceMemory)>,
}

/// What a worker does, and what its time went into before.
#[derive(Debug)]
struct Clock {
    activity: Activity,
    since: Instant,
    spent: [Duration; 3],
}

impl Metrics {
    /// Metrics that nobody can ask for.
    pub(crate) fn off() -> Self {
        Self::with(None)
    }

    /// Metrics of a worker on a device.
    pub(crate) fn new(memory: DeviceMemory) -> Self {
        let fill = Matcher::Full("fineline_worker_batch_fill_ratio".to_owned());
        let builder = PrometheusBuilder::new().set_buckets_for_metric(fill, &BATCH_FILL);
        let recorder = builder.expect("the buckets are not empty").build_recorder();
        Self::with(Some((recorder, memory)))
    }

    fn with(kept: Option<(PrometheusRecorder, DeviceMemory)>) -> Self {
        let off = metrics::NoopRecorder;
        let recorder: &dyn metrics::Recorder = match &kept {
            Some((recorder, _)) => recorder,
            None => &off,
        };
        let mut metrics = metrics::with_local_recorder(recorder, || {
            describe();
            let ended =
                |outcome: &'static str| metrics::counter!("fineline_worker_evaluations_total", "outcome" => outcome);
            let seconds = |on: Activity| metrics::counter!("fineline_worker_seconds_total", "activity" => on.as_str());
            Self {
                tokens: metrics::counter!("fineline_worker_tokens_total"),
                requests: metrics::counter!("fineline_worker_requests_total"),
                batches: metrics::counter!("fineline_worker_batches_total"),
                batch_fill: metrics::histogram!("fineline_worker_batch_fill_ratio"),
                done: ended("done"),
                failed: ended("failed"),
                lost: ended("lost"),
                seconds: Activity::ALL.map(seconds),
                at_work: metrics::gauge!("fineline_worker_at_work"),
                clock: Mutex::new(Clock {
                    activity: Activity::Waiting,
                    since: Instant::now(),
                    spent: [Duration::ZERO; 3],
                }),
                kept: None,
            }
        });
        metrics.kept = kept;
        metrics
    }

    /// The worker's time goes into that from now on.
    pub(crate) fn turn_to(&self, activity: Activity) {
        self.pass().activity = activity;
        self.at_work.set(f64::from(u8::from(activity != Activity::Waiting)));
    }

    /// The engine has come from `before` to `now`, which is `before` from then on, in batches of at most so many tokens.
    pub(crate) fn count(&self, before: &mut Done, now: Done, max_batch_tokens: usize) {
        // A computation that was begun anew counts anew.
        if now.n_requests < before.n_requests || now.n_tokens < before.n_tokens {
            *before = Done::default();
        }
        let n_tokens = now.n_tokens - before.n_tokens;
        self.requests.increment(now.n_requests - before.n_requests);
        self.tokens.increment(n_tokens);
        // A text that is longer than a batch is computed in parts, and told as one.
        let most = max_batch_tokens.max(1) as u64;
        let n_batches = n_tokens.div_ceil(most);
        self.batches.increment(n_batches);
        if n_batches > 0 {
            let fill = n_tokens as f64 / (n_batches * most) as f64;
            self.batch_fill.record_many(fill, n_batches as usize);
        }
        *before = now;
    }

    /// The text that Prometheus reads; nothing where nobody can ask. Asks the kernel and the device, so it may block.
    pub(crate) fn render(&self) -> String {
        let Some((recorder, memory)) = &self.kept else {
            return String::new();
        };
        drop(self.pass());
        metrics::with_local_recorder(recorder, || {
            Collector::default().collect();
            if let Some(memory) = memory() {
                let used_bytes = memory.total_bytes.saturating_sub(memory.free_bytes);
                metrics::gauge!("fineline_worker_device_memory_used_bytes").set(used_bytes as f64);
                metrics::gauge!("fineline_worker_device_memory_total_bytes").set(memory.total_bytes as f64);
            }
        });
        recorder.handle().render()
    }

    /// Folds what the histogram was told into its buckets, so that it does not pile up where nobody asks for it.
    pub(crate) fn fold(&self) {
        if let Some((recorder, _)) = &self.kept {
            recorder.handle().run_upkeep();
        }
    }

    /// Counts the time until now for what the worker does.
    fn pass(&self) -> MutexGuard<'_, Clock> {
        let mut clock = self.clock.lock().unwrap_or_else(PoisonError::into_inner);
        let (now, at) = (Instant::now(), clock.activity as usize);
        let since = std::mem::replace(&mut clock.since, now);
        clock.spent[at] += now - since;
        self.seconds[at].absolute(clock.spent[at].as_secs());
        clock
    }
}

#[rustfmt::skip]
fn describe() {
    metrics::describe_counter!("fineline_worker_tokens_total", Unit::Count, "Tokens that models computed.");
    metrics::describe_counter!("fineline_worker_requests_total", Unit::Count, "Requests of tasks that were answered.");
    metrics::describe_counter!("fineline_worker_batches_total", Unit::Count, "Batches that went through models.");
    metrics::describe_histogram!("fineline_worker_batch_fill_ratio", Unit::Count, "Tokens of a batch over the most that `--batch-tokens` lets it have, from 0 to 1.");
    metrics::describe_counter!("fineline_worker_evaluations_total", Unit::Count, "Evaluations by outcome; lost are those whose lease was.");
    metrics::describe_counter!("fineline_worker_seconds_total", Unit::Seconds, "Whole seconds by what they went into: waiting for work, fetching and loading a model, computing and storing scores.");
    metrics::describe_gauge!("fineline_worker_at_work", Unit::Count, "Whether it has an evaluation at hand.");
    metrics::describe_gauge!("fineline_worker_device_memory_used_bytes", Unit::Bytes, "Memory of the card that any process uses; what this one has set aside and does not use counts as free.");
    metrics::describe_gauge!("fineline_worker_device_memory_total_bytes", Unit::Bytes, "Memory of the card.");
    Collector::default().describe();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on_a_card() -> Metrics {
        let memory = Memory {
            free_bytes: 3 << 30,
            total_bytes: 8 << 30,
        };
        Metrics::new(Box::new(move || Some(memory)))
    }

    /// The value of a sample by its name and labels, as they stand in the text.
    fn value(text: &str, sample: &str) -> f64 {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {sample} in {text}")).parse().unwrap()
    }

    #[test]
    fn what_an_engine_does_is_counted_by_what_came_since() {
        let metrics = on_a_card();
        let mut before = Done::default();
        let mut tell = |n_requests, n_tokens| metrics.count(&mut before, Done { n_requests, n_tokens }, 100);
        for (n_requests, n_tokens) in [(0, 0), (0, 80), (3, 80), (7, 170)] {
            tell(n_requests, n_tokens);
        }
        // It lacked memory, and began anew; then a text of two batches came.
        tell(2, 50);
        tell(3, 240);
        let text = metrics.render();
        assert_eq!(value(&text, "fineline_worker_requests_total"), 10.0);
        assert_eq!(value(&text, "fineline_worker_tokens_total"), 410.0);
        assert_eq!(value(&text, "fineline_worker_batches_total"), 5.0);
        assert_eq!(value(&text, "fineline_worker_batch_fill_ratio_count"), 5.0);
        for (bound, n) in [("0.25", 0.0), ("0.5", 1.0), ("0.9", 3.0), ("0.95", 5.0), ("+Inf", 5.0)] {
            let bucket = format!("fineline_worker_batch_fill_ratio_bucket{{le=\"{bound}\"}}");
            assert_eq!(value(&text, &bucket), n, "{text}");
        }
    }

    #[test]
    fn time_goes_into_one_thing_and_the_rest_is_told_as_it_is() {
        let metrics = on_a_card();
        let went = |activity: Activity| {
            value(
                &metrics.render(),
                &format!("fineline_worker_seconds_total{{activity=\"{}\"}}", activity.as_str()),
            )
        };
        let pass = |seconds: u64| metrics.clock.lock().unwrap().since -= Duration::from_secs(seconds);
        let at_work = || value(&metrics.render(), "fineline_worker_at_work");
        pass(7);
        metrics.turn_to(Activity::Loading);
        assert_eq!(at_work(), 1.0);
        pass(20);
        metrics.turn_to(Activity::Computing);
        pass(300);
        assert_eq!(Activity::ALL.map(went), [7.0, 20.0, 300.0]);
        metrics.turn_to(Activity::Waiting);
        assert_eq!(at_work(), 0.0);
        metrics.done.increment(2);
        metrics.lost.increment(1);
        let text = metrics.render();
        for (outcome, n) in [("done", 2.0), ("failed", 0.0), ("lost", 1.0)] {
            let sample = format!("fineline_worker_evaluations_total{{outcome=\"{outcome}\"}}");
            assert_eq!(value(&text, &sample), n);
        }
        assert_eq!(
            value(&text, "fineline_worker_device_memory_used_bytes"),
            f64::from(5 << 10) * f64::from(1 << 20)
        );
        assert_eq!(
            value(&text, "fineline_worker_device_memory_total_bytes"),
            8.0 * 2_f64.powi(30)
        );
        assert!(value(&text, "process_resident_memory_bytes") > 1e6);
    }

    #[test]
    fn what_has_no_memory_of_its_own_tells_none_and_nobody_hears_what_is_off() {
        let text = Metrics::new(Box::new(|| None)).render();
        assert!(
            text.contains("fineline_worker_tokens_total 0") && !text.contains("device_memory"),
            "{text}"
        );
        let off = Metrics::off();
        off.turn_to(Activity::Computing);
        off.done.increment(1);
        assert_eq!(off.render(), "");
    }
}
