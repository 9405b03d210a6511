//! Tokens: when one was used last, and the administrator's that the operator gives to every replica.

use std::path::{Path, PathBuf};

use fineline_api::Scope::{Evaluate, Read, Write};
use fineline_api::Token;
use fineline_client::Client;
use fineline_registry::serve::start;
use harness::{TestServer, claim, environment, options_of, serve, serve_with};

use crate::web::Browser;

async fn token(client: &Client, name: &str) -> Token {
    let tokens = client.list_tokens().await.unwrap();
    tokens.into_iter().find(|token| token.name == name).unwrap()
}

/// The secret of a new token of that name.
async fn named(server: &TestServer, name: &str, scope: fineline_api::Scope) -> String {
    let new = fineline_api::CreateToken {
        name: name.to_owned(),
        scopes: vec![scope],
        pattern: "*".parse().unwrap(),
        expires_in_s: None,
    };
    server.admin.create_token(&new).await.unwrap().secret
}

#[tokio::test]
async fn a_token_is_used_by_a_call_by_a_browser_and_by_a_worker() {
    // Given four tokens
    let server = serve().await;
    let before = chrono::Utc::now() - chrono::Duration::seconds(5);
    let mut secrets = Vec::new();
    for (name, scope) in [
        ("caller", Write),
        ("browser", Read),
        ("worker", Evaluate),
        ("nobody", Read),
    ] {
        secrets.push(named(&server, name, scope).await);
        assert_eq!(token(&server.admin, name).await.last_used_at, None);
    }
    // When three of them are used,
    let client = |secret: &String| Client::new(&server.server.url, Some(secret)).unwrap();
    client(&secrets[0]).list_runs(None, None, None).await.unwrap();
    client(&secrets[2]).claim_evaluation(&claim()).await.unwrap();
    let mut browser = Browser::logged_in(&server.server.url, &secrets[1]).await;
    let first = token(&server.admin, "browser").await.last_used_at;
    browser.get("/").await;
    // then each is said to have been, also by who looks at a page without sending the token,
    for name in ["caller", "browser", "worker"] {
        let used = token(&server.admin, name).await.last_used_at;
        assert!(used.is_some_and(|at| at > before), "{name}: {used:?}");
    }
    assert!(token(&server.admin, "browser").await.last_used_at > first);
    assert_eq!(token(&server.admin, "nobody").await.last_used_at, None);
    // and a server that comes later knows it.
    let TestServer { server, dir, .. } = server;
    server.stop().await;
    let again = start(options_of(dir.path())).await.unwrap();
    let admin = Client::new(&again.url, Some(&again.admin_token)).unwrap();
    assert!(token(&admin, "caller").await.last_used_at.is_some());
}

fn secret_file(dir: &Path, secret: &str) -> PathBuf {
    let path = dir.join("secret");
    std::fs::write(&path, format!("{secret}\n")).unwrap();
    path
}

fn secret() -> String {
    format!("fl_{}", "a1".repeat(32))
}

#[tokio::test]
async fn every_replica_takes_the_administrators_token_that_the_operator_gives() {
    // Given two replicas with folders of their own, one database and one secret
    let shared = tempfile::tempdir().unwrap();
    let file = secret_file(shared.path(), &secret());
    let database = format!("sqlite://{}", shared.path().join("shared.db").display());
    let replica = || {
        serve_with(|options| {
            options.database = Some(database.clone());
            options.admin_token_file = Some(file.clone());
        })
    };
    let (one, two) = tokio::join!(replica(), replica());
    // Then each takes the secret, whoever came first, and so does one that starts again.
    assert_eq!(one.server.admin_token, secret());
    for server in [one, two, replica().await] {
        let tokens = server.admin.list_tokens().await.unwrap();
        assert_eq!(tokens.len(), 1, "{tokens:?}");
        assert!(!server.dir.path().join("admin.token").exists());
    }
}

#[tokio::test]
async fn a_given_token_that_was_revoked_stays_so_and_a_weak_one_is_refused() {
    let server = serve().await;
    let mut options = options_of(server.dir.path());
    options.admin_token_file = Some(secret_file(server.dir.path(), &secret()));
    let given = start(options.clone()).await.unwrap();
    let id = token(&server.admin, "administrator by file").await.id;
    server.admin.delete_token(id).await.unwrap();
    given.stop().await;
    // It runs on, and nobody gets in by what leaked.
    let given = start(options.clone()).await.unwrap();
    let client = Client::new(&given.url, Some(&secret())).unwrap();
    assert!(client.list_tokens().await.is_err());

    for weak in ["", "hunter2", "fl_short", &format!("fl_{}", "-".repeat(64))] {
        options.admin_token_file = Some(secret_file(server.dir.path(), weak));
        let error = start(options.clone()).await.unwrap_err();
        let error = format!("{error:#}");
        assert!(
            error.contains("the secret is refused") && error.contains("43 to 128"),
            "{error}"
        );
        assert!(weak.is_empty() || !error.contains(weak), "{error}");
    }
}

#[tokio::test]
async fn a_command_makes_sure_of_a_token_whose_secret_was_chosen() {
    let server = serve().await;
    let file = secret_file(server.dir.path(), &secret());
    let create = async |scope: &str| {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_registry-under-test"));
        command.args(["token", "create", "--name", "worker", "--scope", scope]);
        command.envs(environment(server.dir.path()));
        command
            .arg("--secret-file")
            .arg(&file)
            .arg("--data")
            .arg(server.dir.path());
        command.output().await.unwrap()
    };
    let (first, again) = (create("evaluate").await, create("evaluate").await);
    let made = token(&server.admin, "worker").await;
    assert_eq!(String::from_utf8_lossy(&first.stdout).trim(), made.id.to_string());
    assert_eq!(first.stdout, again.stdout);
    let client = Client::new(&server.server.url, Some(&secret())).unwrap();
    assert!(client.claim_evaluation(&claim()).await.unwrap().is_none());
    // The secret of one token is not another's.
    let refused = create("admin").await;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        refused.status.code() == Some(1) && said.contains("token `worker`"),
        "{said}"
    );
}
