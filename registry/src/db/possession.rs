//! Who may name a digest: the table behind the one rule in `service::possession`.

use std::collections::{HashMap, HashSet};

use fineline_api::RunPattern;
use fineline_format::Digest;
use sea_orm::sea_query::{Expr, Func, OnConflict};
use sea_orm::{
    ActiveValue::Set, ColumnTrait, ConnectionTrait, DbErr, EntityTrait, JoinType, QueryFilter, QuerySelect, RelationDef,
};

use super::entity::{chunk, possession, run};

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
            .filter(super::run::matches(pattern));
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

/// The raw sizes of those of `digests` that are chunks with a live frame.
pub(crate) async fn stored(conn: &impl ConnectionTrait, digests: &[Digest]) -> Result<HashMap<Digest, u64>, DbErr> {
    let mut stored = HashMap::new();
    for batch in digests.chunks(BATCH) {
        let query = chunk::Entity::find()
            .select_only()
            .columns([chunk::Column::Digest, chunk::Column::SizeBytes])
            .filter(chunk::Column::Digest.is_in(batch.iter().map(super::blob)));
        let rows: Vec<(Vec<u8>, i64)> = query.into_tuple().all(conn).await?;
        for (row, size_bytes) in rows {
            stored.insert(super::digest(&row)?, size_bytes.unsigned_abs());
        }
    }
    Ok(stored)
}

/// Writes that the bytes of `digests` were put into a run, and where `published`, that a ready checkpoint holds them.
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
        });
        // The first publication stays; what was published never becomes less.
        let earliest = Func::coalesce([
            Expr::col((possession::Entity, possession::Column::PublishedAtMs)),
            Expr::value(published_at_ms),
        ]);
        let again = OnConflict::columns([possession::Column::Digest, possession::Column::RunId])
            .value(possession::Column::PublishedAtMs, earliest)
            .to_owned();
        possession::Entity::insert_many(rows)
            .on_conflict(again)
            .exec_without_returning(conn)
            .await?;
    }
    Ok(())
}
