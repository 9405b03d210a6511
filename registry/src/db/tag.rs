//! Tags and releases: names of revisions.

use std::collections::HashMap;

use fineline_api::{Release, Tag};
use sea_orm::sea_query::OnConflict;
use sea_orm::{
    ActiveValue::Set, ColumnTrait, ConnectionTrait, DbErr, EntityTrait, JoinType, QueryFilter, QueryOrder, QuerySelect,
    RelationDef,
};

use super::entity::{release, revision, tag};

fn revision_of_tag() -> RelationDef {
    tag::Entity::belongs_to(revision::Entity)
        .from(tag::Column::RevisionId)
        .to(revision::Column::Id)
        .into()
}

fn revision_of_release() -> RelationDef {
    release::Entity::belongs_to(revision::Entity)
        .from(release::Column::RevisionId)
        .to(revision::Column::Id)
        .into()
}

fn digest_of(revision: &revision::Model) -> Result<fineline_format::Digest, DbErr> {
    let blob = revision.checkpoint_digest.as_deref();
    super::digest(blob.ok_or_else(|| DbErr::Type(format!("revision {} has a name and no checkpoint", revision.id)))?)
}

/// Points a tag to a revision, wherever it pointed before.
pub(crate) async fn set(conn: &impl ConnectionTrait, run_id: i64, name: &str, revision_id: i64) -> Result<(), DbErr> {
    let row = tag::ActiveModel {
        run_id: Set(run_id),
        name: Set(name.to_owned()),
        revision_id: Set(revision_id),
        updated_at_ms: Set(super::now_ms(conn).await?),
    };
    let again = OnConflict::columns([tag::Column::RunId, tag::Column::Name])
        .update_columns([tag::Column::RevisionId, tag::Column::UpdatedAtMs])
        .to_owned();
    tag::Entity::insert(row)
        .on_conflict(again)
        .exec_without_returning(conn)
        .await
        .map(|_| ())
}

/// Takes a tag away; whether there was one.
pub(crate) async fn delete(conn: &impl ConnectionTrait, run_id: i64, name: &str) -> Result<bool, DbErr> {
    Ok(tag::Entity::delete_by_id((run_id, name.to_owned()))
        .exec(conn)
        .await?
        .rows_affected
        == 1)
}

/// Takes away the tags and releases of a revision.
pub(crate) async fn delete_names(conn: &impl ConnectionTrait, revision_id: i64) -> Result<(), DbErr> {
    tag::Entity::delete_many()
        .filter(tag::Column::RevisionId.eq(revision_id))
        .exec(conn)
        .await?;
    release::Entity::delete_many()
        .filter(release::Column::RevisionId.eq(revision_id))
        .exec(conn)
        .await
        .map(|_| ())
}

/// Whether a run has a tag or a release.
pub(crate) async fn any(conn: &impl ConnectionTrait, run_id: i64) -> Result<bool, DbErr> {
    let tags = tag::Entity::find().filter(tag::Column::RunId.eq(run_id));
    let releases = release::Entity::find().filter(release::Column::RunId.eq(run_id));
    Ok(tags.one(conn).await?.is_some() || releases.one(conn).await?.is_some())
}

/// Takes away all tags and releases of a run.
pub(crate) async fn delete_all(conn: &impl ConnectionTrait, run_id: i64) -> Result<(), DbErr> {
    tag::Entity::delete_many()
        .filter(tag::Column::RunId.eq(run_id))
        .exec(conn)
        .await?;
    release::Entity::delete_many()
        .filter(release::Column::RunId.eq(run_id))
        .exec(conn)
        .await
        .map(|_| ())
}

/// A run's tags by name.
pub(crate) async fn list(conn: &impl ConnectionTrait, run_id: i64) -> Result<Vec<Tag>, DbErr> {
    let query = tag::Entity::find()
        .join(JoinType::LeftJoin, revision_of_tag())
        .select_also(revision::Entity)
        .filter(tag::Column::RunId.eq(run_id))
        .order_by_asc(tag::Column::Name);
    let rows: Vec<(tag::Model, Option<revision::Model>)> = query.all(conn).await?;
    let describe = |(tag, revision): (tag::Model, revision::Model)| {
        Ok(Tag {
            tag: tag.name,
            step: revision.step.unsigned_abs(),
            digest: digest_of(&revision)?,
            updated_at: super::time(tag.updated_at_ms),
        })
    };
    rows.into_iter()
        .filter_map(|(tag, revision)| Some((tag, revision?)))
        .map(describe)
        .collect()
}

/// Makes a release; `false` when the name is taken.
pub(crate) async fn insert_release(
    conn: &impl ConnectionTrait,
    run_id: i64,
    name: &str,
    revision_id: i64,
    notes: &str,
) -> Result<bool, DbErr> {
    let row = release::ActiveModel {
        run_id: Set(run_id),
        name: Set(name.to_owned()),
        revision_id: Set(revision_id),
        notes: Set(notes.to_owned()),
        created_at_ms: Set(super::now_ms(conn).await?),
    };
    if is_release(conn, run_id, name).await? {
        return Ok(false);
    }
    release::Entity::insert(row).exec_without_returning(conn).await?;
    Ok(true)
}

/// A run's releases, the oldest first.
pub(crate) async fn list_releases(conn: &impl ConnectionTrait, run_id: i64) -> Result<Vec<Release>, DbErr> {
    let query = release::Entity::find()
        .join(JoinType::LeftJoin, revision_of_release())
        .select_also(revision::Entity)
        .filter(release::Column::RunId.eq(run_id))
        .order_by_asc(release::Column::CreatedAtMs);
    let rows: Vec<(release::Model, Option<revision::Model>)> = query.all(conn).await?;
    let describe = |(release, revision): (release::Model, revision::Model)| {
        Ok(Release {
            release: release.name,
            step: revision.step.unsigned_abs(),
            digest: digest_of(&revision)?,
            notes: release.notes,
            created_at: super::time(release.created_at_ms),
        })
    };
    rows.into_iter()
        .filter_map(|(release, revision)| Some((release, revision?)))
        .map(describe)
        .collect()
}

/// The revision that a name of the run points to: a release's before a tag's.
pub(crate) async fn resolve(conn: &impl ConnectionTrait, run_id: i64, name: &str) -> Result<Option<i64>, DbErr> {
    if let Some(row) = release::Entity::find_by_id((run_id, name.to_owned())).one(conn).await? {
        return Ok(Some(row.revision_id));
    }
    Ok(tag::Entity::find_by_id((run_id, name.to_owned()))
        .one(conn)
        .await?
        .map(|row| row.revision_id))
}

/// Whether a release of the run bears the name.
pub(crate) async fn is_release(conn: &impl ConnectionTrait, run_id: i64, name: &str) -> Result<bool, DbErr> {
    Ok(release::Entity::find_by_id((run_id, name.to_owned()))
        .one(conn)
        .await?
        .is_some())
}

/// The names of each of these revisions, releases first.
pub(crate) async fn names(
    conn: &impl ConnectionTrait,
    revision_ids: &[i64],
) -> Result<HashMap<i64, Vec<String>>, DbErr> {
    let mut names: HashMap<i64, Vec<String>> = HashMap::new();
    let releases: Vec<(i64, String)> = release::Entity::find()
        .select_only()
        .columns([release::Column::RevisionId, release::Column::Name])
        .filter(release::Column::RevisionId.is_in(revision_ids.iter().copied()))
        .order_by_asc(release::Column::Name)
        .into_tuple()
        .all(conn)
        .await?;
    let tags: Vec<(i64, String)> = tag::Entity::find()
        .select_only()
        .columns([tag::Column::RevisionId, tag::Column::Name])
        .filter(tag::Column::RevisionId.is_in(revision_ids.iter().copied()))
        .order_by_asc(tag::Column::Name)
        .into_tuple()
        .all(conn)
        .await?;
    for (id, name) in releases.into_iter().chain(tags) {
        names.entry(id).or_default().push(name);
    }
    Ok(names)
}
