//! One step from several real processes at once: each rank adds its files, one commits.

use std::path::{Path, PathBuf};
use std::process::Output;

use fineline_api::{CheckpointFile, CheckpointState, Reference, RunName};
use fineline_client::{Error, PullOptions, PushOptions, commit_parts, pull, push_part};
use fineline_format::Digest;
use harness::{KILL_AT, TestServer, checkpoint, serve};

/// A rank's folder: its own shard of `n` values, and a config that all ranks write alike.
fn rank(server: &TestServer, rank: u32, n: usize) -> PathBuf {
    let dir = checkpoint(server.dir.path(), &format!("rank-{rank}"), n, rank + 1);
    let shard = dir.join(format!("model-{rank}.safetensors"));
    std::fs::rename(dir.join("model.safetensors"), shard).unwrap();
    std::fs::remove_file(dir.join("tokenizer.json")).unwrap();
    dir
}

/// Runs the real client; `kill_at` names the fail point at which it dies.
async fn client(server: &TestServer, arguments: &[&str], kill_at: Option<&str>) -> Output {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_client-under-test"));
    command.args(arguments).env_remove(KILL_AT);
    command
        .env("FINELINE_URL", &server.server.url)
        .env("FINELINE_TOKEN", &server.server.admin_token);
    if let Some(point) = kill_at {
        command.env(KILL_AT, point);
    }
    command.output().await.unwrap()
}

async fn push_rank(server: &TestServer, dir: &Path, kill_at: Option<&str>) -> Output {
    let dir = dir.to_str().unwrap();
    client(
        server,
        &["push", "lab/run", "5", dir, "--session", "job-7", "--json"],
        kill_at,
    )
    .await
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn sent(output: &Output) -> u64 {
    assert!(output.status.success(), "{}", said(output));
    let outcome: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    outcome["sent_bytes"].as_u64().unwrap()
}

async fn pull_step(server: &TestServer, run: &RunName, step: u64) -> PathBuf {
    let to = server.dir.path().join("pulled");
    let step = Reference::Step(step);
    pull(&server.admin, run, &step, &to, &PullOptions::default(), |_| {})
        .await
        .unwrap();
    to
}

#[tokio::test]
async fn four_ranks_one_of_them_killed_make_one_step_by_one_commit() {
    // Given four ranks that push at once, one of which is killed between two chunks
    let server = serve().await;
    let run = server.run("lab/run").await;
    let dirs: Vec<PathBuf> = (0..4).map(|n| rank(&server, n, 40_000)).collect();
    let big = rank(&server, 9, 20_000_000);
    // Whose index names another rank's shard.
    let index = r#"{"weight_map":{"w":"model-9.safetensors"}}"#;
    std::fs::write(dirs[0].join("model.safetensors.index.json"), index).unwrap();
    std::fs::write(dirs[0].join("tokenizer.json"), "{}").unwrap();
    let (a, b, c, d, killed) = tokio::join!(
        push_rank(&server, &dirs[0], None),
        push_rank(&server, &dirs[1], None),
        push_rank(&server, &dirs[2], None),
        push_rank(&server, &dirs[3], None),
        push_rank(&server, &big, Some("push.chunk_sent:3")),
    );
    assert!([&a, &b, &c, &d].iter().all(|output| sent(output) > 0));
    assert_eq!(killed.status.code(), None, "it died: {}", said(&killed));
    // When a commit comes too early, it is refused and changes nothing
    let commit = ["push", "lab/run", "5", "--session", "job-7", "--commit", "--files", "8"];
    let early = client(&server, &commit, None).await;
    assert_eq!(early.status.code(), Some(1));
    assert!(
        said(&early).contains("has 7 files and 8 are wanted"),
        "{}",
        said(&early)
    );
    // And when the killed rank is started again, it sends the rest only, and all are committed
    let whole = std::fs::metadata(big.join("model-9.safetensors")).unwrap().len();
    let rest = sent(&push_rank(&server, &big, None).await);
    assert!(rest < whole * 9 / 10, "{rest} of {whole} bytes were sent again");
    let killed = client(&server, &commit, Some("push.committed")).await;
    assert_eq!(killed.status.code(), None, "it died: {}", said(&killed));
    for _ in 0..2 {
        let output = client(&server, &commit, None).await;
        assert!(output.status.success(), "{}", said(&output));
    }
    // Then the step holds every rank's bytes, and a repeated rank changes nothing.
    let to = pull_step(&server, &run, 5).await;
    for dir in dirs.iter().chain([&big]) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let file = entry.unwrap().file_name();
            assert!(
                std::fs::read(dir.join(&file)).unwrap() == std::fs::read(to.join(&file)).unwrap(),
                "{file:?}"
            );
        }
    }
    assert_eq!(std::fs::read_dir(&to).unwrap().count(), 8);
    let step = server.admin.get_checkpoint(&run, &Reference::Step(5)).await.unwrap();
    assert!(step.evaluable, "the shards of all ranks are one model: {step:?}");
    assert_eq!(sent(&push_rank(&server, &dirs[0], None).await), 0);
    let run = server.admin.get_run(&run).await.unwrap();
    assert_eq!(run.n_checkpoints, 1);
}

#[tokio::test]
async fn the_same_file_of_two_ranks_is_one_and_other_bytes_at_its_path_are_refused() {
    // Given a rank that has pushed
    let server = serve().await;
    let run = server.run("lab/run").await;
    let (one, two) = (rank(&server, 1, 9000), rank(&server, 2, 9000));
    sent(&push_rank(&server, &one, None).await);
    // When another one has other bytes at a path of the first
    let config = two.join("config.json");
    let same = std::fs::read(&config).unwrap();
    std::fs::write(&config, r#"{"architectures":["Other"]}"#).unwrap();
    let refused = push_rank(&server, &two, None).await;
    // Then path and both digests are named
    assert_eq!(refused.status.code(), Some(1));
    let digest = |bytes: &[u8]| Digest::of(bytes).to_string();
    let words = [
        "`config.json`",
        &digest(&same),
        &digest(&std::fs::read(&config).unwrap()),
    ];
    assert!(
        words.iter().all(|word| said(&refused).contains(word)),
        "{}",
        said(&refused)
    );
    // And with the same bytes it joins; what each says of the step adds up.
    std::fs::write(&config, same).unwrap();
    let say = |tag: &str, key: &str| PushOptions {
        tags: vec![tag.to_owned()],
        metadata: [(key.to_owned(), "v".to_owned())].into(),
        ..Default::default()
    };
    push_part(&server.admin, &run, 5, "job-7", &two, &say("best/a", "k"), |_| {})
        .await
        .unwrap();
    let loss = PushOptions {
        loss: Some(2.5),
        ..say("best/b", "l")
    };
    commit_parts(&server.admin, &run, 5, "job-7", Some(3), &loss)
        .await
        .unwrap();
    let step = server.admin.get_checkpoint(&run, &Reference::Step(5)).await.unwrap();
    assert_eq!(
        (step.tags, step.loss, step.metadata.len()),
        (vec!["best/a".into(), "best/b".into()], Some(2.5), 2)
    );
}

#[tokio::test]
async fn who_comes_after_the_commit_is_told_so_and_changes_nothing() {
    let server = serve().await;
    let run = server.run("lab/run").await;
    let (one, two) = (rank(&server, 1, 9000), rank(&server, 2, 9000));
    let none = client(
        &server,
        &["push", "lab/run", "5", "--session", "job-7", "--commit"],
        None,
    )
    .await;
    assert!(
        said(&none).contains("there is no push session `job-7`"),
        "{}",
        said(&none)
    );
    // Given a session that is committed without the second rank, which had opened it
    let part = push_part(&server.admin, &run, 5, "job-7", &one, &PushOptions::default(), |_| {})
        .await
        .unwrap();
    let outcome = commit_parts(&server.admin, &run, 5, "job-7", None, &PushOptions::default())
        .await
        .unwrap();
    // When it adds a file, or comes anew
    let file = &server.admin.list_files(&run, &Reference::Step(5), true).await.unwrap()[0];
    let late = server
        .admin
        .add_push_session_file(&run, part.session, file)
        .await
        .unwrap_err();
    let anew = push_rank(&server, &two, None).await;
    // Then both are refused with what to do, and the step is what it was.
    assert!(
        matches!(late, Error::Conflict(_)) && late.to_string().contains("not open any more"),
        "{late}"
    );
    assert!(late.hint().unwrap().contains("barrier"));
    assert!(
        said(&anew).contains("does not have this `model-2.safetensors`"),
        "{}",
        said(&anew)
    );
    let step = server.admin.get_checkpoint(&run, &Reference::Step(5)).await.unwrap();
    assert_eq!(
        (step.digest, step.n_files, step.state),
        (Some(outcome.digest), 2, CheckpointState::Ready)
    );
}

#[tokio::test]
async fn sessions_of_one_name_opened_at_one_instant_are_one_and_a_taken_back_one_is_none() {
    let server = serve().await;
    let run = server.run("lab/run").await;
    let named = |name: &str| fineline_api::CreatePushSession {
        step: 5,
        session_name: Some(name.to_owned()),
        ..Default::default()
    };
    let opened = (0..16).map(|_| {
        let (client, run, new) = (server.admin.clone(), run.clone(), named("job-7"));
        tokio::spawn(async move { client.create_push_session(&run, &new).await.unwrap().id })
    });
    let opened: Vec<_> = opened.collect();
    let mut ids = std::collections::BTreeSet::new();
    for opened in opened {
        ids.insert(opened.await.unwrap());
    }
    assert_eq!(ids.len(), 1, "one session");
    let other = server.admin.create_push_session(&run, &named("job-8")).await.unwrap();
    assert!(!ids.contains(&other.id), "another name is another session");
    let abort = ["push", "lab/run", "5", "--session", "job-7", "--abort"];
    assert!(client(&server, &abort, None).await.status.success());
    let again = server.admin.create_push_session(&run, &named("job-7")).await.unwrap();
    assert!(!ids.contains(&again.id), "what was taken back is not joined");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_races_a_commit_is_in_the_step_or_refused() {
    let server = serve().await;
    let run = server.run("lab/run").await;
    let one = rank(&server, 1, 9000);
    for step in 0..40 {
        // Given one rank's files in the session
        let nothing = PushOptions::default();
        let part = push_part(&server.admin, &run, step, "job", &one, &nothing, |_| {})
            .await
            .unwrap();
        // When others add empty files while it is committed
        let adds = (0..6).map(|n| {
            let (client, run) = (server.admin.clone(), run.clone());
            let file = CheckpointFile {
                path: format!("empty-{n}"),
                size_bytes: 0,
                digest: Digest::of(b""),
                chunks: Vec::new(),
            };
            tokio::spawn(async move { client.add_push_session_file(&run, part.session, &file).await.is_ok() })
        });
        let adds: Vec<_> = adds.collect();
        let commit = commit_parts(&server.admin, &run, step, "job", None, &nothing).await;
        let mut n_added = 0;
        for add in adds {
            n_added += u64::from(add.await.unwrap());
        }
        // Then a commit that succeeds made what it says, with every file whose adding succeeded.
        let Ok(commit) = commit else { continue };
        let checkpoint = server.admin.get_checkpoint(&run, &Reference::Step(step)).await.unwrap();
        assert_eq!(
            (checkpoint.digest, checkpoint.n_files),
            (Some(commit.digest), 2 + n_added),
            "step {step}"
        );
    }
}
