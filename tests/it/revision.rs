//! Steps that share a model, steps that were replaced, and steps that were deleted: what their scores and the page say.

use fineline_api::{EvaluationState, Reference, RunName, Scope, Score};
use fineline_client::{DeleteOptions, EvaluationQuery, PushOptions, ScoreQuery, apply_suite, push};
use harness::{TestServer, checkpoint, load_fake, serve_with, suite};

/// Everybody may read, and a suite waits for steps.
async fn server() -> (TestServer, RunName) {
    let server = serve_with(|options| options.anonymous_read = true).await;
    let run = server.run("lab/run").await;
    let file = suite(server.dir.path());
    apply_suite(&server.admin, &file, &"lab/*".parse().unwrap(), false)
        .await
        .unwrap();
    (server, run)
}

async fn pushed(server: &TestServer, run: &RunName, step: u64, seed: u32, replace: bool) -> Vec<String> {
    let dir = checkpoint(server.dir.path(), &format!("{step}-{seed}"), 9000, seed);
    let options = PushOptions {
        replace,
        ..PushOptions::default()
    };
    push(&server.admin, run, step, &dir, &options, |_| {})
        .await
        .unwrap()
        .warnings
}

async fn work(server: &TestServer) {
    server.work(load_fake()).await;
    let ended = server
        .admin
        .list_evaluations(&EvaluationQuery::default(), None, None)
        .await
        .unwrap();
    let undone = ended
        .items
        .iter()
        .find(|evaluation| evaluation.state != EvaluationState::Done);
    assert!(undone.is_none(), "{undone:?}");
}

async fn scores(server: &TestServer, run: &RunName, all_revisions: bool) -> Vec<Score> {
    let query = ScoreQuery {
        metric: Some("acc".to_owned()),
        all_revisions,
        ..ScoreQuery::default()
    };
    server.admin.list_scores(run, &query, None, None).await.unwrap().items
}

async fn page(server: &TestServer) -> String {
    let url = format!("{}/runs/lab/run", server.server.url);
    reqwest::get(url).await.unwrap().text().await.unwrap()
}

#[tokio::test]
async fn one_model_at_two_steps_is_evaluated_once_and_both_say_so() {
    let (server, run) = server().await;
    pushed(&server, &run, 1, 7, false).await;
    let warnings = pushed(&server, &run, 2, 7, false).await;
    assert!(warnings[0].contains("weights are those of step 1"), "{warnings:?}");
    work(&server).await;

    let evaluations = server
        .admin
        .list_evaluations(&EvaluationQuery::default(), None, None)
        .await
        .unwrap();
    assert_eq!(evaluations.items.len(), 1);
    let scores = scores(&server, &run, false).await;
    let of: Vec<_> = scores.iter().map(|score| (score.step, score.evaluated_step)).collect();
    assert_eq!(of, [(1, None), (2, Some(1))]);
    assert_eq!(scores[0].value, scores[1].value);
    let shown = server.admin.get_checkpoint(&run, &Reference::Step(2)).await.unwrap();
    assert_eq!(shown.same_model_steps, [1]);
    assert!(page(&server).await.contains("the same model as step 1: evaluated once"));
}

#[tokio::test]
async fn a_replaced_step_shows_its_current_scores_and_says_that_there_was_another() {
    let (server, run) = server().await;
    pushed(&server, &run, 1, 7, false).await;
    let before = server
        .admin
        .get_checkpoint(&run, &Reference::Step(1))
        .await
        .unwrap()
        .digest
        .unwrap();
    pushed(&server, &run, 1, 8, true).await;
    work(&server).await;

    let current = scores(&server, &run, false).await;
    assert_eq!((current.len(), current[0].n_replaced, current[0].current), (1, 1, true));
    assert_ne!(current[0].checkpoint, before);
    let all = scores(&server, &run, true).await;
    assert_eq!(
        all.iter()
            .map(|score| (score.checkpoint == before, score.current))
            .collect::<Vec<_>>(),
        [(true, false), (false, true)]
    );
    let shown = server.admin.get_checkpoint(&run, &Reference::Step(1)).await.unwrap();
    assert_eq!(shown.replaced, [before]);
    assert!(
        page(&server)
            .await
            .contains(&format!("this revision replaced {before}"))
    );
    let old = server
        .admin
        .list_files(&run, &Reference::Digest(before), false)
        .await
        .unwrap();
    assert_eq!(old.len(), 3);
}

#[tokio::test]
async fn what_was_measured_of_a_deleted_step_stays_unless_it_is_asked_for() {
    let (server, run) = server().await;
    for (step, seed) in [(1, 1), (2, 3), (3, 5)] {
        pushed(&server, &run, step, seed, false).await;
    }
    work(&server).await;
    let with_scores = DeleteOptions {
        scores: true,
        ..DeleteOptions::default()
    };

    server
        .admin
        .delete_checkpoint(&run, &Reference::Step(1), DeleteOptions::default())
        .await
        .unwrap();
    server
        .admin
        .delete_checkpoint(&run, &Reference::Step(2), with_scores)
        .await
        .unwrap();

    let left: Vec<_> = scores(&server, &run, false)
        .await
        .iter()
        .map(|score| (score.step, score.deleted))
        .collect();
    assert_eq!(left, [(1, true), (3, false)]);
    let page = page(&server).await;
    let rows = |step: u64| {
        page.matches(&format!("<tr><th class=\"number\" scope=\"row\">{step}</th>"))
            .count()
    };
    assert!(page.contains("deleted") && rows(1) == 1 && rows(2) == 0, "{page}");
    let evaluations = server
        .admin
        .list_evaluations(&EvaluationQuery::default(), None, None)
        .await
        .unwrap();
    assert_eq!(evaluations.items.len(), 2);
}

#[tokio::test]
async fn an_evaluation_of_a_deleted_step_is_cancelled_and_queued_again_when_the_step_is_back() {
    let (server, run) = server().await;
    pushed(&server, &run, 1, 7, false).await;
    let state = async || {
        let list = server
            .admin
            .list_evaluations(&EvaluationQuery::default(), None, None)
            .await
            .unwrap();
        list.items
            .iter()
            .map(|evaluation| (evaluation.step, evaluation.state))
            .collect::<Vec<_>>()
    };
    server
        .admin
        .delete_checkpoint(&run, &Reference::Step(1), DeleteOptions::default())
        .await
        .unwrap();
    assert_eq!(state().await, [(1, EvaluationState::Cancelled)]);

    pushed(&server, &run, 5, 7, false).await;
    assert_eq!(state().await, [(5, EvaluationState::Queued)]);
    // And one that another step waits for goes on for that one.
    pushed(&server, &run, 6, 7, false).await;
    server
        .admin
        .delete_checkpoint(&run, &Reference::Step(5), DeleteOptions::default())
        .await
        .unwrap();
    assert_eq!(state().await, [(6, EvaluationState::Queued)]);
    work(&server).await;
    assert_eq!(
        scores(&server, &run, false)
            .await
            .iter()
            .map(|score| score.step)
            .collect::<Vec<_>>(),
        [1, 5, 6]
    );
}

#[tokio::test]
async fn a_leased_evaluation_whose_step_is_deleted_goes_to_another_step_and_its_worker_loses_it() {
    // Given one model at two steps, and a worker that has its evaluation
    let (server, run) = server().await;
    for step in [1, 2] {
        pushed(&server, &run, step, 7, false).await;
    }
    let claim = fineline_api::ClaimEvaluation {
        worker: "w".to_owned(),
        device: "cpu".to_owned(),
        memory_bytes: 1,
        dtypes: vec!["float32".to_owned()],
        architectures: vec!["LlamaForCausalLM".to_owned()],
        wait_s: 0,
        claim_id: None,
        harness_version: None,
    };
    let worker = server.client(&[Scope::Evaluate], "*").await;
    let lease = worker.claim_evaluation(&claim).await.unwrap().unwrap();
    let (id, worker) = (lease.evaluation.id, worker.with_lease(&lease.token).unwrap());

    server
        .admin
        .delete_checkpoint(&run, &Reference::Step(1), DeleteOptions::default())
        .await
        .unwrap();

    let lost = worker
        .heartbeat_evaluation(id, &fineline_api::Progress::default(), 0)
        .await;
    assert!(matches!(lost, Err(fineline_client::Error::LeaseLost(_))), "{lost:?}");
    let moved = server.admin.get_evaluation(id).await.unwrap();
    assert_eq!(
        (moved.step, moved.state, moved.n_expiries),
        (2, EvaluationState::Queued, 0)
    );
    work(&server).await;
}

#[tokio::test]
async fn an_evaluation_that_ended_badly_is_tried_again_where_its_model_still_is() {
    let (server, run) = server().await;
    pushed(&server, &run, 1, 7, false).await;
    let list = server
        .admin
        .list_evaluations(&EvaluationQuery::default(), None, None)
        .await
        .unwrap();
    let id = list.items[0].id;
    server.admin.cancel_evaluation(id).await.unwrap();
    pushed(&server, &run, 2, 7, false).await;
    let gone = |step| {
        let (admin, run) = (server.admin.clone(), run.clone());
        async move {
            let options = DeleteOptions::default();
            admin
                .delete_checkpoint(&run, &Reference::Step(step), options)
                .await
                .unwrap()
        }
    };
    gone(1).await;

    let tried = server.admin.retry_evaluation(id).await.unwrap();
    assert_eq!((tried.step, tried.state), (2, EvaluationState::Queued));
    work(&server).await;

    // And where it is nowhere, that is said.
    pushed(&server, &run, 3, 9, false).await;
    let query = EvaluationQuery {
        reference: Some(Reference::Step(3)),
        run: Some(run.clone()),
        ..EvaluationQuery::default()
    };
    let id = server.admin.list_evaluations(&query, None, None).await.unwrap().items[0].id;
    gone(3).await;
    let refused = server.admin.retry_evaluation(id).await.unwrap_err();
    assert!(refused.to_string().contains("was deleted"), "{refused}");
}
