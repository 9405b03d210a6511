//! Places in the store at which clients put frames by themselves. A row is there before its URL is given away, and until
//! nobody can put anything there any more and its object was deleted.

use sea_orm::{
    ActiveValue::Set, ColumnTrait, ConnectionTrait, DbErr, EntityTrait, PaginatorTrait, QueryFilter, QueryOrder,
    QuerySelect,
};
use uuid::Uuid;

use super::entity::staging;

/// Writes down that something may be put at these places, by URLs that work for `lifetime_ms`.
pub(crate) async fn insert(
    conn: &impl ConnectionTrait,
    session_id: Uuid,
    ids: &[Uuid],
    lifetime_ms: i64,
) -> Result<(), DbErr> {
    let expires_at_ms = super::now_ms(conn).await?.saturating_add(lifetime_ms);
    for batch in ids.chunks(super::BATCH) {
        let rows = batch.iter().map(|id| staging::ActiveModel {
            id: Set(*id),
            session_id: Set(session_id),
            expires_at_ms: Set(expires_at_ms),
        });
        staging::Entity::insert_many(rows).exec_without_returning(conn).await?;
    }
    Ok(())
}

/// Whether a place was given to that session.
pub(crate) async fn is_of(conn: &impl ConnectionTrait, session_id: Uuid, id: Uuid) -> Result<bool, DbErr> {
    let query = staging::Entity::find_by_id(id).filter(staging::Column::SessionId.eq(session_id));
    Ok(query.count(conn).await? > 0)
}

/// Places whose URLs ran out before `before_ms`, the oldest first.
pub(crate) async fn expired(conn: &impl ConnectionTrait, before_ms: i64, limit: u64) -> Result<Vec<Uuid>, DbErr> {
    let query = staging::Entity::find()
        .select_only()
        .column(staging::Column::Id)
        .filter(staging::Column::ExpiresAtMs.lt(before_ms))
        .order_by_asc(staging::Column::ExpiresAtMs)
        .limit(limit);
    query.into_tuple().all(conn).await
}

/// Forgets places whose objects are gone.
pub(crate) async fn forget(conn: &impl ConnectionTrait, ids: &[Uuid]) -> Result<(), DbErr> {
    for batch in ids.chunks(super::BATCH) {
        let delete = staging::Entity::delete_many().filter(staging::Column::Id.is_in(batch.iter().copied()));
        delete.exec(conn).await?;
    }
    Ok(())
}

/// How many places there are.
#[cfg(test)]
pub(crate) async fn count(conn: &impl ConnectionTrait) -> Result<u64, DbErr> {
    staging::Entity::find().count(conn).await
}
