//! Suites, the runs that they were uploaded for, and their bindings.

use fineline_api::{Binding, RunPattern, Suite};
use fineline_format::Digest;
use fineline_format::suite::SuiteDefinition;
use sea_orm::sea_query::OnConflict;
use sea_orm::{ActiveValue::Set, ColumnTrait, ConnectionTrait, DbErr, EntityTrait, QueryFilter, QueryOrder};
use uuid::Uuid;

use super::entity::{binding, suite, suite_pattern};

/// Keeps a suite and the runs that it is for; whether it is new.
pub(crate) async fn insert(
    conn: &impl ConnectionTrait,
    digest: &Digest,
    definition: &SuiteDefinition,
    size_bytes: u64,
    pattern: &RunPattern,
) -> Result<bool, DbErr> {
    let known = suite::Entity::find_by_id(super::blob(digest))
        .one(conn)
        .await?
        .is_some();
    if !known {
        let row = suite::ActiveModel {
            digest: Set(super::blob(digest)),
            name: Set(definition.suite.clone()),
            definition: Set(super::to_json(definition)?),
            size_bytes: Set(super::signed(size_bytes)),
            created_at_ms: Set(super::now_ms(conn).await?),
        };
        suite::Entity::insert(row).exec_without_returning(conn).await?;
    }
    let row = suite_pattern::ActiveModel {
        suite_digest: Set(super::blob(digest)),
        pattern: Set(pattern.to_string()),
    };
    let once = OnConflict::columns([suite_pattern::Column::SuiteDigest, suite_pattern::Column::Pattern])
        .do_nothing()
        .to_owned();
    suite_pattern::Entity::insert(row)
        .on_conflict(once)
        .try_insert()
        .exec_without_returning(conn)
        .await?;
    Ok(!known)
}

/// A suite with its definition and the patterns that it was uploaded for.
#[derive(Debug, Clone)]
pub(crate) struct SuiteRow {
    pub(crate) suite: Suite,
    pub(crate) definition: SuiteDefinition,
    pub(crate) patterns: Vec<RunPattern>,
}

fn suite_row(row: suite::Model, patterns: Vec<RunPattern>) -> Result<SuiteRow, DbErr> {
    let definition: SuiteDefinition = super::from_json(row.definition)?;
    let suite = Suite {
        digest: super::digest(&row.digest)?,
        suite: row.name,
        tasks: definition.tasks.iter().map(|task| task.task.clone()).collect(),
        limit: definition.limit,
        num_fewshot: definition.num_fewshot,
        size_bytes: row.size_bytes.unsigned_abs(),
        created_at: super::time(row.created_at_ms),
    };
    Ok(SuiteRow {
        suite,
        definition,
        patterns,
    })
}

async fn patterns(conn: &impl ConnectionTrait, digest: &[u8]) -> Result<Vec<RunPattern>, DbErr> {
    let query = suite_pattern::Entity::find().filter(suite_pattern::Column::SuiteDigest.eq(digest));
    let rows = query.all(conn).await?;
    rows.into_iter()
        .map(|row| row.pattern.parse().map_err(DbErr::Type))
        .collect()
}

/// The suite of that digest.
pub(crate) async fn find(conn: &impl ConnectionTrait, digest: &Digest) -> Result<Option<SuiteRow>, DbErr> {
    let Some(row) = suite::Entity::find_by_id(super::blob(digest)).one(conn).await? else {
        return Ok(None);
    };
    let patterns = patterns(conn, &row.digest).await?;
    suite_row(row, patterns).map(Some)
}

/// All suites, the oldest first.
pub(crate) async fn list(conn: &impl ConnectionTrait) -> Result<Vec<SuiteRow>, DbErr> {
    let mut suites = Vec::new();
    for row in suite::Entity::find()
        .order_by_asc(suite::Column::CreatedAtMs)
        .all(conn)
        .await?
    {
        let patterns = patterns(conn, &row.digest).await?;
        suites.push(suite_row(row, patterns)?);
    }
    Ok(suites)
}

fn binding_row(row: binding::Model) -> Result<Binding, DbErr> {
    Ok(Binding {
        id: row.id,
        pattern: row.pattern.parse().map_err(DbErr::Type)?,
        suite: row.suite_name,
        suite_digest: super::digest(&row.suite_digest)?,
        dtype: row.dtype,
        n_queued: 0,
        created_at: super::time(row.created_at_ms),
    })
}

/// Binds a suite to runs, in place of what bore its name there.
pub(crate) async fn bind(
    conn: &impl ConnectionTrait,
    pattern: &RunPattern,
    suite: &Suite,
    dtype: &str,
) -> Result<Binding, DbErr> {
    binding::Entity::delete_many()
        .filter(binding::Column::Pattern.eq(pattern.to_string()))
        .filter(binding::Column::SuiteName.eq(suite.suite.as_str()))
        .exec(conn)
        .await?;
    let row = binding::ActiveModel {
        id: Set(Uuid::now_v7()),
        pattern: Set(pattern.to_string()),
        suite_name: Set(suite.suite.clone()),
        suite_digest: Set(super::blob(&suite.digest)),
        dtype: Set(dtype.to_owned()),
        created_at_ms: Set(super::now_ms(conn).await?),
    };
    binding_row(binding::Entity::insert(row).exec_with_returning(conn).await?)
}

/// All bindings, the oldest first.
pub(crate) async fn bindings(conn: &impl ConnectionTrait) -> Result<Vec<Binding>, DbErr> {
    let query = binding::Entity::find().order_by_asc(binding::Column::Id);
    query.all(conn).await?.into_iter().map(binding_row).collect()
}

/// Takes a binding away; whether there was one.
pub(crate) async fn unbind(conn: &impl ConnectionTrait, id: Uuid) -> Result<bool, DbErr> {
    Ok(binding::Entity::delete_by_id(id).exec(conn).await?.rows_affected == 1)
}
