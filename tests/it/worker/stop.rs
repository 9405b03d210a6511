//! A worker that is told to end. No lease runs out within a test: what is free again was given back.

use fineline_api::Evaluation;
use tokio::sync::watch;

use super::*;

const LONG: LeaseOptions = LeaseOptions {
    ttl_s: 600,
    back_off_s: 600,
};

/// A server with a step whose suite has four tasks of choices and one of texts.
async fn queued_tasks() -> TestServer {
    let server = serve_with(|options| options.lease = LONG).await;
    let (run, dir) = (server.run("lab/run").await, server.dir.path());
    let (file, _) = grammar_suite(dir, 2);
    apply_suite(&server.admin, &file, &"lab/*".parse().unwrap(), false)
        .await
        .unwrap();
    push(
        &server.admin,
        &run,
        1,
        &tiny_llama(dir, "model", 7),
        &PushOptions::default(),
        |_| {},
    )
    .await
    .unwrap();
    server
}

/// Works until it is told to end, with so long for the task at hand.
async fn work_until(server: &TestServer, load: LoadEngine, drain_timeout_s: u64, told: watch::Receiver<usize>) {
    let options = WorkerOptions {
        once: false,
        drain_timeout_s,
        cache: Some(server.dir.path().join("cache")),
        ..server.worker_options().await
    };
    run_with(options, load, Stop::by(told)).await.unwrap();
}

/// Asserts that an evaluation waits for the next worker, and nothing is counted against it.
fn assert_given_back(evaluation: &Evaluation) {
    assert_eq!(evaluation.state, EvaluationState::Queued, "{:?}", evaluation.reason);
    assert_eq!((evaluation.n_failures, evaluation.n_expiries), (0, 0));
    let reason = evaluation.reason.as_deref().unwrap_or_default();
    assert!(reason.contains("worker `w` gave it back"), "{reason}");
}

/// Counts what it is asked.
fn counting(n_asked: &Arc<AtomicUsize>) -> LoadEngine {
    let n_asked = Arc::clone(n_asked);
    Arc::new(move |_: &Path, _| {
        let n_asked = Arc::clone(&n_asked);
        Ok(Box::new(Scripted(
            move |pairs: &[(String, String)], told: Progress<'_>| {
                n_asked.fetch_add(1, Ordering::SeqCst);
                FakeEngine.loglikelihood(pairs, told)
            },
        )))
    })
}

#[tokio::test]
async fn the_task_at_hand_ends_and_another_worker_goes_on_behind_it() {
    let server = queued_tasks().await;
    let ((asked, was_asked), (go, word)) = (channel(), channel());
    let (told, stop) = watch::channel(0);
    let end = async {
        let (_, _was_asked) = hear(was_asked).await;
        told.send_replace(1);
        assert_eq!(evaluation(&server).await.state, EvaluationState::Leased);
        go.send(()).unwrap();
    };
    tokio::join!(work_until(&server, load_first(held_up(asked, word)), 60, stop), end);
    assert_given_back(&evaluation(&server).await);
    let n_scored = scores(&server).await.len();
    assert!(n_scored > 0, "the task at hand is scored");

    let n_asked = Arc::new(AtomicUsize::new(0));
    server.work(counting(&n_asked)).await;
    let done = evaluation(&server).await;
    assert_eq!(
        (done.state, done.n_failures, done.n_expiries),
        (EvaluationState::Done, 0, 0)
    );
    assert_eq!(n_asked.load(Ordering::SeqCst), 3, "one of four was scored");
    assert!(scores(&server).await.len() > n_scored);
}

#[tokio::test]
async fn the_last_task_ends_its_evaluation_and_what_is_held_ahead_is_free_before() {
    let (server, second) = two_queued().await;
    let ((asked, was_asked), (go, word)) = (channel(), channel());
    let (told, stop) = watch::channel(0);
    let end = async {
        let (_, _was_asked) = hear(was_asked).await;
        until(async || second.join("model.safetensors").exists()).await;
        assert_eq!(states(&server).await, [EvaluationState::Leased; 2]);
        told.send_replace(1);
        let is_free = [EvaluationState::Leased, EvaluationState::Queued];
        until(async || states(&server).await == is_free).await;
        assert_given_back(&by_step(&server).await[1]);
        go.send(()).unwrap();
    };
    tokio::join!(work_until(&server, load_first(held_up(asked, word)), 60, stop), end);
    assert_eq!(states(&server).await, [EvaluationState::Done, EvaluationState::Queued]);
}

#[tokio::test]
async fn a_task_that_does_not_end_in_time_is_given_back_undone() {
    for drain_timeout_s in [0, 1] {
        let server = queued_tasks().await;
        let ((asked, was_asked), (go, word)) = (channel(), channel());
        let (told, stop) = watch::channel(0);
        let begin = async {
            let (_, was_asked) = hear(was_asked).await;
            told.send_replace(1);
            was_asked
        };
        tokio::join!(
            work_until(&server, load_first(held_up(asked, word)), drain_timeout_s, stop),
            begin
        );
        assert_given_back(&evaluation(&server).await);
        assert_eq!(scores(&server).await, []);
        // The engine's thread is what the test's end waits for.
        go.send(()).unwrap();
    }
}

#[tokio::test]
async fn a_model_that_is_being_loaded_is_not_waited_for() {
    let server = queued_tasks().await;
    let ((asked, was_asked), (go, word)) = (channel(), channel());
    let word = Mutex::new(word);
    let load: LoadEngine = Arc::new(move |dir: &Path, options| {
        asked.send(()).unwrap();
        word.lock().unwrap().recv().unwrap();
        load_fake()(dir, options)
    });
    let (told, stop) = watch::channel(0);
    let end = async {
        let (_, was_asked) = hear(was_asked).await;
        told.send_replace(1);
        was_asked
    };
    tokio::join!(work_until(&server, load, 600, stop), end);
    assert_given_back(&evaluation(&server).await);
    go.send(()).unwrap();
}

#[tokio::test]
async fn the_second_time_it_ends_at_once_and_the_lease_is_left() {
    let server = queued_tasks().await;
    let ((asked, was_asked), (go, word)) = (channel(), channel());
    let (told, stop) = watch::channel(0);
    let end = async {
        let (_, was_asked) = hear(was_asked).await;
        told.send_replace(1);
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(evaluation(&server).await.state, EvaluationState::Leased);
        told.send_replace(2);
        was_asked
    };
    tokio::join!(work_until(&server, load_first(held_up(asked, word)), 600, stop), end);
    assert_eq!(evaluation(&server).await.state, EvaluationState::Leased);
    go.send(()).unwrap();
}

#[tokio::test]
async fn a_worker_that_waits_for_work_ends_and_holds_nothing() {
    let server = queued_tasks().await;
    server.work(load_fake()).await;
    let (told, stop) = watch::channel(0);
    let begun = Instant::now();
    let end = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        told.send_replace(1);
    };
    tokio::join!(work_until(&server, load_fake(), 600, stop), end);
    // Less than the server lets a claim wait.
    assert!(begun.elapsed() < Duration::from_secs(20));
    let other = checkpoint(server.dir.path(), "b", 9000, 2);
    push(
        &server.admin,
        &"lab/run".parse().unwrap(),
        2,
        &other,
        &PushOptions::default(),
        |_| {},
    )
    .await
    .unwrap();
    server.work(load_fake()).await;
    assert_eq!(states(&server).await, [EvaluationState::Done; 2]);
}
