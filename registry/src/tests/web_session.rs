//! A browser's login ends by itself.

use fineline_api::{CreateToken, RunPattern, Scope};

use super::fixture::Fixture;
use crate::db;
use crate::service::{sweep, token, web_session};

async fn secret(fixture: &Fixture, expires_in_s: Option<u64>) -> String {
    let new = CreateToken {
        name: "test".to_owned(),
        scopes: vec![Scope::Read],
        pattern: RunPattern::All,
        expires_in_s,
    };
    let token = token::create(&fixture.app.db, new).await.unwrap().secret;
    web_session::create(&fixture.app, &token, None).await.unwrap()
}

#[tokio::test]
async fn a_login_ends_after_its_time_and_the_sweep_deletes_it() {
    let fixture = Fixture::new().await;
    let (old, new) = (secret(&fixture, None).await, secret(&fixture, None).await);
    let found = web_session::find(&fixture.app, &old).await.unwrap();
    assert_eq!(found.unwrap().name, "test");

    let first = "(SELECT token_id FROM web_session ORDER BY created_at_ms, token_id LIMIT 1)";
    fixture
        .sql(&format!(
            "UPDATE web_session SET expires_at_ms = 1 WHERE token_id = {first}"
        ))
        .await;
    assert!(web_session::find(&fixture.app, &old).await.unwrap().is_none());
    sweep::sweep(&fixture.app).await.unwrap();

    let txn = db::write_txn(&fixture.app.db).await.unwrap();
    assert_eq!(
        db::web_session::delete_expired(&txn).await.unwrap(),
        0,
        "it was deleted"
    );
    txn.commit().await.unwrap();
    assert!(web_session::find(&fixture.app, &new).await.unwrap().is_some());
}

#[tokio::test]
async fn a_login_ends_with_its_token() {
    let fixture = Fixture::new().await;
    let secret = secret(&fixture, Some(60)).await;
    assert!(web_session::find(&fixture.app, &secret).await.unwrap().is_some());
    fixture.sql("UPDATE token SET expires_at_ms = 1").await;
    assert!(web_session::find(&fixture.app, &secret).await.unwrap().is_none());
}
