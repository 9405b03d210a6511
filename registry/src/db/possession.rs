//! Who may name a digest: the table behind the one rule in `service::possession`.

use std::collections::HashSet;

use fineline_api::RunPattern;
use fineline_format::Digest;
use sea_orm::sea_query::{Expr, Func, OnConflict};
use sea_orm::{
    ActiveValue::Set, ColumnTrait, ConnectionTrait, DbErr, EntityTrait, JoinType, PaginatorTrait, QueryFilter,
    QuerySelect, RelationDef,
};

use super::entity::{possession, run};

/// Digests in one statement: far below what either engine binds.
const BATCH: usize = 500;

fn run_of_possession() -> RelationDef {
    possession::Entity::belongs_to(run::Entity)
        .from(possession::Column::RunId)
        .to(run::Column::Id)
        .into()
}

/// Which of `digests` are held by runs that `pattern` matches: those that a ready checkpoint holds, and where
/// `unpublished`, those too whose bytes were only put.
pub(crate) async fn held(
    conn: &impl ConnectionTrait,
    pattern: &RunPattern,
    unpublished: bool,
    digests: &[Digest],
) -> Result<HashSet<Digest>, DbErr> {
    let mut held = HashSet::new();
    for batch in digests.chunks(BATCH) {
        let mut query = possession::Entity::find()
            .select_only()
            .column(possession::Column::Digest)
            .distinct()
            .join(JoinType::InnerJoin, run_of_possession())
            .filter(possession::Column::Digest.is_in(batch.iter().map(super::blob)))
            .filter(super::run::matches_ever(pattern));
        if !unpublished {
            query = query.filter(possession::Column::PublishedAtMs.is_not_null());
        }
        let rows: Vec<Vec<u8>> = query.into_tuple().all(conn).await?;
        for row in rows {
            held.insert(super::digest(&row)?);
        }
    }
    Ok(held)
}

/// Takes back that runs which `pattern` matches let go of these digests: somebody was told that they are there.
pub(crate) async fn revive(conn: &impl ConnectionTrait, pattern: &RunPattern, digests: &[Digest]) -> Result<(), DbErr> {
    let now = super::now_ms(conn).await?;
    for batch in digests.chunks(BATCH) {
        let mut runs = sea_orm::sea_query::Query::select();
        runs.column(run::Column::Id)
            .from(run::Entity)
            .cond_where(super::run::matches_ever(pattern));
        let update = possession::Entity::update_many()
            .col_expr(possession::Column::ReleasedAtMs, Expr::value(None::<i64>))
            .col_expr(possession::Column::PutAtMs, Expr::value(now))
            .filter(possession::Column::ReleasedAtMs.is_not_null())
            .filter(possession::Column::Digest.is_in(batch.iter().map(super::blob)))
            .filter(possession::Column::RunId.in_subquery(runs));
        update.exec(conn).await?;
    }
    Ok(())
}

/// Whether runs that `pattern` matches have let go of one of these digests.
pub(crate) async fn any_released(
    conn: &impl ConnectionTrait,
    pattern: &RunPattern,
    digests: &[Digest],
) -> Result<bool, DbErr> {
    for batch in digests.chunks(BATCH) {
        let query = possession::Entity::find()
            .join(JoinType::InnerJoin, run_of_possession())
            .filter(possession::Column::ReleasedAtMs.is_not_null())
            .filter(possession::Column::Digest.is_in(batch.iter().map(super::blob)))
            .filter(super::run::matches_ever(pattern));
        if query.count(conn).await? > 0 {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Writes that the bytes of `digests` were put into a run (it lets go of none of them), and where `published`, that a ready checkpoint holds them.
pub(crate) async fn insert(
    conn: &impl ConnectionTrait,
    run_id: i64,
    digests: &[Digest],
    published: bool,
) -> Result<(), DbErr> {
    let now = super::now_ms(conn).await?;
    let published_at_ms = published.then_some(now);
    for batch in digests.chunks(BATCH) {
        let rows = batch.iter().map(|digest| possession::ActiveModel {
            digest: Set(super::blob(digest)),
            run_id: Set(run_id),
            put_at_ms: Set(now),
            published_at_ms: Set(published_at_ms),
            released_at_ms: Set(None),
        });
        // The first publication stays; what was published never becomes less.
        let earliest = Func::coalesce([
            Expr::col((possession::Entity, possession::Column::PublishedAtMs)),
            Expr::value(published_at_ms),
        ]);
        let again = OnConflict::columns([possession::Column::Digest, possession::Column::RunId])
            .value(possession::Column::PublishedAtMs, earliest)
            .update_columns([possession::Column::PutAtMs, possession::Column::ReleasedAtMs])
            .to_owned();
        possession::Entity::insert_many(rows)
            .on_conflict(again)
            .exec_without_returning(conn)
            .await?;
    }
    Ok(())
}
