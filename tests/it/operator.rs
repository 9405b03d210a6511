//! What whoever runs the registry asks: the metrics, whether it lives, whether it is ready.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use fineline_api::Scope::Read;
use fineline_client::{Client, PushOptions, apply_suite, push};
use fineline_evaluator::device::Wanted;
use fineline_evaluator::stop::Stop;
use fineline_evaluator::worker::{WorkerOptions, run_with};
use harness::{ServerProcess, Start, checkpoint, load_fake, serve, serve_with, suite, until};
use prom_text_format_parser::{Metric, Sample, Scrape, ValueType};
use reqwest::StatusCode;
use serde_json::{Value, json};

const SERVER: &str = env!("CARGO_BIN_EXE_registry-under-test");

/// The heading below which docs/OPERATIONS.md lists a worker's metrics; the registry's stand before.
pub(crate) const WORKER_METRICS: &str = "### A worker's metrics";

/// Name and type of every metric that docs/OPERATIONS.md lists below a heading, or before the worker's: `` | `NAME` | TYPE | … ``
pub(crate) fn documented(below: Option<&str>) -> BTreeMap<String, String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/OPERATIONS.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (before, after) = text.split_once(below.unwrap_or(WORKER_METRICS)).unwrap();
    let text = below.map_or(before, |_| after);
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `"));
    let cells = rows.filter_map(|row| row.split_once("` | "));
    cells
        .filter(|(name, _)| name.starts_with("fineline_") || name.starts_with("process_"))
        .map(|(name, rest)| (name.to_owned(), rest.split(' ').next().unwrap().to_owned()))
        .collect()
}

async fn scrape(url: &str, token: &str) -> String {
    let request = reqwest::Client::new().get(format!("{url}/metrics")).bearer_auth(token);
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let kind = answer.headers()["content-type"].to_str().unwrap().to_owned();
    assert!(kind.starts_with("text/plain; version=0.0.4"), "{kind}");
    answer.text().await.unwrap()
}

/// The samples of a scrape; fails the test where the text is not what Prometheus reads.
pub(crate) fn parsed(text: &str) -> BTreeMap<String, Metric> {
    let scrape = Scrape::parse(text).unwrap();
    let named = scrape.metrics.into_iter().map(|metric| (metric.name.clone(), metric));
    named.collect()
}

/// The sum of a metric's samples that bear a label's value.
pub(crate) fn value(metrics: &BTreeMap<String, Metric>, name: &str, label: Option<(&str, &str)>) -> f64 {
    let bears = |sample: &&Sample| {
        let has = |(key, value)| {
            sample
                .labels
                .iter()
                .any(|label| label.key == key && label.value == value)
        };
        label.is_none_or(has)
    };
    let samples: Vec<_> = metrics[name].samples.iter().filter(bears).collect();
    assert!(!samples.is_empty(), "no sample of {name} {label:?}");
    samples.iter().map(|sample| sample.value.value.as_f64()).sum()
}

/// A server that has seen a push, an evaluation, a collection, a wrong address and a made-up method.
async fn busy(data: &Path) -> (ServerProcess, Client) {
    let server = ServerProcess::start(SERVER, data, Start::default()).unwrap();
    let admin = Client::new(&server.url, Some(&server.token())).unwrap();
    let run = "hidden/name".parse().unwrap();
    admin.create_run(&run, &Default::default()).await.unwrap();
    apply_suite(&admin, &suite(data), &"hidden/*".parse().unwrap(), false)
        .await
        .unwrap();
    let dir = checkpoint(data, "hidden-folder", 9000, 1);
    push(&admin, &run, 1, &dir, &PushOptions::default(), |_| {})
        .await
        .unwrap();
    let options = WorkerOptions {
        server: server.url.clone(),
        token: server.token(),
        device: Wanted::Cpu,
        name: Some("hidden-worker".to_owned()),
        scratch: None,
        cache: None,
        cache_gib: 0,
        batch_tokens: Some(4096),
        once: true,
        drain_timeout_s: 30,
        metrics: None,
    };
    run_with(options, load_fake(), Stop::never()).await.unwrap();
    admin.collect_garbage(false).await.unwrap();
    let http = reqwest::Client::new();
    http.get(format!("{}/hidden/address", server.url)).send().await.unwrap();
    let made_up = reqwest::Method::from_bytes(b"HIDDEN").unwrap();
    http.request(made_up, format!("{}/healthz", server.url))
        .send()
        .await
        .unwrap();
    (server, admin)
}

#[tokio::test]
async fn the_metrics_are_those_of_the_docs_and_count_what_happened() {
    let dir = tempfile::tempdir().unwrap();
    let (server, _) = busy(dir.path()).await;
    let text = scrape(&server.url, &server.token()).await;

    // Name and type as documented, both ways, and each says what it is.
    let metrics = parsed(&text);
    let types = metrics
        .values()
        .map(|metric| (metric.name.clone(), metric.kind.to_string()));
    assert_eq!(types.collect::<BTreeMap<_, _>>(), documented(None));
    for metric in metrics.values() {
        let help = metric.help_desc.as_deref().unwrap_or_default();
        assert!(help.len() > 10, "{} has no help", metric.name);
    }
    // No label has a value that a caller chose.
    let samples = metrics.values().flat_map(|metric| &metric.samples);
    let labels = samples.flat_map(|sample| sample.labels.iter().map(|label| label.key.as_str()));
    let labels: BTreeSet<&str> = labels.collect();
    let known = [
        "kind", "le", "method", "outcome", "part", "revision", "route", "state", "status", "version",
    ];
    assert!(labels.is_subset(&known.into()), "{labels:?}");
    assert!(!text.to_lowercase().contains("hidden"), "{text}");

    // What happened is counted.
    for (name, label, least) in [
        ("fineline_chunks_received_total", None, 3.0),
        ("fineline_chunks_verified_total", None, 3.0),
        ("fineline_chunk_verified_bytes_total", None, 18_000.0),
        ("fineline_http_request_bytes_total", None, 18_000.0),
        ("fineline_http_response_bytes_total", None, 1_000.0),
        ("fineline_http_requests_total", Some(("method", "other")), 1.0),
        ("fineline_http_requests_total", Some(("route", "-")), 1.0),
        (
            "fineline_http_requests_total",
            Some(("route", "/api/v1/runs/{namespace}/{name}/push-sessions")),
            1.0,
        ),
        ("fineline_http_requests_total", Some(("status", "404")), 1.0),
        ("fineline_checkpoints_ready_total", None, 1.0),
        ("fineline_collections_total", Some(("outcome", "done")), 1.0),
        ("fineline_evaluations_ended_total", Some(("state", "done")), 1.0),
        ("fineline_leases_granted_total", None, 1.0),
        ("fineline_frames", Some(("state", "live")), 3.0),
        ("fineline_frame_stored_bytes", Some(("state", "live")), 18_000.0),
        ("fineline_workers", None, 1.0),
        ("fineline_part_up", None, 2.0),
        ("process_resident_memory_bytes", None, 1e6),
    ] {
        let found = value(&metrics, name, label);
        assert!(found >= least, "{name} {label:?}: {found}");
    }
    for name in [
        "fineline_database_errors_total",
        "fineline_store_errors_total",
        "fineline_push_sessions_open",
    ] {
        assert_eq!(value(&metrics, name, None), 0.0, "{name}");
    }
    let durations = &metrics["fineline_http_request_duration_seconds"].samples;
    assert!(durations.iter().any(|sample| sample.value.value_type == ValueType::Sum));
}

#[tokio::test]
async fn the_gauges_follow_what_is_under_way() {
    let dir = tempfile::tempdir().unwrap();
    let (server, admin) = busy(dir.path()).await;
    let open = || async {
        let metrics = parsed(&scrape(&server.url, &server.token()).await);
        value(&metrics, "fineline_push_sessions_open", None)
    };
    assert_eq!(open().await, 0.0);
    let run = "hidden/name".parse().unwrap();
    let new = fineline_api::CreatePushSession {
        step: 2,
        ..Default::default()
    };
    admin.create_push_session(&run, &new).await.unwrap();
    // They are read every few seconds at most.
    until(async || open().await == 1.0).await;
}

#[tokio::test]
async fn metrics_are_for_who_may_read_every_run() {
    let server = serve().await;
    let status = async |url: &str, token: Option<&str>| {
        let request = reqwest::Client::new().get(format!("{url}/metrics"));
        let request = match token {
            Some(token) => request.bearer_auth(token),
            None => request,
        };
        request.send().await.unwrap().status()
    };
    let url = &server.server.url;
    assert_eq!(status(url, None).await, StatusCode::UNAUTHORIZED);
    let some = server.token(&[Read], "lab/*").await;
    assert_eq!(status(url, Some(&some)).await, StatusCode::FORBIDDEN);
    let all = server.token(&[Read], "*").await;
    assert_eq!(status(url, Some(&all)).await, StatusCode::OK);
    let open = serve_with(|options| options.anonymous_read = true).await;
    assert_eq!(status(&open.server.url, None).await, StatusCode::OK);
}

async fn ready(url: &str) -> (StatusCode, Value) {
    let answer = reqwest::get(format!("{url}/readyz")).await.unwrap();
    (answer.status(), answer.json().await.unwrap())
}

#[tokio::test]
async fn readyz_names_the_store_whose_folder_is_gone_and_healthz_goes_on() {
    let server = serve().await;
    let (url, store) = (&server.server.url, server.dir.path().join("store"));
    let well = json!({"ready": true, "database": {"state": "ok"}, "store": {"state": "ok"}});
    assert_eq!(ready(url).await, (StatusCode::OK, well.clone()));

    std::fs::rename(&store, server.dir.path().join("elsewhere")).unwrap();
    let (status, body) = ready(url).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    let down = json!({"state": "down", "message": "its folder is gone"});
    assert_eq!(
        body,
        json!({"ready": false, "database": {"state": "ok"}, "store": down})
    );
    let lives = reqwest::get(format!("{url}/healthz")).await.unwrap();
    assert_eq!(lives.status(), StatusCode::NO_CONTENT);

    std::fs::rename(server.dir.path().join("elsewhere"), &store).unwrap();
    assert_eq!(ready(url).await, (StatusCode::OK, well));
}

#[tokio::test]
async fn the_health_command_ends_with_1_for_what_is_not_well() {
    let server = serve().await;
    let health = async |listen: &str, more: &[&str]| {
        let mut command = tokio::process::Command::new(SERVER);
        let output = command.args(["health", "--listen", listen]).args(more).output();
        let output = output.await.unwrap();
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stdout).into_owned(),
        )
    };
    let listen = server.server.url.strip_prefix("http://").unwrap();
    assert_eq!(health(listen, &[]).await, (Some(0), String::new()));
    let (code, said) = health(listen, &["--ready"]).await;
    assert!(code == Some(0) && said.contains("\"ready\":true"), "{said}");

    std::fs::remove_dir_all(server.dir.path().join("store")).unwrap();
    assert_eq!(health(listen, &[]).await.0, Some(0));
    let (code, said) = health(listen, &["--ready"]).await;
    assert!(code == Some(1) && said.contains("its folder is gone"), "{said}");
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    assert_eq!(health(&free.to_string(), &[]).await.0, Some(1));
}
