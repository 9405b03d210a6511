//! The worker's own loop against the registry, with an engine of known numbers; and what every engine must do.

use std::path::Path;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};

use fineline_api::EvaluationState;
use fineline_client::{EvaluationQuery, PushOptions, ScoreQuery, apply_suite, push};
use fineline_evaluator::candle::engine::CandleEngine;
use fineline_evaluator::engine::{Answer, Description, Done, Engine, EngineOptions, Generation, Progress};
use fineline_evaluator::worker::LoadEngine;
use fineline_registry::serve::LeaseOptions;
use harness::{FakeEngine, TestServer, checkpoint, engine_suite, load_fake, serve_with, suite};

/// A server with a pushed step whose evaluation waits.
async fn queued() -> TestServer {
    queued_with(LeaseOptions::default()).await
}

async fn queued_with(lease: LeaseOptions) -> TestServer {
    let server = serve_with(|options| options.lease = lease).await;
    let run = server.run("lab/run").await;
    let file = suite(server.dir.path());
    apply_suite(&server.admin, &file, &"lab/*".parse().unwrap(), false)
        .await
        .unwrap();
    let dir = checkpoint(server.dir.path(), "a", 9000, 1);
    push(&server.admin, &run, 1, &dir, &PushOptions::default(), |_| {})
        .await
        .unwrap();
    server
}

async fn evaluation(server: &TestServer) -> fineline_api::Evaluation {
    let list = server
        .admin
        .list_evaluations(&EvaluationQuery::default(), None, None)
        .await
        .unwrap();
    assert_eq!(list.items.len(), 1);
    list.items.into_iter().next().unwrap()
}

async fn scores(server: &TestServer) -> Vec<(String, f64, u64)> {
    let run = "lab/run".parse().unwrap();
    let page = server
        .admin
        .list_scores(&run, &ScoreQuery::default(), None, None)
        .await
        .unwrap();
    page.items
        .into_iter()
        .map(|score| (score.metric, score.value, score.n))
        .collect()
}

#[tokio::test]
async fn a_worker_scores_what_waits_and_its_sample_log_is_served() {
    let server = queued().await;
    server.work(load_fake()).await;
    let done = evaluation(&server).await;
    assert_eq!(done.state, EvaluationState::Done);
    // The shorter choice is always the likelier: right twice of three times. Per character of the choice, which does not count
    // the space before it, the longer one is: right once.
    assert_eq!(
        scores(&server).await,
        [("acc".to_owned(), 2.0 / 3.0, 3), ("acc_norm".to_owned(), 1.0 / 3.0, 3)]
    );
    let log = server.admin.get_samples(done.id, "tiny").await.unwrap();
    assert_eq!(std::str::from_utf8(&log).unwrap().lines().count(), 3);
}

#[tokio::test]
async fn a_checkpoint_in_the_cache_is_used_again_and_mended() {
    // Given a step with two suites, and a worker that has scored it for the first
    let server = queued().await;
    let cache = server.dir.path().join("cache");
    let seen = Arc::new(Mutex::new(Vec::new()));
    let load = |seen: &Arc<Mutex<Vec<_>>>| -> LoadEngine {
        let (seen, load) = (Arc::clone(seen), load_fake());
        Arc::new(move |dir: &Path, options| {
            let mut names: Vec<_> = std::fs::read_dir(dir)?
                .map(|entry| entry.unwrap().file_name())
                .collect();
            names.sort();
            seen.lock()
                .unwrap()
                .push((names, std::fs::read(dir.join("model.safetensors"))?));
            load(dir, options)
        })
    };
    server.work_with_cache(load(&seen), &cache).await;
    let kept = std::fs::read_dir(&cache).unwrap().map(|entry| entry.unwrap().path());
    let kept: Vec<_> = kept.filter(|path| path.is_dir()).collect();
    assert_eq!(kept.len(), 1);
    // When its file is damaged there
    let file = kept[0].join("model.safetensors");
    let right = std::fs::read(&file).unwrap();
    let mut damaged = right.clone();
    damaged[100] ^= 1;
    std::fs::write(&file, &damaged).unwrap();
    let config = std::fs::metadata(kept[0].join("config.json"))
        .unwrap()
        .modified()
        .unwrap();
    let other = harness::suite_about(server.dir.path(), "y");
    apply_suite(&server.admin, &other, &"lab/*".parse().unwrap(), true)
        .await
        .unwrap();
    server.work_with_cache(load(&seen), &cache).await;
    // Then the second gets the same bytes, and what was whole was not written again.
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 2);
    assert_eq!((&seen[0], &seen[0].1), (&seen[1], &right));
    assert_eq!(
        std::fs::metadata(kept[0].join("config.json"))
            .unwrap()
            .modified()
            .unwrap(),
        config
    );
}

#[tokio::test]
async fn a_model_that_can_not_be_loaded_fails_for_good_and_says_why() {
    let server = queued().await;
    server
        .work(Arc::new(|_: &Path, _| {
            anyhow::bail!("rope type `yarn` is not supported")
        }))
        .await;
    let failed = evaluation(&server).await;
    assert_eq!(failed.state, EvaluationState::Failed);
    assert!(failed.reason.unwrap().contains("`yarn`"));
    assert_eq!(scores(&server).await, []);
}

/// Tells that it was asked, then waits for a word before it answers.
struct Held(std::sync::mpsc::Sender<()>, std::sync::mpsc::Receiver<()>);

impl Engine for Held {
    fn loglikelihood(&mut self, asked: &[(String, String)], told: Progress<'_>) -> anyhow::Result<Vec<Answer>> {
        self.0.send(()).unwrap();
        self.1.recv().unwrap();
        FakeEngine.loglikelihood(asked, told)
    }

    fn loglikelihood_rolling(&mut self, asked: &[String], told: Progress<'_>) -> anyhow::Result<Vec<f64>> {
        FakeEngine.loglikelihood_rolling(asked, told)
    }

    fn generate_until(&mut self, asked: &[Generation], told: Progress<'_>) -> anyhow::Result<Vec<String>> {
        FakeEngine.generate_until(asked, told)
    }

    fn describe(&self) -> Description {
        FakeEngine.describe()
    }
}

#[tokio::test]
async fn work_that_is_cancelled_in_the_middle_leaves_no_score() {
    let server = queued().await;
    let id = evaluation(&server).await.id;
    let ((asked, was_asked), (go, word)) = (channel(), channel());
    let engine = std::sync::Mutex::new(Some(Held(asked, word)));
    let load =
        move |_: &Path, _: EngineOptions| Ok(Box::new(engine.lock().unwrap().take().unwrap()) as Box<dyn Engine>);
    let cancel = async {
        tokio::task::spawn_blocking(move || was_asked.recv().unwrap())
            .await
            .unwrap();
        server.admin.cancel_evaluation(id).await.unwrap();
        go.send(()).unwrap();
    };
    tokio::join!(server.work(Arc::new(load)), cancel);
    assert_eq!(evaluation(&server).await.state, EvaluationState::Cancelled);
    assert_eq!(scores(&server).await, []);
    server.admin.retry_evaluation(id).await.unwrap();
    server.work(load_fake()).await;
    assert_eq!(evaluation(&server).await.state, EvaluationState::Done);
}

/// Computes for minutes, and tells when it is made to stop.
struct Lasting(std::sync::mpsc::Sender<&'static str>);

impl Engine for Lasting {
    fn loglikelihood(&mut self, _: &[(String, String)], told: Progress<'_>) -> anyhow::Result<Vec<Answer>> {
        self.0.send("began").unwrap();
        let end = std::time::Instant::now() + std::time::Duration::from_secs(120);
        while std::time::Instant::now() < end {
            if let Err(error) = told(Done::default()) {
                self.0.send("stopped").unwrap();
                return Err(error);
            }
            std::thread::yield_now();
        }
        anyhow::bail!("nobody made it stop");
    }

    fn loglikelihood_rolling(&mut self, _: &[String], told: Progress<'_>) -> anyhow::Result<Vec<f64>> {
        FakeEngine.loglikelihood_rolling(&[], told)
    }

    fn generate_until(&mut self, asked: &[Generation], told: Progress<'_>) -> anyhow::Result<Vec<String>> {
        FakeEngine.generate_until(asked, told)
    }

    fn describe(&self) -> Description {
        FakeEngine.describe()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_whose_lease_is_lost_stops_at_its_next_batch() {
    let hasty = LeaseOptions {
        ttl_s: 1,
        back_off_s: 0,
    };
    let server = queued_with(hasty).await;
    let id = evaluation(&server).await.id;
    let (say, said) = channel();
    let load = move |_: &Path, _: EngineOptions| Ok(Box::new(Lasting(say.clone())) as Box<dyn Engine>);
    let said = Arc::new(std::sync::Mutex::new(said));
    let hear = async || {
        let said = Arc::clone(&said);
        let patience = std::time::Duration::from_secs(60);
        let hear = move || said.lock().unwrap().recv_timeout(patience).unwrap();
        tokio::task::spawn_blocking(hear).await.unwrap()
    };
    let cancel = async {
        assert_eq!(hear().await, "began");
        server.admin.cancel_evaluation(id).await.unwrap();
    };
    tokio::join!(server.work(Arc::new(load)), cancel);
    assert_eq!(hear().await, "stopped");
    assert_eq!(evaluation(&server).await.state, EvaluationState::Cancelled);
}

/// Says that half of its first work is done, and then waits for a word.
struct HalfDone(std::sync::mpsc::Receiver<()>);

impl Engine for HalfDone {
    fn loglikelihood(&mut self, asked: &[(String, String)], told: Progress<'_>) -> anyhow::Result<Vec<Answer>> {
        told(Done {
            n_requests: asked.len() as u64 / 2,
            n_tokens: 1,
        })?;
        self.0.recv().unwrap();
        FakeEngine.loglikelihood(asked, told)
    }

    fn loglikelihood_rolling(&mut self, asked: &[String], told: Progress<'_>) -> anyhow::Result<Vec<f64>> {
        FakeEngine.loglikelihood_rolling(asked, told)
    }

    fn generate_until(&mut self, asked: &[Generation], told: Progress<'_>) -> anyhow::Result<Vec<String>> {
        FakeEngine.generate_until(asked, told)
    }

    fn describe(&self) -> Description {
        FakeEngine.describe()
    }
}

/// Evaluations in the order of their steps.
async fn by_step(server: &TestServer) -> Vec<fineline_api::Evaluation> {
    let query = EvaluationQuery::default();
    let mut all = server.admin.list_evaluations(&query, None, None).await.unwrap().items;
    all.sort_by_key(|evaluation| evaluation.step);
    all
}

/// A server on which a worker did two steps, the first of which it held up until it had claimed and fetched the second and `then`
/// was done.
async fn with_the_next_at_hand(then: impl AsyncFnOnce(&TestServer)) -> TestServer {
    let server = queued().await;
    let run = "lab/run".parse().unwrap();
    let dir = checkpoint(server.dir.path(), "b", 9000, 2);
    push(&server.admin, &run, 2, &dir, &PushOptions::default(), |_| {})
        .await
        .unwrap();
    let cache = server.dir.path().join("cache");
    let (go, word) = channel();
    let first = Mutex::new(Some(HalfDone(word)));
    let load = move |dir: &Path, options: EngineOptions| match first.lock().unwrap().take() {
        Some(engine) => Ok(Box::new(engine) as Box<dyn Engine>),
        None => load_fake()(dir, options),
    };
    let watch = async {
        let second = by_step(&server).await[1].checkpoint;
        let weights = cache.join(second.to_hex()).join("model.safetensors");
        let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while !weights.exists() {
            assert!(std::time::Instant::now() < until, "the next step was not fetched");
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        let states: Vec<_> = by_step(&server).await.iter().map(|one| one.state).collect();
        assert_eq!(states, [EvaluationState::Leased; 2]);
        then(&server).await;
        go.send(()).unwrap();
    };
    tokio::join!(server.work_with_cache(Arc::new(load), &cache), watch);
    server
}

#[tokio::test]
async fn the_next_step_is_fetched_while_this_one_is_computed() {
    let server = with_the_next_at_hand(async |_| ()).await;
    let states: Vec<_> = by_step(&server).await.iter().map(|one| one.state).collect();
    assert_eq!(states, [EvaluationState::Done; 2]);
}

#[tokio::test]
async fn a_next_step_that_is_cancelled_is_not_computed() {
    let server = with_the_next_at_hand(async |server| {
        let second = by_step(server).await[1].id;
        server.admin.cancel_evaluation(second).await.unwrap();
    })
    .await;
    let states: Vec<_> = by_step(&server).await.iter().map(|one| one.state).collect();
    assert_eq!(states, [EvaluationState::Done, EvaluationState::Cancelled]);
}

#[test]
fn the_fake_engine_does_what_every_engine_must() {
    engine_suite(&mut FakeEngine);
}

#[test]
fn the_candle_engine_does_what_every_engine_must() {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/models/stories260K");
    if !model.is_dir() {
        println!("skipped: it/worker: there is no ../shared/data beside the clone");
        return;
    }
    let options = EngineOptions::default();
    engine_suite(&mut CandleEngine::load(&model, &candle_core::Device::Cpu, options).unwrap());
}
