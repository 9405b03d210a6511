//! Suites, the runs that they were uploaded for, and their bindings.

use std::collections::HashSet;

use fineline_api::{Binding, RunPattern, StepOrder, Suite};
use fineline_format::Digest;
use fineline_format::suite::{SuiteDefinition, SuiteGroup};
use sea_orm::sea_query::OnConflict;
use sea_orm::{ActiveValue::Set, ColumnTrait, ConnectionTrait, DbErr, EntityTrait, QueryFilter, QueryOrder};
use uuid::Uuid;

use super::entity::{binding, suite, suite_pattern};

/// Keeps a suite and the runs that it is for, under the name that it has for them.
pub(crate) async fn insert(
    conn: &impl ConnectionTrait,
    digest: &Digest,
    definition: &SuiteDefinition,
    size_bytes: u64,
    pattern: &RunPattern,
) -> Result<(), DbErr> {
    let now = super::now_ms(conn).await?;
    let row = suite::ActiveModel {
        digest: Set(super::blob(digest)),
        name: Set(definition.suite.clone()),
        definition: Set(super::to_json(definition)?),
        size_bytes: Set(super::signed(size_bytes)),
        created_at_ms: Set(now),
    };
    let once = OnConflict::column(suite::Column::Digest).do_nothing().to_owned();
    suite::Entity::insert(row)
        .on_conflict(once)
        .try_insert()
        .exec_without_returning(conn)
        .await?;
    let row = suite_pattern::ActiveModel {
        suite_digest: Set(super::blob(digest)),
        pattern: Set(pattern.to_string()),
        name: Set(definition.suite.clone()),
        created_at_ms: Set(now),
    };
    let renamed = OnConflict::columns([suite_pattern::Column::SuiteDigest, suite_pattern::Column::Pattern])
        .update_column(suite_pattern::Column::Name)
        .to_owned();
    suite_pattern::Entity::insert(row)
        .on_conflict(renamed)
        .exec_without_returning(conn)
        .await?;
    Ok(())
}

/// A suite with the uploads that made it known.
#[derive(Debug, Clone)]
pub(crate) struct SuiteRow {
    pub(crate) digest: Digest,
    /// As it was first uploaded, by whomever: its name is not to be shown.
    definition: SuiteDefinition,
    size_bytes: u64,
    /// The oldest first.
    uploads: Vec<Upload>,
}

#[derive(Debug, Clone)]
struct Upload {
    pattern: RunPattern,
    name: String,
    created_at_ms: i64,
}

impl SuiteRow {
    /// The suite as who reads runs of `pattern` knows it: by the newest upload's name, since the first upload. `None`
    /// when no upload was for any of them.
    pub(crate) fn known_to(&self, pattern: &RunPattern) -> Option<Suite> {
        let mut uploads = self.uploads.iter().filter(|upload| upload.pattern.intersects(pattern));
        let first = uploads.next()?;
        let newest = uploads.next_back().unwrap_or(first);
        Some(Suite {
            digest: self.digest,
            suite: newest.name.clone(),
            tasks: self.tasks(),
            limit: self.definition.limit,
            num_fewshot: self.definition.num_fewshot,
            size_bytes: self.size_bytes,
            created_at: super::time(first.created_at_ms),
        })
    }

    /// The definition under a name that the caller knows.
    pub(crate) fn named(self, name: String) -> SuiteDefinition {
        SuiteDefinition {
            suite: name,
            ..self.definition
        }
    }

    /// Its groups.
    pub(crate) fn groups(&self) -> &[SuiteGroup] {
        &self.definition.groups
    }

    /// Samples a task at most.
    pub(crate) fn limit(&self) -> Option<u64> {
        self.definition.limit
    }

    /// The names of its tasks.
    pub(crate) fn tasks(&self) -> Vec<String> {
        self.definition.tasks.iter().map(|task| task.task.clone()).collect()
    }
}

async fn suite_row(conn: &impl ConnectionTrait, row: suite::Model) -> Result<SuiteRow, DbErr> {
    let uploads = suite_pattern::Entity::find()
        .filter(suite_pattern::Column::SuiteDigest.eq(row.digest.as_slice()))
        .order_by_asc(suite_pattern::Column::CreatedAtMs)
        .all(conn)
        .await?;
    let upload = |row: suite_pattern::Model| {
        Ok(Upload {
            pattern: row.pattern.parse().map_err(DbErr::Type)?,
            name: row.name,
            created_at_ms: row.created_at_ms,
        })
    };
    Ok(SuiteRow {
        digest: super::digest(&row.digest)?,
        definition: super::from_json(row.definition)?,
        size_bytes: row.size_bytes.unsigned_abs(),
        uploads: uploads.into_iter().map(upload).collect::<Result<_, DbErr>>()?,
    })
}

/// The suite of that digest.
pub(crate) async fn find(conn: &impl ConnectionTrait, digest: &Digest) -> Result<Option<SuiteRow>, DbErr> {
    match suite::Entity::find_by_id(super::blob(digest)).one(conn).await? {
        Some(row) => suite_row(conn, row).await.map(Some),
        None => Ok(None),
    }
}

/// All suites, the oldest first.
pub(crate) async fn list(conn: &impl ConnectionTrait) -> Result<Vec<SuiteRow>, DbErr> {
    let mut suites = Vec::new();
    let query = suite::Entity::find().order_by_asc(suite::Column::CreatedAtMs);
    for row in query.all(conn).await? {
        suites.push(suite_row(conn, row).await?);
    }
    Ok(suites)
}

/// The digests of all files of all suites.
pub(crate) async fn files(conn: &impl ConnectionTrait) -> Result<HashSet<Digest>, DbErr> {
    let mut files = HashSet::new();
    for row in suite::Entity::find().all(conn).await? {
        let definition: SuiteDefinition = super::from_json(row.definition)?;
        files.extend(definition.blobs().map(|blob| blob.digest));
    }
    Ok(files)
}

fn binding_row(row: binding::Model) -> Result<Binding, DbErr> {
    Ok(Binding {
        id: row.id,
        pattern: row.pattern.parse().map_err(DbErr::Type)?,
        suite: row.suite_name,
        suite_digest: super::digest(&row.suite_digest)?,
        dtype: row.dtype,
        every: row.every_steps.unsigned_abs(),
        order: row.step_order.parse().map_err(DbErr::Type)?,
        limit: None,
        n_queued: 0,
        created_at: super::time(row.created_at_ms),
    })
}

/// Binds a suite to runs, in place of what bore its name there.
pub(crate) async fn bind(
    conn: &impl ConnectionTrait,
    pattern: &RunPattern,
    digest: &Digest,
    name: &str,
    dtype: &str,
    (every, order): (u64, StepOrder),
) -> Result<Binding, DbErr> {
    binding::Entity::delete_many()
        .filter(binding::Column::Pattern.eq(pattern.to_string()))
        .filter(binding::Column::SuiteName.eq(name))
        .exec(conn)
        .await?;
    let row = binding::ActiveModel {
        id: Set(Uuid::now_v7()),
        pattern: Set(pattern.to_string()),
        suite_name: Set(name.to_owned()),
        suite_digest: Set(super::blob(digest)),
        dtype: Set(dtype.to_owned()),
        created_at_ms: Set(super::now_ms(conn).await?),
        every_steps: Set(super::signed(every)),
        step_order: Set(order.as_str().to_owned()),
    };
    binding_row(binding::Entity::insert(row).exec_with_returning(conn).await?)
}

/// All bindings, the oldest first; without the limits of their suites, which are the suites'.
pub(crate) async fn bindings(conn: &impl ConnectionTrait) -> Result<Vec<Binding>, DbErr> {
    let query = binding::Entity::find().order_by_asc(binding::Column::Id);
    query.all(conn).await?.into_iter().map(binding_row).collect()
}

/// Takes a binding away; whether there was one.
pub(crate) async fn unbind(conn: &impl ConnectionTrait, id: Uuid) -> Result<bool, DbErr> {
    Ok(binding::Entity::delete_by_id(id).exec(conn).await?.rows_affected == 1)
}
