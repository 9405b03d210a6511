//! A bucket behind a line that loses answers, or that goes away.

use std::time::Duration;

use fineline_client::{Client, ClientOptions, Direct, Error, PushOptions, push};
use fineline_registry::serve::{AwsVariables, start};
use harness::{Cut, Garage, Proxy, TestServer, checkpoint, garage, serve_with};

use super::{Bucket, assert_same, pull_step, push_step};

/// A registry that reaches its bucket through the proxy, while clients reach it by themselves.
async fn serve(garage: &Garage, bucket: &Bucket, proxy: &Proxy) -> TestServer {
    serve_with(|options| {
        options.store = Some(bucket.url.clone());
        let variables = garage.variables().into_iter();
        let through = variables.map(|(name, value)| match name.as_str() {
            "AWS_ENDPOINT_URL" => (name, proxy.url.clone()),
            _ => (name, value),
        });
        options.store_options.aws = AwsVariables::new(through);
        options.store_options.public_url = Some(garage.endpoint.clone());
    })
    .await
}

#[tokio::test]
async fn an_answer_of_the_bucket_that_is_lost_costs_nothing() {
    let Some(garage) = garage("it/direct") else {
        return;
    };
    // The first of each are those of the server's own probe.
    for (method, nth) in [("PUT", 3), ("GET", 4), ("DELETE", 2)] {
        let cut = Cut {
            method,
            path_end: "",
            nth,
        };
        let (bucket, proxy) = (garage.new_store(), Proxy::start(&garage.endpoint, Some(cut)).await);
        let server = serve(garage, &bucket, &proxy).await;
        let run = server.run("lab/run").await;
        let dir = checkpoint(server.dir.path(), "step", 300_000, 1);
        let pushed = push_step(&server.admin, &run, 1, &dir).await;
        assert!(pushed.direct_bytes > 0, "{method}");
        let to = server.dir.path().join("pulled");
        pull_step(&server.admin, &run, 1, &to).await.unwrap();
        assert_same(&dir, &to);
        assert!(
            proxy.exchanges().iter().any(|exchange| exchange.status.is_none()),
            "{method}"
        );
        assert_eq!(bucket.keys("frames").await.len() as u64, pushed.sent_chunks, "{method}");
        assert_eq!(bucket.keys("staging").await, [], "{method}");
    }
}

#[tokio::test]
async fn a_bucket_that_goes_away_is_no_damage() {
    let Some(garage) = garage("it/direct") else {
        return;
    };
    // Given a step, and a bucket that is gone
    let (bucket, proxy) = (garage.new_store(), Proxy::start(&garage.endpoint, None).await);
    let server = serve(garage, &bucket, &proxy).await;
    let run = server.run("lab/run").await;
    let dirs = [1, 2].map(|seed| checkpoint(server.dir.path(), &format!("step-{seed}"), 100_000, seed));
    push_step(&server.admin, &run, 1, &dirs[0]).await;
    drop(proxy);
    // When it is read and written through the registry, the answer is to come again
    let options = ClientOptions {
        direct: Direct::Off,
        retry_for: Duration::ZERO,
        ..ClientOptions::default()
    };
    let client = Client::with_options(&server.server.url, Some(&server.server.admin_token), options).unwrap();
    let to = server.dir.path().join("pulled");
    let error = pull_step(&client, &run, 1, &to).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable(_)), "{error:?}");
    let error = push(&client, &run, 2, &dirs[1], &PushOptions::default(), |_| {})
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Unavailable(_)), "{error:?}");
    // Then nothing is known as damaged: with the bucket back, the step is sound and the other one is pushed.
    let mut again = harness::options_of(server.dir.path());
    again.store = Some(bucket.url.clone());
    again.store_options.aws = AwsVariables::new(garage.variables());
    let again = start(again).await.unwrap();
    let client = Client::new(&again.url, Some(&again.admin_token)).unwrap();
    assert!(push_step(&client, &run, 1, &dirs[0]).await.unchanged);
    push_step(&client, &run, 2, &dirs[1]).await;
    pull_step(&client, &run, 1, &to).await.unwrap();
    assert_same(&dirs[0], &to);
}
