//! Which part is said to be down, and that nothing that hangs makes the answer hang.

use std::time::{Duration, Instant};

use fineline_api::error::ErrorCode;
use fineline_api::{CreateToken, RunPattern, Scope};
use object_store::memory::InMemory;
use object_store::throttle::{ThrottleConfig, ThrottledStore};
use sea_orm::TransactionTrait;

use super::fixture::{Fixture, code};
use crate::service::readiness::{PATIENCE, Part, probe};
use crate::service::{gauges, token};
use crate::store::Store;

fn down(message: &str) -> Part {
    Part::Down(message.to_owned())
}

fn in_time(begun: Instant) -> bool {
    begun.elapsed() < PATIENCE + Duration::from_secs(2)
}

#[tokio::test]
async fn all_is_well_where_both_answer() {
    let fixture = Fixture::new().await;
    let found = probe(&fixture.app).await;
    assert!(found.ready, "{found:?}");
    assert_eq!((found.database, found.store), (Part::Ok, Part::Ok));
}

#[tokio::test]
async fn a_database_that_is_gone_is_named() {
    let fixture = Fixture::new().await;
    fixture.app.db.reader().clone().close().await.unwrap();
    let found = probe(&fixture.app).await;
    assert!(!found.ready);
    assert_eq!((found.database, found.store), (down("it can't be read"), Part::Ok));
}

#[tokio::test]
async fn who_read_the_metrics_still_does_when_the_database_is_gone() {
    let fixture = Fixture::new().await;
    let secret = async |pattern| {
        let new = CreateToken {
            name: "test".to_owned(),
            scopes: vec![Scope::Read],
            pattern,
            expires_in_s: None,
        };
        token::create(&fixture.app.db, new).await.unwrap().secret
    };
    let (all, other) = (secret(RunPattern::All).await, secret(RunPattern::All).await);
    let some = secret("lab/*".parse().unwrap()).await;
    gauges::admit(&fixture.app, Some(&all)).await.unwrap();
    assert_eq!(
        code(gauges::admit(&fixture.app, Some(&some)).await),
        ErrorCode::Forbidden
    );

    fixture.app.db.reader().clone().close().await.unwrap();
    gauges::admit(&fixture.app, Some(&all)).await.unwrap();
    for secret in [Some(other.as_str()), Some(&some), None] {
        gauges::admit(&fixture.app, secret).await.unwrap_err();
    }
}

#[tokio::test]
async fn a_database_that_hangs_is_named_in_time_and_so_are_the_metrics() {
    let fixture = Fixture::new().await;
    // Every connection is taken: whoever asks waits.
    let mut held = Vec::new();
    while let Ok(Ok(txn)) = tokio::time::timeout(Duration::from_millis(500), fixture.app.db.reader().begin()).await {
        held.push(txn);
    }
    assert!(!held.is_empty());
    let begun = Instant::now();
    let found = probe(&fixture.app).await;
    assert!(in_time(begun));
    assert_eq!((found.database, found.store), (down("no answer within 2 s"), Part::Ok));
    let begun = Instant::now();
    gauges::refresh(&fixture.app).await;
    assert!(begun.elapsed() < 2 * PATIENCE + Duration::from_secs(2));
    drop(held);
}

#[tokio::test]
async fn a_store_that_hangs_is_named_in_time_however_often_it_is_asked() {
    let mut fixture = Fixture::new().await;
    let hangs = ThrottleConfig {
        wait_get_per_call: Duration::from_secs(3600),
        ..ThrottleConfig::default()
    };
    fixture.app.store = Store::over(ThrottledStore::new(InMemory::new(), hangs));
    let begun = Instant::now();
    let (one, two) = tokio::join!(probe(&fixture.app), probe(&fixture.app));
    assert!(in_time(begun));
    for found in [one, two] {
        assert!(!found.ready);
        assert_eq!((found.database, found.store), (Part::Ok, down("no answer within 2 s")));
    }
}
