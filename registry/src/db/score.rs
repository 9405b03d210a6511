//! Scores and sample logs.

use fineline_api::score::OWN_HARNESS;
use fineline_api::{PostScores, RunName, Score, TaskScore};
use fineline_format::Digest;
use sea_orm::sea_query::OnConflict;
use sea_orm::{
    ActiveValue::{NotSet, Set},
    ColumnTrait, ConnectionTrait, DbErr, EntityTrait, QueryFilter, QueryOrder, QuerySelect,
};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

use super::entity::{evaluation, revision, revision_evaluation, sample_log, score, suite};

/// Replaces the scores of one task of an evaluation.
pub(crate) async fn replace_task(
    conn: &impl ConnectionTrait,
    evaluation: &evaluation::Model,
    task: &str,
    scores: &[TaskScore],
) -> Result<(), DbErr> {
    score::Entity::delete_many()
        .filter(score::Column::EvaluationId.eq(evaluation.id))
        .filter(score::Column::Task.eq(task))
        .exec(conn)
        .await?;
    let now = super::now_ms(conn).await?;
    for new in scores {
        let row = score::ActiveModel {
            id: NotSet,
            evaluation_id: Set(Some(evaluation.id)),
            revision_id: Set(None),
            task: Set(task.to_owned()),
            metric: Set(new.metric.clone()),
            filter: Set(new.filter.clone()),
            value: Set(new.value),
            stderr: Set(new.stderr),
            stderr_method: Set(new.stderr_method.clone()),
            n: Set(super::signed(new.n)),
            n_shot: Set(i32::try_from(new.n_shot).unwrap_or(i32::MAX)),
            higher_is_better: Set(new.higher_is_better),
            harness: Set(OWN_HARNESS.to_owned()),
            harness_version: Set(Some(new.harness_version.clone())),
            dtype: Set(Some(evaluation.dtype.clone())),
            provenance: Set(super::to_json(&new.provenance)?),
            created_at_ms: Set(now),
        };
        score::Entity::insert(row).exec_without_returning(conn).await?;
    }
    Ok(())
}

/// The tasks of an evaluation that have scores.
pub(crate) async fn scored_tasks(conn: &impl ConnectionTrait, evaluation: Uuid) -> Result<BTreeSet<String>, DbErr> {
    let query = score::Entity::find()
        .select_only()
        .column(score::Column::Task)
        .distinct()
        .filter(score::Column::EvaluationId.eq(evaluation));
    let tasks: Vec<String> = query.into_tuple().all(conn).await?;
    Ok(tasks.into_iter().collect())
}

/// Takes an evaluation's scores away, before another try.
pub(crate) async fn clear(conn: &impl ConnectionTrait, evaluation: Uuid) -> Result<(), DbErr> {
    score::Entity::delete_many()
        .filter(score::Column::EvaluationId.eq(evaluation))
        .exec(conn)
        .await
        .map(|_| ())
}

/// Posts scores from outside for a revision; the same key again replaces the value.
pub(crate) async fn post(conn: &impl ConnectionTrait, revision_id: i64, new: &PostScores) -> Result<(), DbErr> {
    let now = super::now_ms(conn).await?;
    for external in &new.scores {
        score::Entity::delete_many()
            .filter(score::Column::RevisionId.eq(revision_id))
            .filter(score::Column::Harness.eq(new.harness.as_str()))
            .filter(score::Column::Task.eq(external.task.as_str()))
            .filter(score::Column::Metric.eq(external.metric.as_str()))
            .filter(score::Column::Filter.eq(external.filter.as_str()))
            .filter(score::Column::NShot.eq(external.n_shot))
            .exec(conn)
            .await?;
        let row = score::ActiveModel {
            id: NotSet,
            evaluation_id: Set(None),
            revision_id: Set(Some(revision_id)),
            task: Set(external.task.clone()),
            metric: Set(external.metric.clone()),
            filter: Set(external.filter.clone()),
            value: Set(external.value),
            stderr: Set(external.stderr),
            stderr_method: Set(None),
            n: Set(super::signed(external.n)),
            n_shot: Set(i32::try_from(external.n_shot).unwrap_or(i32::MAX)),
            higher_is_better: Set(external.higher_is_better),
            harness: Set(new.harness.clone()),
            harness_version: Set(new.harness_version.clone()),
            dtype: Set(external.dtype.clone()),
            provenance: Set(serde_json::json!({})),
            created_at_ms: Set(now),
        };
        score::Entity::insert(row).exec_without_returning(conn).await?;
    }
    Ok(())
}

/// What a list of scores is narrowed to.
#[derive(Debug, Clone, Default)]
pub(crate) struct ScoreFilter {
    pub(crate) step_min: Option<u64>,
    pub(crate) step_max: Option<u64>,
    pub(crate) task: Option<String>,
    pub(crate) metric: Option<String>,
    pub(crate) harness: Option<String>,
    /// Those of replaced revisions too.
    pub(crate) all_revisions: bool,
}

/// A run's scores by step, task, metric, filter and harness: those of evaluations as each step shows them, and those
/// from outside.
pub(crate) async fn list(
    conn: &impl ConnectionTrait,
    run_id: i64,
    run: &RunName,
    filter: &ScoreFilter,
) -> Result<Vec<Score>, DbErr> {
    let mut revisions = revision::Entity::find()
        .filter(revision::Column::RunId.eq(run_id))
        .filter(revision::Column::State.eq(fineline_api::CheckpointState::Ready.as_str()));
    if let Some(min) = filter.step_min {
        revisions = revisions.filter(revision::Column::Step.gte(super::signed(min)));
    }
    if let Some(max) = filter.step_max {
        revisions = revisions.filter(revision::Column::Step.lte(super::signed(max)));
    }
    if !filter.all_revisions {
        revisions = revisions.filter(revision::Column::Current.eq(true));
    }
    let revisions: BTreeMap<i64, revision::Model> = revisions
        .all(conn)
        .await?
        .into_iter()
        .map(|row| (row.id, row))
        .collect();
    let ids: Vec<i64> = revisions.keys().copied().collect();
    let mut scores = Vec::new();
    for ids in ids.chunks(500) {
        let links = revision_evaluation::Entity::find()
            .filter(revision_evaluation::Column::RevisionId.is_in(ids.iter().copied()))
            .all(conn)
            .await?;
        let evaluations: BTreeSet<Uuid> = links.iter().map(|link| link.evaluation_id).collect();
        let ours = rows(
            conn,
            filter,
            score::Column::EvaluationId.is_in(evaluations.iter().copied()),
        )
        .await?;
        let suites = suites(conn, &evaluations).await?;
        for link in &links {
            for row in ours.iter().filter(|row| row.evaluation_id == Some(link.evaluation_id)) {
                let suite = suites.get(&link.evaluation_id).cloned();
                scores.push(describe(run, &revisions[&link.revision_id], row, suite)?);
            }
        }
        for row in rows(conn, filter, score::Column::RevisionId.is_in(ids.iter().copied())).await? {
            if let Some(revision) = row.revision_id.and_then(|id| revisions.get(&id)) {
                scores.push(describe(run, revision, &row, None)?);
            }
        }
    }
    scores.sort_by(|a, b| key(a).cmp(&key(b)));
    Ok(scores)
}

fn key(score: &Score) -> (u64, &str, &str, &str, &str, u32, Option<Uuid>) {
    (
        score.step,
        &score.task,
        &score.metric,
        &score.filter,
        &score.harness,
        score.n_shot,
        score.evaluation,
    )
}

async fn rows(
    conn: &impl ConnectionTrait,
    filter: &ScoreFilter,
    of: sea_orm::sea_query::SimpleExpr,
) -> Result<Vec<score::Model>, DbErr> {
    let mut query = score::Entity::find().filter(of).order_by_asc(score::Column::Id);
    let narrow = [
        (score::Column::Task, &filter.task),
        (score::Column::Metric, &filter.metric),
        (score::Column::Harness, &filter.harness),
    ];
    for (column, wanted) in narrow {
        if let Some(wanted) = wanted {
            query = query.filter(column.eq(wanted.as_str()));
        }
    }
    query.all(conn).await
}

async fn suites(conn: &impl ConnectionTrait, ids: &BTreeSet<Uuid>) -> Result<BTreeMap<Uuid, String>, DbErr> {
    let of_suite: sea_orm::RelationDef = evaluation::Entity::belongs_to(suite::Entity)
        .from(evaluation::Column::SuiteDigest)
        .to(suite::Column::Digest)
        .into();
    let rows: Vec<(Uuid, String)> = evaluation::Entity::find()
        .select_only()
        .column(evaluation::Column::Id)
        .column(suite::Column::Name)
        .join(sea_orm::JoinType::InnerJoin, of_suite)
        .filter(evaluation::Column::Id.is_in(ids.iter().copied()))
        .into_tuple()
        .all(conn)
        .await?;
    Ok(rows.into_iter().collect())
}

fn describe(
    run: &RunName,
    revision: &revision::Model,
    row: &score::Model,
    suite: Option<String>,
) -> Result<Score, DbErr> {
    let checkpoint = revision.checkpoint_digest.as_deref();
    let checkpoint =
        checkpoint.ok_or_else(|| DbErr::Type(format!("ready revision {} has no checkpoint", revision.id)))?;
    Ok(Score {
        run: run.clone(),
        step: revision.step.unsigned_abs(),
        tokens: revision.tokens.map(i64::unsigned_abs),
        task: row.task.clone(),
        metric: row.metric.clone(),
        filter: row.filter.clone(),
        value: row.value,
        stderr: row.stderr,
        stderr_method: row.stderr_method.clone(),
        n: row.n.unsigned_abs(),
        n_shot: row.n_shot.unsigned_abs(),
        higher_is_better: row.higher_is_better,
        harness: row.harness.clone(),
        harness_version: row.harness_version.clone(),
        dtype: row.dtype.clone(),
        suite,
        checkpoint: super::digest(checkpoint)?,
        evaluation: row.evaluation_id,
        current: revision.current,
        provenance: super::from_json(row.provenance.clone())?,
        created_at: super::time(row.created_at_ms),
    })
}

/// Keeps which content is the sample log of a task.
pub(crate) async fn set_samples(
    conn: &impl ConnectionTrait,
    evaluation: Uuid,
    task: &str,
    file: &Digest,
) -> Result<(), DbErr> {
    let row = sample_log::ActiveModel {
        evaluation_id: Set(evaluation),
        task: Set(task.to_owned()),
        file_digest: Set(super::blob(file)),
    };
    let again = OnConflict::columns([sample_log::Column::EvaluationId, sample_log::Column::Task])
        .update_column(sample_log::Column::FileDigest)
        .to_owned();
    sample_log::Entity::insert(row)
        .on_conflict(again)
        .exec_without_returning(conn)
        .await
        .map(|_| ())
}

/// The content that is the sample log of a task.
pub(crate) async fn find_samples(
    conn: &impl ConnectionTrait,
    evaluation: Uuid,
    task: &str,
) -> Result<Option<Digest>, DbErr> {
    let row = sample_log::Entity::find_by_id((evaluation, task.to_owned()))
        .one(conn)
        .await?;
    row.map(|row| super::digest(&row.file_digest)).transpose()
}
