//! A step without a tokenizer becomes a model when one comes: by the run's default, or by a later push.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::channel;

use fineline_api::{CheckpointState, EventKind, Reference, RunName, Scope, SetTokenizer};
use fineline_client::{Client, Error, EvaluationQuery, PushOptions, ScoreQuery, apply_suite, push};
use fineline_evaluator::engine::Engine;
use fineline_evaluator::worker::LoadEngine;
use harness::{FakeEngine, TestServer, checkpoint, claim, serve, suite};

/// A server with the run `lab/run`, whose `n` steps have no tokenizer, and a suite bound to it.
async fn bare(n: u32) -> (TestServer, RunName) {
    let server = serve().await;
    let run = server.run("lab/run").await;
    let file = suite(server.dir.path());
    apply_suite(&server.admin, &file, &"lab/run".parse().unwrap(), false)
        .await
        .unwrap();
    for step in 1..=n {
        push_bare(&server, &run, step).await;
    }
    (server, run)
}

fn bare_folder(server: &TestServer, seed: u32) -> PathBuf {
    let dir = checkpoint(server.dir.path(), &format!("step-{seed}"), 9000, seed * 2 + 1);
    std::fs::remove_file(dir.join("tokenizer.json")).unwrap();
    // Half a tokenizer, which is none.
    std::fs::write(dir.join("tokenizer_config.json"), "{}").unwrap();
    dir
}

async fn push_bare(server: &TestServer, run: &RunName, step: u32) {
    let dir = bare_folder(server, step);
    push(&server.admin, run, step.into(), &dir, &PushOptions::default(), |_| {})
        .await
        .unwrap();
}

/// Pushes a tokenizer alone as a step of `lab/tokenizers`.
async fn push_tokenizer(server: &TestServer, step: u64, text: &str) -> SetTokenizer {
    let run: RunName = "lab/tokenizers".parse().unwrap();
    if step == 1 {
        server.run("lab/tokenizers").await;
    }
    let dir = server.dir.path().join(format!("tokenizer-{step}"));
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("tokenizer.json"), text).unwrap();
    push(&server.admin, &run, step, &dir, &PushOptions::default(), |_| {})
        .await
        .unwrap();
    SetTokenizer {
        run,
        reference: Reference::Step(step),
        backfill: false,
    }
}

/// Works until there is no work; gives the tokenizer that each engine was loaded with.
async fn work(server: &TestServer) -> Vec<String> {
    let (send, loaded) = channel();
    let load: LoadEngine = Arc::new(move |dir, _| {
        assert!(!dir.join("tokenizer_config.json").exists(), "half of its own is gone");
        send.send(std::fs::read_to_string(dir.join("tokenizer.json"))?)?;
        Ok(Box::new(FakeEngine) as Box<dyn Engine>)
    });
    server.work(load).await;
    loaded.try_iter().collect()
}

async fn scored(server: &TestServer, run: &RunName) -> Vec<u64> {
    let page = server
        .admin
        .list_scores(run, &ScoreQuery::default(), None, None)
        .await
        .unwrap();
    let of_acc = page.items.iter().filter(|score| score.metric == "acc");
    of_acc.map(|score| score.step).collect()
}

#[tokio::test]
async fn a_late_default_makes_every_step_evaluable_and_is_what_a_worker_reads() {
    // Given steps that wait for a tokenizer
    let (server, run) = bare(3).await;
    let why = server
        .admin
        .get_checkpoint(&run, &Reference::Step(1))
        .await
        .unwrap()
        .not_evaluable;
    assert!(why.unwrap().contains("no tokenizer"));
    // When the run is given a default by the real client, and a step is pushed after it
    push_tokenizer(&server, 1, "lent").await;
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_client-under-test"));
    command.args(["run", "tokenizer", "lab/run", "lab/tokenizers@1"]);
    command
        .env("FINELINE_URL", &server.server.url)
        .env("FINELINE_TOKEN", &server.server.admin_token);
    let output = command.output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        said.contains("3 steps became evaluable, 0 became other models, 3 evaluations"),
        "{said}{output:?}"
    );
    push_bare(&server, &run, 4).await;
    // Then all of them are models, each was told of, and a worker reads the lent tokenizer.
    for step in 1..=4 {
        let step = server.admin.get_checkpoint(&run, &Reference::Step(step)).await.unwrap();
        assert!(step.evaluable && step.not_evaluable.is_none() && step.state == CheckpointState::Ready);
    }
    let events = server.admin.list_events(&run, 0, 0, None).await.unwrap();
    let told = events
        .iter()
        .filter(|event| event.kind == EventKind::CheckpointEvaluable);
    assert_eq!(told.count(), 3);
    assert_eq!(work(&server).await, ["lent"; 4]);
    assert_eq!(scored(&server, &run).await, [1, 2, 3, 4]);
}

#[tokio::test]
async fn another_default_leaves_what_was_evaluated_until_a_back_fill() {
    // Given steps that were evaluated by a default, and one with a tokenizer of its own
    let (server, run) = bare(2).await;
    let first = push_tokenizer(&server, 1, "first").await;
    server.admin.set_run_tokenizer(&run, &first).await.unwrap();
    let own = checkpoint(server.dir.path(), "own", 9000, 77);
    push(&server.admin, &run, 9, &own, &PushOptions::default(), |_| {})
        .await
        .unwrap();
    assert_eq!(work(&server).await.len(), 3);
    let before = server.admin.get_checkpoint(&run, &Reference::Step(1)).await.unwrap();
    // When another becomes the default, nothing is evaluated again by itself
    let second = push_tokenizer(&server, 2, "second").await;
    let set = server.admin.set_run_tokenizer(&run, &second).await.unwrap();
    assert_eq!((set.n_evaluable, set.n_changed, set.n_left, set.n_queued), (0, 0, 2, 0));
    let kept = server.admin.get_checkpoint(&run, &Reference::Step(1)).await.unwrap();
    assert_eq!(kept.model_digest, before.model_digest);
    // And with a back-fill the steps are other models, whose scores stand beside the old ones.
    let again = SetTokenizer {
        backfill: true,
        ..second
    };
    let set = server.admin.set_run_tokenizer(&run, &again).await.unwrap();
    assert_eq!((set.n_evaluable, set.n_changed, set.n_left, set.n_queued), (0, 2, 0, 2));
    assert_eq!(work(&server).await, ["second"; 2]);
    assert_eq!(scored(&server, &run).await, [1, 1, 2, 2, 9]);
    let models: std::collections::BTreeSet<_> = evaluations(&server.admin).await.into_iter().collect();
    assert_eq!(models.len(), 5);
}

async fn evaluations(client: &Client) -> Vec<String> {
    let query = EvaluationQuery::default();
    let page = client.list_evaluations(&query, None, None).await.unwrap();
    page.items.iter().map(|item| item.model_digest.to_string()).collect()
}

#[tokio::test]
async fn a_tokenizer_is_named_by_who_reads_it_and_read_under_the_lease_alone() {
    let (server, run) = bare(1).await;
    let set = push_tokenizer(&server, 1, "lent").await;
    // Given one who writes to the run and does not read the tokenizer's
    let writer = server.client(&[Scope::Write], "lab/run").await;
    let unknown = SetTokenizer {
        run: "lab/nothing".parse().unwrap(),
        ..set.clone()
    };
    let refusals = [
        writer.set_run_tokenizer(&run, &set).await.unwrap_err(),
        writer.set_run_tokenizer(&run, &unknown).await.unwrap_err(),
    ];
    let told = refusals.map(|error| {
        assert!(matches!(error, Error::NotFound(_)), "{error:?}");
        error.to_string().replace("lab/nothing", "lab/tokenizers")
    });
    assert_eq!(
        told[0], told[1],
        "a run that one may not read is as one that is not there"
    );
    // When who may sets it
    let no_tokenizer = SetTokenizer {
        run: run.clone(),
        ..set.clone()
    };
    let refused = server.admin.set_run_tokenizer(&run, &no_tokenizer).await.unwrap_err();
    assert!(matches!(refused, Error::Refused(_)), "{refused:?}");
    server.admin.set_run_tokenizer(&run, &set).await.unwrap();
    // Then a worker reads the files of it while it holds the lease, and another does not.
    let (worker, other) = (
        server.client(&[Scope::Evaluate], "*").await,
        server.client(&[Scope::Evaluate], "*").await,
    );
    let lease = worker.claim_evaluation(&claim()).await.unwrap().unwrap();
    let (id, name) = (lease.evaluation.id, lease.tokenizer[0].path.as_str());
    assert_eq!(worker.get_tokenizer_file(id, name).await.unwrap().as_ref(), b"lent");
    assert!(matches!(
        worker.get_tokenizer_file(id, "config.json").await,
        Err(Error::NotFound(_))
    ));
    assert!(matches!(
        other.get_tokenizer_file(id, name).await,
        Err(Error::NotFound(_))
    ));
    server.admin.cancel_evaluation(id).await.unwrap();
    assert!(matches!(
        worker.get_tokenizer_file(id, name).await,
        Err(Error::NotFound(_))
    ));
}

#[tokio::test]
async fn a_tokenizer_that_is_pushed_later_moves_nothing_else() {
    // Given a step that waits for its tokenizer
    let (server, run) = bare(1).await;
    let dir = bare_folder(&server, 1);
    let weights = std::fs::metadata(dir.join("model.safetensors")).unwrap().len();
    // When the same folder is pushed with one
    std::fs::write(dir.join("tokenizer.json"), "{}").unwrap();
    let replace = PushOptions {
        replace: true,
        ..Default::default()
    };
    let pushed = push(&server.admin, &run, 1, &dir, &replace, |_| {}).await.unwrap();
    // Then the weights are not sent again, and it is evaluated.
    assert!(pushed.sent_bytes < 200 && pushed.held_bytes >= weights, "{pushed:?}");
    assert!(
        server
            .admin
            .get_checkpoint(&run, &Reference::Step(1))
            .await
            .unwrap()
            .evaluable
    );
    assert_eq!(evaluations(&server.admin).await.len(), 1);
}
