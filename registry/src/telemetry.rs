//! The metrics: every name with its type and what it means, in one table, and the recorder that keeps them. Whatever is
//! counted anywhere stands here; docs/OPERATIONS.md lists the same, and a test compares the two.
//!
//! **Invariant:** a label is a route's template, a method, a status or a state: never a name, a path or anything else that
//! a caller chooses.

use metrics::Unit;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use metrics_process::Collector;

/// Until an answer begins: from a row that is in memory to a long poll of 30 s.
const REQUEST_SECONDS: [f64; 12] = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0, 60.0];

/// From a registry with nothing in it to one of millions of frames.
const COLLECTION_SECONDS: [f64; 8] = [0.01, 0.1, 1.0, 10.0, 60.0, 300.0, 1800.0, 7200.0];

/// The kinds of metrics.
#[derive(Debug, Clone, Copy)]
enum Kind {
    /// Counts up from 0; there from the start when it has no label.
    Counter,
    /// The same with a label of these values, all there from the start.
    CounterBy(&'static str, &'static [&'static str]),
    /// The same with labels whose values are known as they come.
    OpenCounter,
    Gauge,
    Histogram(&'static [f64]),
}
use Kind::{Counter, CounterBy, Gauge, Histogram, OpenCounter};

/// Name, kind, unit, and what it means.
type Metric = (&'static str, Kind, Unit, &'static str);

#[rustfmt::skip]
const METRICS: &[Metric] = &[
    ("fineline_build_info", Gauge, Unit::Count, "Always 1; the labels say which build this is."),
    ("fineline_part_up", Gauge, Unit::Count, "Whether the database or the store answered just now, as /readyz tells it."),

    ("fineline_http_requests_total", OpenCounter, Unit::Count, "Requests by route, method and status; status 499 where the client hung up before the answer."),
    ("fineline_http_request_duration_seconds", Histogram(&REQUEST_SECONDS), Unit::Seconds, "Time until an answer began, by route and method; a long poll counts with its wait."),
    ("fineline_http_requests_in_flight", Gauge, Unit::Count, "Requests whose answer has not begun."),
    ("fineline_http_request_bytes_total", Counter, Unit::Bytes, "Bytes of bodies that clients sent."),
    ("fineline_http_response_bytes_total", Counter, Unit::Bytes, "Bytes of bodies that clients were sent."),

    ("fineline_chunks_received_total", Counter, Unit::Count, "Chunks that pushes put."),
    ("fineline_chunk_received_bytes_total", Counter, Unit::Bytes, "Raw bytes of these chunks."),
    ("fineline_chunk_wire_bytes_total", Counter, Unit::Bytes, "Bytes of these chunks as they came over the wire."),
    ("fineline_chunk_staged_bytes_total", Counter, Unit::Bytes, "Bytes of these chunks as they came by way of the bucket."),
    ("fineline_chunk_sent_bytes_total", Counter, Unit::Bytes, "Bytes of frames that left through the server."),
    ("fineline_chunks_verified_total", Counter, Unit::Count, "Chunks read back from the store, decoded and hashed."),
    ("fineline_chunk_verified_bytes_total", Counter, Unit::Bytes, "Raw bytes of these chunks."),
    ("fineline_push_sessions_open", Gauge, Unit::Count, "Push sessions that are open."),
    ("fineline_verification_queue", Gauge, Unit::Count, "Committed checkpoints that are not verified yet."),
    ("fineline_checkpoints_ready_total", Counter, Unit::Count, "Checkpoints that became ready."),
    ("fineline_checkpoints_failed_total", Counter, Unit::Count, "Checkpoints that were refused when they were verified."),

    ("fineline_source_looks_total", CounterBy("outcome", &["ok", "failed"]), Unit::Count, "Looks at sources, by outcome."),
    ("fineline_source_checkpoints_total", Counter, Unit::Count, "Checkpoints that sources brought."),
    ("fineline_source_read_bytes_total", Counter, Unit::Bytes, "Bytes that were read of sources' files."),
    ("fineline_source_linked_bytes_total", Counter, Unit::Bytes, "Bytes of sources' files that were held and not read."),

    ("fineline_frames", Gauge, Unit::Count, "Frames by state."),
    ("fineline_frame_stored_bytes", Gauge, Unit::Bytes, "Stored bytes of frames by state."),
    ("fineline_frames_counted_timestamp_seconds", Gauge, Unit::Seconds, "When frames were counted last."),
    ("fineline_frames_deleted_total", Counter, Unit::Count, "Frames that collections deleted."),
    ("fineline_frame_deleted_bytes_total", Counter, Unit::Bytes, "Stored bytes of these frames."),
    ("fineline_collections_total", CounterBy("outcome", &["done", "failed"]), Unit::Count, "Collections of garbage by outcome."),
    ("fineline_collection_duration_seconds", Histogram(&COLLECTION_SECONDS), Unit::Seconds, "How long collections took."),

    ("fineline_evaluations", Gauge, Unit::Count, "Evaluations that wait (queued), are worked on (leased) or need somebody (failed, parked)."),
    ("fineline_evaluation_queue_age_seconds", Gauge, Unit::Seconds, "How long the oldest queued evaluation has been waiting; 0 without one."),
    ("fineline_evaluations_ended_total", CounterBy("state", &["done", "failed", "parked", "cancelled"]), Unit::Count, "Evaluations that ended, by how."),
    ("fineline_leases_granted_total", Counter, Unit::Count, "Leases that workers got."),
    ("fineline_leases_expired_total", Counter, Unit::Count, "Leases that ran out, or whose worker died."),
    ("fineline_leases_released_total", Counter, Unit::Count, "Leases that workers gave back when they were told to end."),
    ("fineline_lease_heartbeats_total", Counter, Unit::Count, "Heartbeats of workers that were taken."),
    ("fineline_workers", Gauge, Unit::Count, "Workers that asked for work in the last two minutes or hold a lease."),
    ("fineline_worker_seen_timestamp_seconds", Gauge, Unit::Seconds, "When a worker asked for work last; 0 when none ever did."),

    ("fineline_database_errors_total", CounterBy("kind", &["unavailable", "full", "departed", "other"]), Unit::Count, "Statements and connections that the database refused, by kind."),
    ("fineline_store_errors_total", CounterBy("kind", &["missing", "full", "other"]), Unit::Count, "Objects that the store did not give or take, by kind."),
];

/// A recorder with everything described, and what has no open label at 0.
pub(crate) fn recorder() -> metrics_exporter_prometheus::PrometheusRecorder {
    let mut builder = PrometheusBuilder::new();
    for (name, kind, ..) in METRICS {
        if let Histogram(bounds) = kind {
            let buckets = builder.set_buckets_for_metric(Matcher::Full((*name).to_owned()), bounds);
            builder = buckets.expect("the table's buckets are not empty");
        }
    }
    let recorder = builder.build_recorder();
    metrics::with_local_recorder(&recorder, describe);
    recorder
}

fn describe() {
    for &(name, kind, unit, help) in METRICS {
        match kind {
            Counter => {
                metrics::describe_counter!(name, unit, help);
                metrics::counter!(name).absolute(0);
            }
            CounterBy(label, values) => {
                metrics::describe_counter!(name, unit, help);
                for value in values {
                    metrics::counter!(name, label => *value).absolute(0);
                }
            }
            OpenCounter => metrics::describe_counter!(name, unit, help),
            Gauge => metrics::describe_gauge!(name, unit, help),
            Histogram(_) => metrics::describe_histogram!(name, unit, help),
        }
    }
    Collector::default().describe();
    let revision = option_env!("FINELINE_REVISION").unwrap_or("unknown");
    metrics::gauge!("fineline_build_info", "version" => env!("CARGO_PKG_VERSION"), "revision" => revision).set(1.0);
}

/// The text that Prometheus reads.
pub(crate) fn render(handle: &PrometheusHandle) -> String {
    Collector::default().collect();
    handle.render()
}

/// Folds what histograms were told into their buckets, so that it does not pile up where nobody asks for it; until the
/// task is dropped.
pub(crate) async fn keep_up(handle: PrometheusHandle) {
    loop {
        tokio::time::sleep(std::time::Duration::from_secs(60)).await;
        handle.run_upkeep();
    }
}
