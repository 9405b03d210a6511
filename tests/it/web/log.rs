//! No secret is in any log, however much is logged, and none is in a URL. The real program, with its evaluator.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use fineline_client::{Client, PushOptions, push};
use reqwest::StatusCode;

use super::browser::Browser;

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_registry-under-test"));
    command
        .env_remove("FINELINE_PUBLIC_URL")
        .env_remove("FINELINE_TRUSTED_PROXY");
    command
}

/// The program with everything logged to a file; it ends with this.
struct Server {
    child: Child,
    url: String,
}

impl Server {
    fn start(data: &Path, log: &Path) -> Self {
        std::fs::create_dir_all(data).unwrap();
        let mut command = program();
        command.args(["serve", "--listen", "127.0.0.1:0", "--data"]).arg(data);
        command.envs(harness::environment(data)).env("FINELINE_LOG", "trace");
        command
            .stderr(std::fs::File::create(log).unwrap())
            .stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap())
            .read_line(&mut line)
            .unwrap();
        let url = line.trim().strip_prefix("listening on ").unwrap().to_owned();
        Self { child, url }
    }

    /// Ends it as an operator does, so that all of the log is written.
    fn stop(mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It has ended already when the test went well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Logs in, looks around, pushes, asks the API, logs out; gives every secret that was sent or given, and every page.
async fn session(url: &str, admin: &str, dir: &Path) -> (Vec<String>, Vec<String>) {
    let mut browser = Browser::new(url);
    let wrong = format!("fl_{}", "wrong".repeat(9));
    let mut secrets = vec![admin.to_owned(), wrong.clone(), browser.csrf("/login").await];
    secrets.push(browser.cookie_header());
    let mut pages = vec![browser.log_in(&wrong, "/").await.body];
    pages.push(browser.log_in(admin, "/runs/lab/a").await.location().to_owned());
    secrets.push(browser.cookie_header());

    let client = Client::new(url, Some(admin)).unwrap();
    let run = "lab/a".parse().unwrap();
    client.create_run(&run, &Default::default()).await.unwrap();
    let checkpoint = harness::checkpoint(dir, "checkpoint", 100_000, 1);
    push(&client, &run, 1, &checkpoint, &PushOptions::default(), |_| {})
        .await
        .unwrap();
    let new = serde_json::from_str(r#"{"name":"n","scopes":["read"],"pattern":"*"}"#).unwrap();
    secrets.push(client.create_token(&new).await.unwrap().secret);

    for path in [
        "/",
        "/runs/lab/a",
        "/runs/lab/a/checkpoints/1",
        "/runs/lab/a/scores.csv",
        "/runs/lab/b",
        "/evaluations",
        "/docs",
        "/login",
        "/api/v1/runs",
        "/nowhere",
    ] {
        pages.push(browser.get(path).await.body);
    }
    secrets.push(browser.csrf("/").await);
    let refused = browser.post("/logout", &[("csrf", admin)]).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    pages.push(refused.body);
    let csrf = browser.csrf("/").await;
    pages.push(browser.post("/logout", &[("csrf", &csrf)]).await.body);
    // A cookie's name is no secret.
    let value = |secret: String| {
        secret
            .split_once('=')
            .map(|(_, value)| value.to_owned())
            .unwrap_or(secret)
    };
    (secrets.into_iter().map(value).collect(), pages)
}

/// The first thing in `text` that has the form of a token.
fn token_in(text: &str) -> Option<&str> {
    let candidates = text.match_indices("fl_").map(|(at, _)| &text[at..]);
    let is_token = |text: &&str| text.bytes().skip(3).take(43).filter(u8::is_ascii_alphanumeric).count() == 43;
    candidates.into_iter().find(is_token).map(|found| &found[..46])
}

#[tokio::test]
async fn no_secret_is_in_the_log_however_much_is_logged() {
    let dir = tempfile::tempdir().unwrap();
    let (data, log) = (dir.path().join("data"), dir.path().join("log"));
    let server = Server::start(&data, &log);
    let admin = std::fs::read_to_string(data.join("admin.token"))
        .unwrap()
        .trim()
        .to_owned();
    let (secrets, pages) = session(&server.url, &admin, dir.path()).await;
    // The evaluator has a token too, and asks with it.
    let asks = "hyper_util::client::legacy::pool";
    harness::until(async || std::fs::read_to_string(&log).unwrap().contains(asks)).await;
    server.stop();

    let log = std::fs::read_to_string(&log).unwrap();
    for said in [
        "a browser logged in",
        "\"path\":\"/login\"",
        "\"level\":\"TRACE\"",
        "/chunks/{digest}",
    ] {
        assert!(log.contains(said), "the log says {said}");
    }
    assert_eq!(token_in(&admin), Some(admin.as_str()));
    assert_eq!(token_in(&log), None);
    for secret in &secrets {
        assert!(secret.len() >= 43, "{secret}");
        let line = log.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "{secret}");
    }
    for page in pages {
        assert_eq!(token_in(&page), None);
        // The value against forgery is in pages, the cookie's secret is not.
        let secrets = secrets.iter().filter(|secret| secret.len() < 64);
        assert_eq!(
            secrets.filter(|secret| page.contains(secret.as_str())).count(),
            0,
            "{page}"
        );
    }
}

#[test]
fn a_public_url_or_a_proxy_that_cannot_be_one_is_refused_by_name() {
    for (option, value, said) in [
        (
            "--public-url",
            "reg.lab",
            "public URL `reg.lab` is refused: it begins with `https://`",
        ),
        (
            "--public-url",
            "https://reg.lab/?a",
            "public URL `https://reg.lab/?a` is refused: leave out its query",
        ),
        ("--trusted-proxy", "10.0.0.0/33", "`10.0.0.0/33` is no proxy"),
    ] {
        let output = program().args(["serve", option, value]).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.contains(said), "{error}");
    }
}
