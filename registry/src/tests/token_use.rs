//! Noting that a token was used costs a request nothing and loses nothing.

use std::time::Duration;

use fineline_api::{CreateToken, RunPattern, Scope};

use super::fixture::Fixture;
use crate::auth::authenticate;
use crate::db;
use crate::service::{token, token_use};

async fn secret(fixture: &Fixture) -> String {
    let new = CreateToken {
        name: "test".to_owned(),
        scopes: vec![Scope::Read],
        pattern: RunPattern::All,
        expires_in_s: None,
    };
    token::create(&fixture.app.db, new).await.unwrap().secret
}

/// Whether the token is said to have been used.
async fn is_used(fixture: &Fixture) -> bool {
    let tokens = db::token::list(fixture.app.db.reader()).await.unwrap();
    tokens[0].last_used_at.is_some()
}

#[tokio::test]
async fn a_request_does_not_wait_for_whoever_writes() {
    let fixture = Fixture::new().await;
    let secret = secret(&fixture).await;
    let writes = db::write_txn(&fixture.app.db).await.unwrap();
    let request = authenticate(&fixture.app, Some(&secret));
    tokio::time::timeout(Duration::from_secs(5), request)
        .await
        .unwrap()
        .unwrap();
    assert!(!is_used(&fixture).await);
    drop(writes);
    token_use::write(&fixture.app).await;
    assert!(is_used(&fixture).await);
}

#[tokio::test]
async fn a_use_that_could_not_be_written_is_written_later_and_never_moves_back() {
    let fixture = Fixture::new().await;
    let secret = secret(&fixture).await;
    authenticate(&fixture.app, Some(&secret)).await.unwrap();
    fixture.sql("ALTER TABLE token RENAME TO hidden").await;
    token_use::write(&fixture.app).await;
    fixture.sql("ALTER TABLE hidden RENAME TO token").await;
    assert!(!is_used(&fixture).await);
    token_use::write(&fixture.app).await;
    assert!(is_used(&fixture).await);

    // Another replica wrote a later use already.
    let later = 4_000_000_000_000_i64;
    fixture
        .sql(&format!("UPDATE token SET last_used_at_ms = {later}"))
        .await;
    authenticate(&fixture.app, Some(&secret)).await.unwrap();
    token_use::write(&fixture.app).await;
    let tokens = db::token::list(fixture.app.db.reader()).await.unwrap();
    assert_eq!(tokens[0].last_used_at.unwrap().timestamp_millis(), later);
}
