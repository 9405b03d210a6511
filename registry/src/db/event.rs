//! Events of runs.

use fineline_api::{Event, EventKind};
use sea_orm::{
    ActiveValue::{NotSet, Set},
    ColumnTrait, ConnectionTrait, DbErr, EntityTrait, QueryFilter, QueryOrder, QuerySelect,
};
use serde_json::Value;

use super::entity::event;
use super::run::RunRow;

/// Writes an event, in the transaction of what it tells.
pub(crate) async fn insert(
    conn: &impl ConnectionTrait,
    run_id: i64,
    step: u64,
    kind: EventKind,
    data: Value,
) -> Result<(), DbErr> {
    let row = event::ActiveModel {
        id: NotSet,
        run_id: Set(run_id),
        step: Set(super::signed(step)),
        kind: Set(kind.as_str().to_owned()),
        data: Set(data),
        created_at_ms: Set(super::now_ms(conn).await?),
    };
    event::Entity::insert(row)
        .exec_without_returning(conn)
        .await
        .map(|_| ())
}

/// The events of a run after `after`, the oldest first.
pub(crate) async fn list(
    conn: &impl ConnectionTrait,
    run: &RunRow,
    after: i64,
    limit: u64,
) -> Result<Vec<Event>, DbErr> {
    let query = event::Entity::find()
        .filter(event::Column::RunId.eq(run.id))
        .filter(event::Column::Id.gt(after))
        .order_by_asc(event::Column::Id)
        .limit(limit);
    let describe = |row: event::Model| {
        Ok(Event {
            id: row.id,
            run: run.name.clone(),
            step: row.step.unsigned_abs(),
            kind: row.kind.parse().map_err(DbErr::Type)?,
            data: row.data,
            created_at: super::time(row.created_at_ms),
        })
    };
    query.all(conn).await?.into_iter().map(describe).collect()
}
