//! Evaluations, who holds them, and the workers that ask for them.

use std::collections::{BTreeMap, HashMap, HashSet};

use fineline_api::{CheckpointState, Evaluation, EvaluationCounts, EvaluationState, RunPattern};
use fineline_format::Digest;
use sea_orm::sea_query::{Condition, Expr};
use sea_orm::{
    ActiveValue::Set, ColumnTrait, ConnectionTrait, DbErr, EntityTrait, FromQueryResult, IntoActiveModel, JoinType,
    Order, PaginatorTrait, QueryFilter, QueryOrder, QuerySelect, RelationDef,
};
use uuid::Uuid;

use super::entity::{evaluation, revision, revision_evaluation, run};
use super::revision::RevisionRow;
use super::run::RunRow;

/// How an evaluation is written by a service: every column but those that never change.
pub(crate) type EvaluationModel = evaluation::Model;

/// What an evaluation is of.
#[derive(Debug, Clone)]
pub(crate) struct EvaluationKey {
    pub(crate) model: Digest,
    pub(crate) suite: Digest,
    pub(crate) dtype: String,
}

/// What a new evaluation says besides its key.
#[derive(Debug)]
pub(crate) struct NewEvaluation<'a> {
    pub(crate) suite_name: &'a str,
    pub(crate) architecture: Option<String>,
    /// Where it stands in the queue: the lowest is taken first.
    pub(crate) place: i64,
}

/// Queues an evaluation for a revision.
pub(crate) async fn insert(
    conn: &impl ConnectionTrait,
    run: &RunRow,
    revision: &RevisionRow,
    key: &EvaluationKey,
    new: NewEvaluation<'_>,
) -> Result<Uuid, DbErr> {
    let now = super::now_ms(conn).await?;
    let id = Uuid::now_v7();
    let row = evaluation::ActiveModel {
        id: Set(id),
        namespace: Set(run.name.namespace().to_owned()),
        run_id: Set(run.id),
        revision_id: Set(revision.id),
        model_digest: Set(super::blob(&key.model)),
        suite_digest: Set(super::blob(&key.suite)),
        suite_name: Set(new.suite_name.to_owned()),
        dtype: Set(key.dtype.clone()),
        architecture: Set(new.architecture),
        state: Set(EvaluationState::Queued.as_str().to_owned()),
        reason: Set(None),
        n_failures: Set(0),
        n_expiries: Set(0),
        not_before_ms: Set(now),
        worker: Set(None),
        token_id: Set(None),
        lease_sha256: Set(None),
        lease_expires_at_ms: Set(None),
        claim_sha256: Set(None),
        failed_lease_sha256: Set(None),
        progress: Set(None),
        result_digest: Set(None),
        created_at_ms: Set(now),
        started_at_ms: Set(None),
        finished_at_ms: Set(None),
        place: Set(new.place),
        tokenizer_digest: Set(revision.tokenizer.as_ref().map(super::blob)),
    };
    evaluation::Entity::insert(row).exec_without_returning(conn).await?;
    Ok(id)
}

pub(super) fn run_of_evaluation() -> RelationDef {
    evaluation::Entity::belongs_to(run::Entity)
        .from(evaluation::Column::RunId)
        .to(run::Column::Id)
        .into()
}

/// Evaluations of a key in a namespace, but for those of deleted runs.
pub(crate) async fn by_key(
    conn: &impl ConnectionTrait,
    namespace: &str,
    key: &EvaluationKey,
) -> Result<Vec<EvaluationModel>, DbErr> {
    let query = evaluation::Entity::find()
        .join(JoinType::InnerJoin, run_of_evaluation())
        .filter(run::Column::DeletedAtMs.is_null())
        .filter(evaluation::Column::Namespace.eq(namespace))
        .filter(evaluation::Column::ModelDigest.eq(super::blob(&key.model)))
        .filter(evaluation::Column::SuiteDigest.eq(super::blob(&key.suite)))
        .filter(evaluation::Column::Dtype.eq(key.dtype.as_str()))
        .order_by_asc(evaluation::Column::Id);
    query.all(conn).await
}

/// The evaluations that were queued for a revision, or for any of a run.
pub(crate) async fn queued_for(conn: &impl ConnectionTrait, of: QueuedFor) -> Result<Vec<EvaluationModel>, DbErr> {
    let query = match of {
        QueuedFor::Revision(id) => evaluation::Entity::find().filter(evaluation::Column::RevisionId.eq(id)),
        QueuedFor::Run(id) => evaluation::Entity::find().filter(evaluation::Column::RunId.eq(id)),
    };
    query.order_by_asc(evaluation::Column::Id).all(conn).await
}

/// What an evaluation was queued for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum QueuedFor {
    Revision(i64),
    Run(i64),
}

/// Another revision that shows the evaluation's scores, of a run that is not deleted: a ready one, whose files a worker can
/// read, before a deleted one. Runs that have an evaluation of their own for its key are passed over.
pub(crate) async fn other_holder(
    conn: &impl ConnectionTrait,
    evaluation: &EvaluationModel,
) -> Result<Option<RevisionRow>, DbErr> {
    let of_link: RelationDef = revision_evaluation::Entity::belongs_to(revision::Entity)
        .from(revision_evaluation::Column::RevisionId)
        .to(revision::Column::Id)
        .into();
    let of_revision: RelationDef = revision::Entity::belongs_to(run::Entity)
        .from(revision::Column::RunId)
        .to(run::Column::Id)
        .into();
    let rows: Vec<(i64, i64)> = revision_evaluation::Entity::find()
        .select_only()
        .column(revision::Column::RunId)
        .column(revision::Column::Id)
        .join(JoinType::InnerJoin, of_link)
        .join(JoinType::InnerJoin, of_revision)
        .filter(revision_evaluation::Column::EvaluationId.eq(evaluation.id))
        .filter(revision::Column::Id.ne(evaluation.revision_id))
        .filter(run::Column::DeletedAtMs.is_null())
        .filter(
            Condition::any()
                .add(revision::Column::State.eq(CheckpointState::Ready.as_str()))
                .add(revision::Column::RunId.ne(evaluation.run_id)),
        )
        // `ready` sorts behind `deleted`.
        .order_by_desc(revision::Column::State)
        .order_by_asc(revision::Column::Id)
        .into_tuple()
        .all(conn)
        .await?;
    for (run_id, revision_id) in rows {
        let own = evaluation::Entity::find()
            .filter(evaluation::Column::Id.ne(evaluation.id))
            .filter(evaluation::Column::RunId.eq(run_id))
            .filter(evaluation::Column::ModelDigest.eq(evaluation.model_digest.as_slice()))
            .filter(evaluation::Column::SuiteDigest.eq(evaluation.suite_digest.as_slice()))
            .filter(evaluation::Column::Dtype.eq(evaluation.dtype.as_str()));
        if own.count(conn).await? == 0 {
            return super::revision::get(conn, revision_id).await.map(Some);
        }
    }
    Ok(None)
}

/// Says which revision's files a worker reads for an evaluation, and the tokenizer that it was lent.
pub(crate) fn point_to(evaluation: &mut EvaluationModel, revision: &RevisionRow) {
    evaluation.run_id = revision.run_id;
    evaluation.revision_id = revision.id;
    evaluation.tokenizer_digest = revision.tokenizer.as_ref().map(super::blob);
}

/// Lets a revision show no evaluation's scores any more, and forgets evaluations that no revision shows then.
pub(crate) async fn unlink_all(conn: &impl ConnectionTrait, revision_id: i64) -> Result<(), DbErr> {
    let links = revision_evaluation::Entity::find()
        .filter(revision_evaluation::Column::RevisionId.eq(revision_id))
        .all(conn)
        .await?;
    for link in links {
        let id = link.evaluation_id;
        revision_evaluation::Entity::delete_by_id((revision_id, id))
            .exec(conn)
            .await?;
        let others = revision_evaluation::Entity::find().filter(revision_evaluation::Column::EvaluationId.eq(id));
        if others.count(conn).await? == 0 {
            evaluation::Entity::delete_by_id(id).exec(conn).await?;
        }
    }
    Ok(())
}

/// Which of these revisions have an evaluation that is not finished.
pub(crate) async fn pending(conn: &impl ConnectionTrait, revision_ids: &[i64]) -> Result<HashSet<i64>, DbErr> {
    let mut pending = HashSet::new();
    for batch in revision_ids.chunks(500) {
        let counts = count_by_revision(conn, batch).await?;
        pending.extend(
            counts
                .iter()
                .filter(|(_, n)| n.queued + n.leased > 0)
                .map(|(id, _)| *id),
        );
    }
    Ok(pending)
}

/// Moves what waits for a back-fill to another place of it, or among the new steps (0).
pub(crate) async fn move_queued(conn: &impl ConnectionTrait, id: Uuid, place: i64) -> Result<(), DbErr> {
    let update = evaluation::Entity::update_many()
        .col_expr(evaluation::Column::Place, Expr::value(place))
        .filter(evaluation::Column::Id.eq(id))
        .filter(evaluation::Column::State.eq(EvaluationState::Queued.as_str()))
        .filter(evaluation::Column::Place.gt(0));
    update.exec(conn).await.map(|_| ())
}

/// Lets a revision show the scores of an evaluation; whether it did not before.
pub(crate) async fn link(conn: &impl ConnectionTrait, revision_id: i64, id: Uuid) -> Result<bool, DbErr> {
    let found = revision_evaluation::Entity::find_by_id((revision_id, id))
        .one(conn)
        .await?;
    if found.is_some() {
        return Ok(false);
    }
    let row = revision_evaluation::ActiveModel {
        revision_id: Set(revision_id),
        evaluation_id: Set(id),
    };
    revision_evaluation::Entity::insert(row)
        .exec_without_returning(conn)
        .await?;
    Ok(true)
}

/// The runs and steps that show an evaluation's scores.
pub(crate) async fn linked(conn: &impl ConnectionTrait, id: Uuid) -> Result<Vec<(i64, u64)>, DbErr> {
    let of_link: RelationDef = revision_evaluation::Entity::belongs_to(revision::Entity)
        .from(revision_evaluation::Column::RevisionId)
        .to(revision::Column::Id)
        .into();
    let rows: Vec<(i64, i64)> = revision_evaluation::Entity::find()
        .select_only()
        .column(revision::Column::RunId)
        .column(revision::Column::Step)
        .join(JoinType::InnerJoin, of_link)
        .filter(revision_evaluation::Column::EvaluationId.eq(id))
        .into_tuple()
        .all(conn)
        .await?;
    Ok(rows.into_iter().map(|(run, step)| (run, step.unsigned_abs())).collect())
}

/// How many evaluations of each revision stand where.
pub(crate) async fn count_by_revision(
    conn: &impl ConnectionTrait,
    revision_ids: &[i64],
) -> Result<HashMap<i64, EvaluationCounts>, DbErr> {
    let of_link: RelationDef = revision_evaluation::Entity::belongs_to(evaluation::Entity)
        .from(revision_evaluation::Column::EvaluationId)
        .to(evaluation::Column::Id)
        .into();
    let rows: Vec<(i64, String, i64)> = revision_evaluation::Entity::find()
        .select_only()
        .column(revision_evaluation::Column::RevisionId)
        .column(evaluation::Column::State)
        .column_as(evaluation::Column::Id.count(), "n")
        .join(JoinType::InnerJoin, of_link)
        .filter(revision_evaluation::Column::RevisionId.is_in(revision_ids.iter().copied()))
        .group_by(revision_evaluation::Column::RevisionId)
        .group_by(evaluation::Column::State)
        .into_tuple()
        .all(conn)
        .await?;
    let mut counts: HashMap<i64, EvaluationCounts> = HashMap::new();
    for (revision, state, n) in rows {
        let counts = counts.entry(revision).or_default();
        let n = n.unsigned_abs();
        match state.parse().map_err(DbErr::Type)? {
            EvaluationState::Queued => counts.queued = n,
            EvaluationState::Leased => counts.leased = n,
            EvaluationState::Done => counts.done = n,
            EvaluationState::Failed => counts.failed = n,
            EvaluationState::Parked => counts.parked = n,
            EvaluationState::Cancelled => counts.cancelled = n,
        }
    }
    Ok(counts)
}

/// The row of an evaluation, to be changed and [`save`]d in one transaction.
pub(crate) async fn find(conn: &impl ConnectionTrait, id: Uuid) -> Result<Option<EvaluationModel>, DbErr> {
    evaluation::Entity::find_by_id(id).one(conn).await
}

/// Writes a changed row back.
pub(crate) async fn save(conn: &impl ConnectionTrait, row: EvaluationModel) -> Result<(), DbErr> {
    evaluation::Entity::update(sea_orm::ActiveModelTrait::reset_all(row.into_active_model()))
        .exec(conn)
        .await
        .map(|_| ())
}

/// What a list of evaluations is narrowed to.
#[derive(Debug, Clone, Default)]
pub(crate) struct EvaluationFilter {
    pub(crate) run_id: Option<i64>,
    pub(crate) revision_id: Option<i64>,
    pub(crate) id: Option<Uuid>,
    pub(crate) state: Option<EvaluationState>,
    /// In the other order than usual.
    pub(crate) newest_first: bool,
}

#[derive(Debug, FromQueryResult)]
struct Names {
    id: Uuid,
    namespace: String,
    run_name: String,
    step: i64,
    state: String,
    checkpoint_digest: Option<Vec<u8>>,
}

/// Evaluations as the API shows them, by id, which is by age, those behind `after` only: of runs that `pattern` matches, each
/// shown for the run and step that it was queued for.
pub(crate) async fn list(
    conn: &impl ConnectionTrait,
    pattern: &RunPattern,
    filter: &EvaluationFilter,
    after: Option<Uuid>,
    limit: u64,
) -> Result<Vec<Evaluation>, DbErr> {
    let mut query = evaluation::Entity::find()
        .join(JoinType::InnerJoin, run_of_evaluation())
        .filter(super::run::matches(pattern));
    if let Some(state) = filter.state {
        query = query.filter(evaluation::Column::State.eq(state.as_str()));
    }
    if let Some(id) = filter.id {
        query = query.filter(evaluation::Column::Id.eq(id));
    }
    if let Some(after) = after {
        query = query.filter(if filter.newest_first {
            evaluation::Column::Id.lt(after)
        } else {
            evaluation::Column::Id.gt(after)
        });
    }
    if filter.run_id.is_some() || filter.revision_id.is_some() {
        query = query.filter(evaluation::Column::Id.in_subquery(linked_to(filter)));
    }
    let order = if filter.newest_first { Order::Desc } else { Order::Asc };
    let rows = query
        .order_by(evaluation::Column::Id, order)
        .limit(limit)
        .all(conn)
        .await?;
    let ids: Vec<Uuid> = rows.iter().map(|row| row.id).collect();
    let mut names = names(conn, &ids).await?;
    let describe = |row: EvaluationModel| describe(row, &mut names);
    rows.into_iter().map(describe).collect()
}

/// How many evaluations stand where, of runs that `pattern` matches; of those that a run shows, when it is named.
pub(crate) async fn count_by_state(
    conn: &impl ConnectionTrait,
    pattern: &RunPattern,
    run_id: Option<i64>,
) -> Result<BTreeMap<EvaluationState, u64>, DbErr> {
    let mut query = evaluation::Entity::find()
        .select_only()
        .column(evaluation::Column::State)
        .column_as(evaluation::Column::Id.count(), "n")
        .join(JoinType::InnerJoin, run_of_evaluation())
        .filter(super::run::matches(pattern))
        .group_by(evaluation::Column::State);
    if run_id.is_some() {
        let filter = EvaluationFilter {
            run_id,
            ..EvaluationFilter::default()
        };
        query = query.filter(evaluation::Column::Id.in_subquery(linked_to(&filter)));
    }
    let rows: Vec<(String, i64)> = query.into_tuple().all(conn).await?;
    let count = |(state, n): (String, i64)| Ok((state.parse().map_err(DbErr::Type)?, n.unsigned_abs()));
    rows.into_iter().map(count).collect()
}

fn linked_to(filter: &EvaluationFilter) -> sea_orm::sea_query::SelectStatement {
    use sea_orm::QueryTrait;
    let of_link: RelationDef = revision_evaluation::Entity::belongs_to(revision::Entity)
        .from(revision_evaluation::Column::RevisionId)
        .to(revision::Column::Id)
        .into();
    let mut links = revision_evaluation::Entity::find()
        .select_only()
        .column(revision_evaluation::Column::EvaluationId)
        .join(JoinType::InnerJoin, of_link);
    if let Some(run_id) = filter.run_id {
        links = links.filter(revision::Column::RunId.eq(run_id));
    }
    if let Some(revision_id) = filter.revision_id {
        links = links.filter(revision::Column::Id.eq(revision_id));
    }
    links.into_query()
}

async fn names(conn: &impl ConnectionTrait, ids: &[Uuid]) -> Result<HashMap<Uuid, Names>, DbErr> {
    let to = |def: RelationDef| def;
    let query = evaluation::Entity::find()
        .select_only()
        .column(evaluation::Column::Id)
        .column(run::Column::Namespace)
        .column_as(run::Column::Name, "run_name")
        .column(revision::Column::Step)
        .column(revision::Column::State)
        .column(revision::Column::CheckpointDigest)
        .join(
            JoinType::InnerJoin,
            to(evaluation::Entity::belongs_to(run::Entity)
                .from(evaluation::Column::RunId)
                .to(run::Column::Id)
                .into()),
        )
        .join(
            JoinType::InnerJoin,
            to(evaluation::Entity::belongs_to(revision::Entity)
                .from(evaluation::Column::RevisionId)
                .to(revision::Column::Id)
                .into()),
        )
        .filter(evaluation::Column::Id.is_in(ids.iter().copied()));
    let rows: Vec<Names> = query.into_model().all(conn).await?;
    Ok(rows.into_iter().map(|row| (row.id, row)).collect())
}

fn describe(row: EvaluationModel, names: &mut HashMap<Uuid, Names>) -> Result<Evaluation, DbErr> {
    let missing = || DbErr::RecordNotFound(format!("run or revision of evaluation {}", row.id));
    let names = names.remove(&row.id).ok_or_else(missing)?;
    let checkpoint = names.checkpoint_digest.as_deref().ok_or_else(missing)?;
    Ok(Evaluation {
        id: row.id,
        run: fineline_api::RunName::new(&names.namespace, &names.run_name).map_err(DbErr::Type)?,
        step: names.step.unsigned_abs(),
        deleted: names.state == CheckpointState::Deleted.as_str(),
        checkpoint: super::digest(checkpoint)?,
        model_digest: super::digest(&row.model_digest)?,
        suite: row.suite_name,
        suite_digest: super::digest(&row.suite_digest)?,
        dtype: row.dtype,
        architecture: row.architecture,
        state: row.state.parse().map_err(DbErr::Type)?,
        reason: row.reason,
        n_failures: row.n_failures.unsigned_abs(),
        n_expiries: row.n_expiries.unsigned_abs(),
        worker: row.worker,
        progress: row.progress.map(super::from_json).transpose()?,
        lease_expires_at: row.lease_expires_at_ms.map(super::time),
        created_at: super::time(row.created_at_ms),
        started_at: row.started_at_ms.map(super::time),
        finished_at: row.finished_at_ms.map(super::time),
    })
}
