//! What whoever runs a worker asks of it.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use reqwest::StatusCode;

use super::*;
use crate::operator::{WORKER_METRICS, documented, parsed, value};

/// An address that nobody listens on.
fn free_address() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap()
}

async fn ask(address: SocketAddr, path: &str) -> (StatusCode, String) {
    let answer = reqwest::get(format!("http://{address}{path}")).await.unwrap();
    (answer.status(), answer.text().await.unwrap())
}

#[tokio::test]
async fn the_metrics_are_those_of_the_docs_and_count_what_the_worker_does() {
    let server = queued().await;
    let address = free_address();
    let options = WorkerOptions {
        metrics: Some(address),
        name: Some("hidden-worker".to_owned()),
        once: false,
        ..server.worker_options().await
    };
    let ((asked, was_asked), (go, word)) = (channel(), channel());
    let (told, stop) = tokio::sync::watch::channel(0);
    let look = async {
        // While it computes
        let (_, _was_asked) = hear(was_asked).await;
        assert_eq!(ask(address, "/healthz").await, (StatusCode::OK, "ok\n".to_owned()));
        assert_eq!(ask(address, "/other").await.0, StatusCode::NOT_FOUND);
        let (status, text) = ask(address, "/metrics").await;
        assert_eq!(status, StatusCode::OK);
        assert!(!text.contains("hidden") && !text.contains("lab/"), "{text}");
        let metrics = parsed(&text);
        let types = metrics
            .values()
            .map(|metric| (metric.name.clone(), metric.kind.to_string()));
        // A processor has no memory of its own.
        let mut wanted = documented(Some(WORKER_METRICS));
        wanted.retain(|name, _| !name.contains("device_memory"));
        wanted.extend(
            documented(None)
                .into_iter()
                .filter(|(name, _)| name.starts_with("process_")),
        );
        assert_eq!(types.collect::<std::collections::BTreeMap<_, _>>(), wanted);
        for metric in metrics.values() {
            assert!(
                metric.help_desc.as_ref().is_some_and(|help| help.len() > 10),
                "{}",
                metric.name
            );
        }
        for (name, label, n) in [
            ("fineline_worker_at_work", None, 1.0),
            ("fineline_worker_tokens_total", None, 1.0),
            ("fineline_worker_batches_total", None, 1.0),
            ("fineline_worker_requests_total", None, 3.0),
            ("fineline_worker_evaluations_total", None, 0.0),
        ] {
            assert_eq!(value(&metrics, name, label), n, "{name}");
        }
        // And when it is done
        go.send(()).unwrap();
        let is_done = async || {
            let metrics = parsed(&ask(address, "/metrics").await.1);
            let done = value(&metrics, "fineline_worker_evaluations_total", Some(("outcome", "done")));
            (done, value(&metrics, "fineline_worker_at_work", None)) == (1.0, 0.0)
        };
        until(is_done).await;
        told.send_replace(1);
    };
    let work = run_with(options, load_first(held_up(asked, word)), Stop::by(stop));
    let (ended, ()) = tokio::join!(work, look);
    ended.unwrap();
    assert!(
        reqwest::get(format!("http://{address}/healthz")).await.is_err(),
        "it ends with the worker"
    );
}

#[tokio::test]
async fn an_address_that_is_taken_is_named() {
    let server = queued().await;
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = taken.local_addr().unwrap();
    let options = WorkerOptions {
        metrics: Some(address),
        ..server.worker_options().await
    };
    let refused = run_with(options, load_fake(), Stop::never()).await.unwrap_err();
    assert!(refused.to_string().contains(&format!("`{address}`")), "{refused}");
}
