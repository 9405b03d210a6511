//! The worker's own loop against the registry, with an engine of known numbers; and what every engine must do.

mod metrics;
mod stop;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fineline_api::EvaluationState;
use fineline_client::{EvaluationQuery, PushOptions, ScoreQuery, apply_suite, push};
use fineline_evaluator::candle::engine::CandleEngine;
use fineline_evaluator::engine::{Answer, Description, Done, Engine, EngineOptions, Generation, Progress};
use fineline_evaluator::stop::Stop;
use fineline_evaluator::worker::{LoadEngine, WorkerOptions, run_with};
use fineline_registry::serve::LeaseOptions;
use harness::{
    FakeEngine, TestServer, checkpoint, engine_suite, grammar_suite, load_fake, serve_with, suite, tiny_llama, until,
};

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
async fn a_real_model_is_computed_out_of_the_cache() {
    let server = serve_with(|_| {}).await;
    let (run, dir) = (server.run("lab/run").await, server.dir.path());
    let (file, _) = grammar_suite(dir, 2);
    apply_suite(&server.admin, &file, &"lab/*".parse().unwrap(), false)
        .await
        .unwrap();
    let model = tiny_llama(dir, "model", 7);
    push(&server.admin, &run, 1, &model, &PushOptions::default(), |_| {})
        .await
        .unwrap();
    let load = |dir: &Path, options| {
        let engine = CandleEngine::load(dir, &candle_core::Device::Cpu, options)?;
        Ok(Box::new(engine) as Box<dyn Engine>)
    };
    server.work_with_cache(Arc::new(load), &dir.join("cache")).await;
    let ended = evaluation(&server).await;
    assert_eq!(ended.state, EvaluationState::Done, "{:?}", ended.reason);
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

#[tokio::test]
async fn a_device_that_fails_ends_its_worker_and_what_was_at_hand_is_tried_again() {
    let server = queued_with(LeaseOptions {
        ttl_s: 600,
        back_off_s: 600,
    })
    .await;
    // As candle shows what a card's driver says.
    let fault = "DriverError(CUDA_ERROR_ILLEGAL_ADDRESS, \"an illegal memory access was encountered\")";
    let failing = Scripted(move |_: &[(String, String)], _: Progress<'_>| anyhow::bail!(fault));
    let options = WorkerOptions {
        once: false,
        ..server.worker_options().await
    };
    let ended = run_with(options, load_first(Box::new(failing)), Stop::never()).await;
    let text = ended.unwrap_err().to_string();
    assert!(text.contains("`cpu` has failed"), "{text}");
    let left = evaluation(&server).await;
    assert_eq!((left.state, left.n_failures), (EvaluationState::Queued, 1));
    assert!(left.reason.unwrap().contains("CUDA_ERROR_ILLEGAL_ADDRESS"));
}

/// An engine that answers as it is told to.
struct Scripted<F>(F);

impl<F> Engine for Scripted<F>
where
    F: FnMut(&[(String, String)], Progress<'_>) -> anyhow::Result<Vec<Answer>> + Send,
{
    fn loglikelihood(&mut self, asked: &[(String, String)], told: Progress<'_>) -> anyhow::Result<Vec<Answer>> {
        (self.0)(asked, told)
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

/// Says that half is done, tells that it was asked, and waits for a word before it answers.
fn held_up(asked: Sender<()>, word: Receiver<()>) -> Box<dyn Engine> {
    Box::new(Scripted(move |pairs: &[(String, String)], told: Progress<'_>| {
        told(Done {
            n_requests: pairs.len() as u64 / 2,
            n_tokens: 1,
        })?;
        asked.send(()).unwrap();
        word.recv().unwrap();
        FakeEngine.loglikelihood(pairs, told)
    }))
}

/// Loads that engine first, and then engines that hold nothing up.
fn load_first(engine: Box<dyn Engine>) -> LoadEngine {
    let first = Mutex::new(Some(engine));
    Arc::new(move |dir: &Path, options| match first.lock().unwrap().take() {
        Some(engine) => Ok(engine),
        None => load_fake()(dir, options),
    })
}

/// What comes next from another thread.
async fn hear<T: Send + 'static>(said: Receiver<T>) -> (T, Receiver<T>) {
    let hear = move || (said.recv_timeout(Duration::from_secs(60)).unwrap(), said);
    tokio::task::spawn_blocking(hear).await.unwrap()
}

#[tokio::test]
async fn work_that_is_cancelled_in_the_middle_leaves_no_score() {
    let server = queued().await;
    let id = evaluation(&server).await.id;
    let ((asked, was_asked), (go, word)) = (channel(), channel());
    let load = load_first(held_up(asked, word));
    let cancel = async {
        hear(was_asked).await;
        server.admin.cancel_evaluation(id).await.unwrap();
        go.send(()).unwrap();
    };
    tokio::join!(server.work(load), cancel);
    assert_eq!(evaluation(&server).await.state, EvaluationState::Cancelled);
    assert_eq!(scores(&server).await, []);
    server.admin.retry_evaluation(id).await.unwrap();
    server.work(load_fake()).await;
    assert_eq!(evaluation(&server).await.state, EvaluationState::Done);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_whose_lease_is_lost_stops_at_its_next_batch() {
    let hasty = LeaseOptions {
        ttl_s: 1,
        back_off_s: 0,
    };
    let server = queued_with(hasty).await;
    let id = evaluation(&server).await.id;
    // It computes for minutes, and tells when it is made to stop.
    let (say, said) = channel();
    let lasting = Scripted(move |_: &[(String, String)], told: Progress<'_>| {
        say.send("began").unwrap();
        let end = Instant::now() + Duration::from_secs(120);
        while Instant::now() < end {
            if let Err(error) = told(Done::default()) {
                say.send("stopped").unwrap();
                return Err(error);
            }
            std::thread::yield_now();
        }
        anyhow::bail!("nobody made it stop");
    });
    let cancel = async {
        let (word, said) = hear(said).await;
        assert_eq!(word, "began");
        server.admin.cancel_evaluation(id).await.unwrap();
        said
    };
    let ((), said) = tokio::join!(server.work(load_first(Box::new(lasting))), cancel);
    assert_eq!(hear(said).await.0, "stopped");
    assert_eq!(evaluation(&server).await.state, EvaluationState::Cancelled);
}

/// Evaluations in the order of their steps.
async fn by_step(server: &TestServer) -> Vec<fineline_api::Evaluation> {
    let query = EvaluationQuery::default();
    let mut all = server.admin.list_evaluations(&query, None, None).await.unwrap().items;
    all.sort_by_key(|evaluation| evaluation.step);
    all
}

async fn states(server: &TestServer) -> Vec<EvaluationState> {
    by_step(server).await.iter().map(|one| one.state).collect()
}

/// A server with two steps, and the folder that the second's checkpoint gets in a worker's cache.
async fn two_queued() -> (TestServer, PathBuf) {
    let server = queued().await;
    let run = "lab/run".parse().unwrap();
    let dir = checkpoint(server.dir.path(), "b", 9000, 2);
    push(&server.admin, &run, 2, &dir, &PushOptions::default(), |_| {})
        .await
        .unwrap();
    let second = by_step(&server).await[1].checkpoint;
    let folder = server.dir.path().join("cache").join(second.to_hex());
    (server, folder)
}

/// Has a worker do both steps, the first of which it holds up until `then` is done.
async fn work_on_two(server: &TestServer, then: impl AsyncFnOnce()) {
    let ((asked, was_asked), (go, word)) = (channel(), channel());
    let cache = server.dir.path().join("cache");
    let watch = async {
        let (_, _was_asked) = hear(was_asked).await;
        then().await;
        // Nobody hears it where the first was cancelled.
        let _ = go.send(());
    };
    tokio::join!(server.work_with_cache(load_first(held_up(asked, word)), &cache), watch);
}

#[tokio::test]
async fn the_next_step_is_fetched_while_this_one_is_computed() {
    let (server, second) = two_queued().await;
    work_on_two(&server, async || {
        let weights = second.join("model.safetensors");
        until(async || weights.exists()).await;
        assert_eq!(states(&server).await, [EvaluationState::Leased; 2]);
        let is_ahead = async || {
            by_step(&server).await[1]
                .progress
                .as_ref()
                .is_some_and(|said| said.ahead)
        };
        until(is_ahead).await;
    })
    .await;
    assert_eq!(states(&server).await, [EvaluationState::Done; 2]);
}

#[tokio::test]
async fn a_next_step_that_is_cancelled_is_not_computed() {
    let (server, second) = two_queued().await;
    work_on_two(&server, async || {
        until(async || second.join("model.safetensors").exists()).await;
        let id = by_step(&server).await[1].id;
        server.admin.cancel_evaluation(id).await.unwrap();
    })
    .await;
    assert_eq!(
        states(&server).await,
        [EvaluationState::Done, EvaluationState::Cancelled]
    );
}

#[tokio::test]
async fn a_step_that_is_cancelled_leaves_the_next_one_as_it_was() {
    let (server, second) = two_queued().await;
    work_on_two(&server, async || {
        until(async || second.join("model.safetensors").exists()).await;
        let id = by_step(&server).await[0].id;
        server.admin.cancel_evaluation(id).await.unwrap();
    })
    .await;
    assert_eq!(
        states(&server).await,
        [EvaluationState::Cancelled, EvaluationState::Done]
    );
}

#[tokio::test]
async fn a_next_step_that_can_not_be_fetched_yet_is_fetched_when_its_turn_comes() {
    let (server, second) = two_queued().await;
    std::fs::create_dir_all(second.parent().unwrap()).unwrap();
    std::fs::write(&second, "in the way").unwrap();
    work_on_two(&server, async || {
        // Its lock has its size once its folder is to be made.
        let lock = second.with_extension("lock");
        let is_tried = async || std::fs::metadata(&lock).is_ok_and(|lock| lock.len() > 0);
        until(is_tried).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        std::fs::remove_file(&second).unwrap();
    })
    .await;
    assert_eq!(states(&server).await, [EvaluationState::Done; 2]);
    assert_eq!(by_step(&server).await[1].n_failures, 0);
}

#[tokio::test]
async fn no_model_is_loaded_while_another_is_in_memory() {
    // Given a first model that is still being loaded when its evaluation is cancelled
    let (server, _) = two_queued().await;
    let first = by_step(&server).await[0].id;
    let ((asked, was_asked), (go, word)) = (channel(), channel());
    let word = Mutex::new(Some((asked, word)));
    let n_loaded = Arc::new(AtomicUsize::new(0));
    let n_seen = Arc::clone(&n_loaded);
    let load = move |dir: &Path, options| {
        n_loaded.fetch_add(1, Ordering::SeqCst);
        if let Some((asked, word)) = word.lock().unwrap().take() {
            asked.send(()).unwrap();
            word.recv().unwrap();
        }
        load_fake()(dir, options)
    };
    let watch = async {
        let (_, _was_asked) = hear(was_asked).await;
        server.admin.cancel_evaluation(first).await.unwrap();
        let is_claimed = async || by_step(&server).await[1].state == EvaluationState::Leased;
        until(is_claimed).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        // Then the second waits until it is gone.
        assert_eq!(n_seen.load(Ordering::SeqCst), 1);
        go.send(()).unwrap();
    };
    tokio::join!(server.work(Arc::new(load)), watch);
    assert_eq!(n_seen.load(Ordering::SeqCst), 2);
    assert_eq!(
        states(&server).await,
        [EvaluationState::Cancelled, EvaluationState::Done]
    );
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
