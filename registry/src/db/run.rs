//! Runs.

use fineline_api::run::RunAttributes;
use fineline_api::{CheckpointState, Retention, Run, RunName, RunPattern};
use fineline_format::Digest;
use sea_orm::sea_query::{Condition, Expr};
use sea_orm::{ActiveValue, ColumnTrait, ConnectionTrait, DbErr, EntityTrait, QueryFilter, QueryOrder, QuerySelect};

use super::entity::{revision, run};

/// A run as the services see it.
#[derive(Debug, Clone)]
pub(crate) struct RunRow {
    pub(crate) id: i64,
    pub(crate) name: RunName,
    pub(crate) attributes: RunAttributes,
    /// The tokenizer that it lends to steps without one.
    pub(crate) tokenizer: Option<Digest>,
    /// Which steps it keeps; all when absent.
    pub(crate) retention: Option<Retention>,
    created_at_ms: i64,
}

impl TryFrom<run::Model> for RunRow {
    type Error = DbErr;

    fn try_from(row: run::Model) -> Result<Self, DbErr> {
        Ok(Self {
            id: row.id,
            name: RunName::new(&row.namespace, &row.name).map_err(DbErr::Type)?,
            attributes: super::from_json(row.attributes)?,
            tokenizer: row.tokenizer_digest.as_deref().map(super::digest).transpose()?,
            retention: row.retention.map(super::from_json).transpose()?,
            created_at_ms: row.created_at_ms,
        })
    }
}

/// Creates a run; `None` when the name is taken.
pub(crate) async fn insert(
    conn: &impl ConnectionTrait,
    name: &RunName,
    attributes: &RunAttributes,
) -> Result<Option<RunRow>, DbErr> {
    let row = run::ActiveModel {
        id: ActiveValue::NotSet,
        namespace: ActiveValue::Set(name.namespace().to_owned()),
        name: ActiveValue::Set(name.name().to_owned()),
        attributes: ActiveValue::Set(super::to_json(attributes)?),
        created_at_ms: ActiveValue::Set(super::now_ms(conn).await?),
        tokenizer_digest: ActiveValue::Set(None),
        retention: ActiveValue::Set(None),
        deleted_at_ms: ActiveValue::Set(None),
    };
    // Asked first: on PostgreSQL a statement that fails ends its transaction.
    if find(conn, name).await?.is_some() {
        return Ok(None);
    }
    run::Entity::insert(row)
        .exec_with_returning(conn)
        .await?
        .try_into()
        .map(Some)
}

/// The run of that name.
pub(crate) async fn find(conn: &impl ConnectionTrait, name: &RunName) -> Result<Option<RunRow>, DbErr> {
    let query = run::Entity::find()
        .filter(run::Column::Namespace.eq(name.namespace()))
        .filter(run::Column::Name.eq(name.name()))
        .filter(run::Column::DeletedAtMs.is_null());
    query.one(conn).await?.map(RunRow::try_from).transpose()
}

/// The run of that id.
pub(crate) async fn get(conn: &impl ConnectionTrait, id: i64) -> Result<RunRow, DbErr> {
    let row = run::Entity::find_by_id(id).one(conn).await?;
    row.ok_or_else(|| DbErr::RecordNotFound(format!("run {id}")))?
        .try_into()
}

/// Replaces what describes a run.
pub(crate) async fn update(conn: &impl ConnectionTrait, id: i64, attributes: &RunAttributes) -> Result<(), DbErr> {
    let attributes = super::to_json(attributes)?;
    let update = run::Entity::update_many().col_expr(run::Column::Attributes, Expr::value(attributes));
    update.filter(run::Column::Id.eq(id)).exec(conn).await.map(|_| ())
}

/// Makes a tokenizer the run's default.
pub(crate) async fn set_tokenizer(conn: &impl ConnectionTrait, id: i64, tokenizer: &Digest) -> Result<(), DbErr> {
    let update = run::Entity::update_many().col_expr(run::Column::TokenizerDigest, Expr::value(super::blob(tokenizer)));
    update.filter(run::Column::Id.eq(id)).exec(conn).await.map(|_| ())
}

/// The runs that have a default tokenizer.
pub(crate) async fn with_tokenizer(conn: &impl ConnectionTrait) -> Result<Vec<i64>, DbErr> {
    let query = run::Entity::find()
        .select_only()
        .column(run::Column::Id)
        .filter(run::Column::TokenizerDigest.is_not_null());
    query.into_tuple().all(conn).await
}

/// Says which steps a run keeps; all when `None`.
pub(crate) async fn set_retention(
    conn: &impl ConnectionTrait,
    id: i64,
    retention: Option<&Retention>,
) -> Result<(), DbErr> {
    let retention = retention.map(super::to_json).transpose()?;
    let update = run::Entity::update_many().col_expr(run::Column::Retention, Expr::value(retention));
    update.filter(run::Column::Id.eq(id)).exec(conn).await.map(|_| ())
}

/// Runs with a rule of retention, by id, those after `after` only.
pub(crate) async fn with_retention(conn: &impl ConnectionTrait, after: i64, limit: u64) -> Result<Vec<RunRow>, DbErr> {
    let query = run::Entity::find()
        .filter(run::Column::Id.gt(after))
        .filter(run::Column::DeletedAtMs.is_null())
        .filter(run::Column::Retention.is_not_null())
        .order_by_asc(run::Column::Id)
        .limit(limit);
    query.all(conn).await?.into_iter().map(RunRow::try_from).collect()
}

/// Frees a run's name and hides it; what it held is forgotten bit by bit.
pub(crate) async fn set_deleted(conn: &impl ConnectionTrait, id: i64) -> Result<(), DbErr> {
    let now = super::now_ms(conn).await?;
    let update = run::Entity::update_many().col_expr(run::Column::DeletedAtMs, Expr::value(now));
    update.filter(run::Column::Id.eq(id)).exec(conn).await.map(|_| ())
}

/// Whether a run that was found is deleted by now.
pub(crate) async fn is_deleted(conn: &impl ConnectionTrait, id: i64) -> Result<bool, DbErr> {
    let query = run::Entity::find_by_id(id).filter(run::Column::DeletedAtMs.is_null());
    Ok(query.one(conn).await?.is_none())
}

/// The ids of all runs after `after`, deleted ones or the others.
pub(crate) async fn ids(conn: &impl ConnectionTrait, deleted: bool, after: i64, limit: u64) -> Result<Vec<i64>, DbErr> {
    let state = if deleted {
        run::Column::DeletedAtMs.is_not_null()
    } else {
        run::Column::DeletedAtMs.is_null()
    };
    let query = run::Entity::find()
        .select_only()
        .column(run::Column::Id)
        .filter(run::Column::Id.gt(after))
        .filter(state)
        .order_by_asc(run::Column::Id)
        .limit(limit);
    query.into_tuple().all(conn).await
}

/// The runs that `pattern` matches, as a condition on the table `run`: no deleted one. Exact in both engines, since a
/// star stands only at a pattern's end.
pub(super) fn matches(pattern: &RunPattern) -> Condition {
    matches_ever(pattern).add(run::Column::DeletedAtMs.is_null())
}

/// The same with runs that were deleted and are not forgotten yet: what they let go of is possessed for the grace.
pub(super) fn matches_ever(pattern: &RunPattern) -> Condition {
    match pattern {
        RunPattern::All => Condition::all(),
        RunPattern::One(name) => Condition::all()
            .add(run::Column::Namespace.eq(name.namespace()))
            .add(run::Column::Name.eq(name.name())),
        RunPattern::Prefix { namespace, prefix } => Condition::all()
            .add(run::Column::Namespace.eq(namespace))
            .add(run::Column::Name.gte(prefix.as_str()))
            // Names are ASCII, so every name with the prefix sorts before the prefix with this behind it.
            .add(run::Column::Name.lt(format!("{prefix}\u{7f}"))),
    }
}

/// Runs that every one of the patterns matches, ordered by name, those after `after` only.
pub(crate) async fn list(
    conn: &impl ConnectionTrait,
    patterns: &[&RunPattern],
    after: Option<&RunName>,
    limit: u64,
) -> Result<Vec<RunRow>, DbErr> {
    let every = patterns
        .iter()
        .map(|pattern| matches(pattern))
        .fold(Condition::all(), Condition::add);
    let mut query = run::Entity::find().filter(every);
    if let Some(after) = after {
        let later_name = Condition::all()
            .add(run::Column::Namespace.eq(after.namespace()))
            .add(run::Column::Name.gt(after.name()));
        query = query.filter(
            Condition::any()
                .add(run::Column::Namespace.gt(after.namespace()))
                .add(later_name),
        );
    }
    let query = query
        .order_by_asc(run::Column::Namespace)
        .order_by_asc(run::Column::Name)
        .limit(limit);
    query.all(conn).await?.into_iter().map(RunRow::try_from).collect()
}

/// The run as the API shows it.
pub(crate) async fn describe(conn: &impl ConnectionTrait, row: RunRow) -> Result<Run, DbErr> {
    let counts: Option<(i64, Option<i64>)> = revision::Entity::find()
        .select_only()
        .column_as(revision::Column::Id.count(), "n")
        .column_as(revision::Column::Step.max(), "latest")
        .filter(revision::Column::RunId.eq(row.id))
        .filter(revision::Column::Current.eq(true))
        .filter(revision::Column::State.eq(CheckpointState::Ready.as_str()))
        .into_tuple()
        .one(conn)
        .await?;
    let (n, latest) = counts.unwrap_or_default();
    Ok(Run {
        run: row.name,
        attributes: row.attributes,
        default_tokenizer: row.tokenizer,
        retention: row.retention,
        n_checkpoints: n.unsigned_abs(),
        latest_step: latest.map(i64::unsigned_abs),
        created_at: super::time(row.created_at_ms),
    })
}
