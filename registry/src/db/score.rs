//! Scores and sample logs.

use std::collections::{BTreeMap, BTreeSet};

use fineline_api::score::OWN_HARNESS;
use fineline_api::{CheckpointState, PostScores, RunName, Score, TaskScore};
use fineline_format::Digest;
use sea_orm::sea_query::{Condition, OnConflict};
use sea_orm::{
    ActiveValue::{NotSet, Set},
    ColumnTrait, ConnectionTrait, DbErr, EntityTrait, FromQueryResult, JoinType, QueryFilter, QueryOrder, QuerySelect,
    RelationDef,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::entity::{evaluation, revision, revision_evaluation, sample_log, score};

/// Replaces the scores of one task of an evaluation, whose suite has that limit.
pub(crate) async fn replace_task(
    conn: &impl ConnectionTrait,
    evaluation: &evaluation::Model,
    task: &str,
    scores: &[TaskScore],
    limit: Option<u64>,
) -> Result<(), DbErr> {
    clear_task(conn, evaluation.id, task).await?;
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
            sample_limit: Set(limit.filter(|_| leaves_out(new)).map(super::signed)),
        };
        score::Entity::insert(row).exec_without_returning(conn).await?;
    }
    Ok(())
}

/// Whether a limit left samples out of a score: one that does not say how many documents there were counts as one of fewer.
fn leaves_out(score: &TaskScore) -> bool {
    let n_documents = score.provenance.get("n_documents").and_then(|n| n.parse::<u64>().ok());
    n_documents.is_none_or(|n| score.n < n)
}

/// The scores of an evaluation by task, as they were posted.
pub(crate) async fn by_task(
    conn: &impl ConnectionTrait,
    evaluation: Uuid,
) -> Result<BTreeMap<String, Vec<TaskScore>>, DbErr> {
    let query = score::Entity::find().filter(score::Column::EvaluationId.eq(evaluation));
    let mut tasks: BTreeMap<String, Vec<TaskScore>> = BTreeMap::new();
    for row in query.all(conn).await? {
        let posted = TaskScore {
            metric: row.metric,
            filter: row.filter,
            value: row.value,
            stderr: row.stderr,
            stderr_method: row.stderr_method,
            n: row.n.unsigned_abs(),
            n_shot: row.n_shot.unsigned_abs(),
            higher_is_better: row.higher_is_better,
            harness_version: row.harness_version.unwrap_or_default(),
            provenance: super::from_json(row.provenance)?,
        };
        tasks.entry(row.task).or_default().push(posted);
    }
    Ok(tasks)
}

/// Takes scores and sample logs of an evaluation away, of all tasks but those to `keep`.
pub(crate) async fn clear(conn: &impl ConnectionTrait, evaluation: Uuid, keep: &BTreeSet<String>) -> Result<(), DbErr> {
    let keep = || keep.iter().map(String::as_str);
    sample_log::Entity::delete_many()
        .filter(sample_log::Column::EvaluationId.eq(evaluation))
        .filter(sample_log::Column::Task.is_not_in(keep()))
        .exec(conn)
        .await?;
    score::Entity::delete_many()
        .filter(score::Column::EvaluationId.eq(evaluation))
        .filter(score::Column::Task.is_not_in(keep()))
        .exec(conn)
        .await
        .map(|_| ())
}

/// Takes the scores of one task away.
pub(crate) async fn clear_task(conn: &impl ConnectionTrait, evaluation: Uuid, task: &str) -> Result<(), DbErr> {
    score::Entity::delete_many()
        .filter(score::Column::EvaluationId.eq(evaluation))
        .filter(score::Column::Task.eq(task))
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
            .filter(match external.limit {
                Some(limit) => score::Column::SampleLimit.eq(super::signed(limit)),
                None => score::Column::SampleLimit.is_null(),
            })
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
            sample_limit: Set(external.limit.map(super::signed)),
        };
        score::Entity::insert(row).exec_without_returning(conn).await?;
    }
    Ok(())
}

/// Takes away the scores from outside that were posted for a revision.
pub(crate) async fn delete_posted(conn: &impl ConnectionTrait, revision_id: i64) -> Result<(), DbErr> {
    score::Entity::delete_many()
        .filter(score::Column::RevisionId.eq(revision_id))
        .exec(conn)
        .await
        .map(|_| ())
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

/// Where a score stands in a run's list: by step and revision, then by what was measured and how.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct ScoreKey {
    step: u64,
    revision: i64,
    task: String,
    metric: String,
    filter: String,
    harness: String,
    n_shot: u32,
    #[serde(default)]
    limit: Option<u64>,
    evaluation: Option<Uuid>,
}

impl ScoreKey {
    fn of(score: &Score, revision: i64) -> Self {
        Self {
            step: score.step,
            revision,
            task: score.task.clone(),
            metric: score.metric.clone(),
            filter: score.filter.clone(),
            harness: score.harness.clone(),
            n_shot: score.n_shot,
            limit: score.limit,
            evaluation: score.evaluation,
        }
    }
}

/// Revisions whose scores are read at once.
const REVISIONS_AT_ONCE: u64 = 50;

/// A run's scores in the order of their keys, those behind `after` only, `limit` at most: those of evaluations as each
/// step shows them, and those from outside.
pub(crate) async fn list(
    conn: &impl ConnectionTrait,
    run_id: i64,
    run: &RunName,
    filter: &ScoreFilter,
    after: Option<&ScoreKey>,
    limit: usize,
) -> Result<Vec<(ScoreKey, Score)>, DbErr> {
    let mut found = Vec::new();
    // The revision of the last score may have more of them.
    let mut from = after.map(|key| (super::signed(key.step), key.revision));
    while found.len() < limit {
        let revisions = revisions(conn, run_id, filter, from).await?;
        let Some(last) = revisions.last() else { break };
        from = Some((last.step, last.id + 1));
        let mut batch = scores_of(conn, run, filter, &revisions).await?;
        batch.retain(|(key, _)| after.is_none_or(|after| key > after));
        batch.sort_by(|(a, _), (b, _)| a.cmp(b));
        found.extend(batch);
    }
    found.truncate(limit);
    Ok(found)
}

/// Ready and deleted revisions that the filter lets pass, by step and id, from that pair on: what was measured stays.
async fn revisions(
    conn: &impl ConnectionTrait,
    run_id: i64,
    filter: &ScoreFilter,
    from: Option<(i64, i64)>,
) -> Result<Vec<revision::Model>, DbErr> {
    let mut query = revision::Entity::find()
        .filter(revision::Column::RunId.eq(run_id))
        .filter(
            revision::Column::State
                .is_in([CheckpointState::Ready, CheckpointState::Deleted].map(CheckpointState::as_str)),
        )
        .filter(revision::Column::CheckpointDigest.is_not_null());
    if let Some(min) = filter.step_min {
        query = query.filter(revision::Column::Step.gte(super::signed(min)));
    }
    if let Some(max) = filter.step_max {
        query = query.filter(revision::Column::Step.lte(super::signed(max)));
    }
    if !filter.all_revisions {
        query = query.filter(revision::Column::Current.eq(true));
    }
    if let Some((step, id)) = from {
        let same_step = Condition::all()
            .add(revision::Column::Step.eq(step))
            .add(revision::Column::Id.gte(id));
        query = query.filter(Condition::any().add(revision::Column::Step.gt(step)).add(same_step));
    }
    query
        .order_by_asc(revision::Column::Step)
        .order_by_asc(revision::Column::Id)
        .limit(REVISIONS_AT_ONCE)
        .all(conn)
        .await
}

async fn scores_of(
    conn: &impl ConnectionTrait,
    run: &RunName,
    filter: &ScoreFilter,
    revisions: &[revision::Model],
) -> Result<Vec<(ScoreKey, Score)>, DbErr> {
    let by_id: BTreeMap<i64, &revision::Model> = revisions.iter().map(|row| (row.id, row)).collect();
    let links = revision_evaluation::Entity::find()
        .filter(revision_evaluation::Column::RevisionId.is_in(by_id.keys().copied()))
        .all(conn)
        .await?;
    let evaluations: BTreeSet<Uuid> = links.iter().map(|link| link.evaluation_id).collect();
    let of_evaluations = score::Column::EvaluationId.is_in(evaluations.iter().copied());
    let mut ours: BTreeMap<Uuid, Vec<score::Model>> = BTreeMap::new();
    for row in rows(conn, filter, of_evaluations).await? {
        if let Some(id) = row.evaluation_id {
            ours.entry(id).or_default().push(row);
        }
    }
    let origins = origins(conn, &evaluations).await?;
    let n_replaced = n_replaced(conn, revisions).await?;
    let mut scores = Vec::new();
    let mut add = |revision: i64, row: &score::Model, origin: Option<&Origin>| -> Result<(), DbErr> {
        let of = by_id[&revision];
        let mut score = describe(run, of, row, origin)?;
        score.n_replaced = n_replaced.get(&of.step).copied().unwrap_or(0);
        scores.push((ScoreKey::of(&score, revision), score));
        Ok(())
    };
    for link in &links {
        for row in ours.get(&link.evaluation_id).into_iter().flatten() {
            add(link.revision_id, row, origins.get(&link.evaluation_id))?;
        }
    }
    let from_outside = score::Column::RevisionId.is_in(by_id.keys().copied());
    for row in rows(conn, filter, from_outside).await? {
        if let Some(revision) = row.revision_id {
            add(revision, &row, None)?;
        }
    }
    Ok(scores)
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

/// Where a score was measured.
#[derive(Debug, FromQueryResult)]
struct Origin {
    id: Uuid,
    suite_name: String,
    run_id: i64,
    step: i64,
}

async fn origins(conn: &impl ConnectionTrait, ids: &BTreeSet<Uuid>) -> Result<BTreeMap<Uuid, Origin>, DbErr> {
    let of_revision: RelationDef = evaluation::Entity::belongs_to(revision::Entity)
        .from(evaluation::Column::RevisionId)
        .to(revision::Column::Id)
        .into();
    let rows: Vec<Origin> = evaluation::Entity::find()
        .select_only()
        .columns([
            evaluation::Column::Id,
            evaluation::Column::SuiteName,
            evaluation::Column::RunId,
        ])
        .column(revision::Column::Step)
        .join(JoinType::InnerJoin, of_revision)
        .filter(evaluation::Column::Id.is_in(ids.iter().copied()))
        .into_model()
        .all(conn)
        .await?;
    Ok(rows.into_iter().map(|row| (row.id, row)).collect())
}

/// How many other revisions of the current ones' steps were replaced.
async fn n_replaced(conn: &impl ConnectionTrait, revisions: &[revision::Model]) -> Result<BTreeMap<i64, u64>, DbErr> {
    let Some(run_id) = revisions.first().map(|row| row.run_id) else {
        return Ok(BTreeMap::new());
    };
    let rows: Vec<(i64, i64)> = revision::Entity::find()
        .select_only()
        .column(revision::Column::Step)
        .column_as(revision::Column::Id.count(), "n")
        .filter(revision::Column::RunId.eq(run_id))
        .filter(revision::Column::Step.is_in(revisions.iter().map(|row| row.step)))
        .filter(revision::Column::Current.eq(false))
        .filter(revision::Column::ReadyAtMs.is_not_null())
        .group_by(revision::Column::Step)
        .into_tuple()
        .all(conn)
        .await?;
    Ok(rows.into_iter().map(|(step, n)| (step, n.unsigned_abs())).collect())
}

fn describe(
    run: &RunName,
    revision: &revision::Model,
    row: &score::Model,
    origin: Option<&Origin>,
) -> Result<Score, DbErr> {
    let elsewhere = origin.filter(|origin| origin.run_id == revision.run_id && origin.step != revision.step);
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
        limit: row.sample_limit.map(i64::unsigned_abs),
        n_shot: row.n_shot.unsigned_abs(),
        higher_is_better: row.higher_is_better,
        harness: row.harness.clone(),
        harness_version: row.harness_version.clone(),
        dtype: row.dtype.clone(),
        suite: origin.map(|origin| origin.suite_name.clone()),
        checkpoint: super::digest(checkpoint)?,
        evaluation: row.evaluation_id,
        current: revision.current,
        deleted: revision.state == CheckpointState::Deleted.as_str(),
        n_replaced: 0,
        evaluated_step: elsewhere.map(|origin| origin.step.unsigned_abs()),
        provenance: super::from_json(row.provenance.clone())?,
        created_at: super::time(row.created_at_ms),
    })
}

/// Keeps which content is the sample log of a task. Scores that came with another log go: a task's log is always that of
/// its scores.
pub(crate) async fn set_samples(
    conn: &impl ConnectionTrait,
    evaluation: Uuid,
    task: &str,
    file: &Digest,
) -> Result<(), DbErr> {
    let before = find_samples(conn, evaluation, task).await?;
    if before.is_some_and(|before| before != *file) {
        clear_task(conn, evaluation, task).await?;
    }
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
