//! Evaluations that workers hold, and picking one for a worker.

use fineline_api::{CheckpointState, ClaimEvaluation, EvaluationState, RunPattern};
use fineline_format::Digest;
use sea_orm::{
    ColumnTrait, ConnectionTrait, DbErr, EntityTrait, FromQueryResult, JoinType, PaginatorTrait, QueryFilter,
    QueryOrder, QuerySelect, RelationDef,
};
use uuid::Uuid;

use super::entity::{evaluation, revision, revision_evaluation};
use super::evaluation::{EvaluationModel, run_of_evaluation};

/// Leases that ran out.
pub(crate) async fn expired(conn: &impl ConnectionTrait, now_ms: i64) -> Result<Vec<EvaluationModel>, DbErr> {
    let query = evaluation::Entity::find()
        .filter(evaluation::Column::State.eq(EvaluationState::Leased.as_str()))
        .filter(evaluation::Column::LeaseExpiresAtMs.lt(now_ms));
    query.all(conn).await
}

/// The first queued evaluation that the worker can do, new steps before back-fills and then the oldest, in runs that `pattern` matches. Called in the transaction that
/// takes it: on SQLite there is one writer.
pub(crate) async fn pick(
    conn: &impl ConnectionTrait,
    pattern: &RunPattern,
    claim: &ClaimEvaluation,
    now_ms: i64,
) -> Result<Option<EvaluationModel>, DbErr> {
    let query = evaluation::Entity::find()
        .join(JoinType::InnerJoin, run_of_evaluation())
        .filter(super::run::matches(pattern))
        .filter(evaluation::Column::State.eq(EvaluationState::Queued.as_str()))
        .filter(evaluation::Column::NotBeforeMs.lte(now_ms))
        .filter(evaluation::Column::Dtype.is_in(claim.dtypes.iter().map(String::as_str)))
        .filter(evaluation::Column::Architecture.is_in(claim.architectures.iter().map(String::as_str)))
        .order_by_asc(evaluation::Column::Place)
        .order_by_asc(evaluation::Column::CreatedAtMs)
        .order_by_asc(evaluation::Column::Id);
    query.one(conn).await
}

/// A step of a run, as the curve of one suite in one dtype has it.
#[derive(Debug, FromQueryResult)]
pub(crate) struct CurveStep {
    /// The evaluation.
    pub(crate) id: Uuid,
    /// The run that it was queued for.
    pub(crate) run_id: i64,
    pub(crate) state: String,
    pub(crate) not_before_ms: i64,
    pub(crate) architecture: Option<String>,
}

/// The current steps of an evaluation's run that have one by the same suite in the same dtype, by step.
pub(crate) async fn curve(conn: &impl ConnectionTrait, of: &EvaluationModel) -> Result<Vec<CurveStep>, DbErr> {
    let of_link: RelationDef = revision_evaluation::Entity::belongs_to(evaluation::Entity)
        .from(revision_evaluation::Column::EvaluationId)
        .to(evaluation::Column::Id)
        .into();
    let of_revision: RelationDef = revision::Entity::belongs_to(revision_evaluation::Entity)
        .from(revision::Column::Id)
        .to(revision_evaluation::Column::RevisionId)
        .into();
    let columns = [
        evaluation::Column::Id,
        evaluation::Column::RunId,
        evaluation::Column::State,
        evaluation::Column::NotBeforeMs,
        evaluation::Column::Architecture,
    ];
    let query = revision::Entity::find()
        .select_only()
        .join(JoinType::InnerJoin, of_revision)
        .join(JoinType::InnerJoin, of_link)
        .filter(revision::Column::RunId.eq(of.run_id))
        .filter(revision::Column::Current.eq(true))
        .filter(revision::Column::State.eq(CheckpointState::Ready.as_str()))
        .filter(evaluation::Column::SuiteDigest.eq(of.suite_digest.as_slice()))
        .filter(evaluation::Column::Dtype.eq(of.dtype.as_str()))
        .order_by_asc(revision::Column::Step);
    let query = columns.into_iter().fold(query, |query, column| query.column(column));
    query.into_model().all(conn).await
}

/// What a token holds leases for, live or not.
pub(crate) async fn leased_by(conn: &impl ConnectionTrait, token_id: Uuid) -> Result<Vec<EvaluationModel>, DbErr> {
    let query = evaluation::Entity::find()
        .filter(evaluation::Column::State.eq(EvaluationState::Leased.as_str()))
        .filter(evaluation::Column::TokenId.eq(token_id));
    query.all(conn).await
}

/// The evaluation that a claim of a token was given last.
pub(crate) async fn find_by_claim(
    conn: &impl ConnectionTrait,
    token_id: Uuid,
    claim: &Digest,
) -> Result<Option<EvaluationModel>, DbErr> {
    let query = evaluation::Entity::find()
        .filter(evaluation::Column::ClaimSha256.eq(super::blob(claim)))
        .filter(evaluation::Column::TokenId.eq(token_id));
    query.one(conn).await
}

/// The revisions that a token holds live leases for.
pub(crate) async fn leased_revisions(conn: &impl ConnectionTrait, token_id: Uuid) -> Result<Vec<i64>, DbErr> {
    let query = leased(conn, token_id).await?.column(evaluation::Column::RevisionId);
    query.into_tuple().all(conn).await
}

/// The tokenizer that is lent for an evaluation which the token holds a live lease for.
pub(crate) async fn leased_tokenizer(
    conn: &impl ConnectionTrait,
    token_id: Uuid,
    id: Uuid,
) -> Result<Option<Digest>, DbErr> {
    let query = leased(conn, token_id)
        .await?
        .column(evaluation::Column::TokenizerDigest)
        .filter(evaluation::Column::Id.eq(id));
    let lent: Option<Option<Vec<u8>>> = query.into_tuple().one(conn).await?;
    lent.flatten().as_deref().map(super::digest).transpose()
}

/// The suites that a token holds live leases for, with the names that they have there.
pub(crate) async fn leased_suites(conn: &impl ConnectionTrait, token_id: Uuid) -> Result<Vec<(Digest, String)>, DbErr> {
    let rows: Vec<(Vec<u8>, String)> = leased(conn, token_id)
        .await?
        .column(evaluation::Column::SuiteDigest)
        .column(evaluation::Column::SuiteName)
        .into_tuple()
        .all(conn)
        .await?;
    rows.into_iter()
        .map(|(digest, name)| Ok((super::digest(&digest)?, name)))
        .collect()
}

async fn leased(conn: &impl ConnectionTrait, token_id: Uuid) -> Result<sea_orm::Select<evaluation::Entity>, DbErr> {
    let now = super::now_ms(conn).await?;
    Ok(evaluation::Entity::find()
        .select_only()
        .filter(evaluation::Column::TokenId.eq(token_id))
        .filter(evaluation::Column::State.eq(EvaluationState::Leased.as_str()))
        .filter(evaluation::Column::LeaseExpiresAtMs.gt(now)))
}

/// Whether any work is out with a worker, which then need not ask for more.
pub(crate) async fn any_leased(conn: &impl ConnectionTrait) -> Result<bool, DbErr> {
    let query = evaluation::Entity::find().filter(evaluation::Column::State.eq(EvaluationState::Leased.as_str()));
    Ok(query.count(conn).await? > 0)
}
