//! The workers that ask for work.

use fineline_api::ClaimEvaluation;
use sea_orm::sea_query::OnConflict;
use sea_orm::{ActiveValue::Set, ColumnTrait, ConnectionTrait, DbErr, EntityTrait, QueryFilter};
use uuid::Uuid;

use super::entity::worker;

/// Writes down that a worker asked, and what it can do.
pub(crate) async fn see(conn: &impl ConnectionTrait, token_id: Uuid, claim: &ClaimEvaluation) -> Result<(), DbErr> {
    let row = worker::ActiveModel {
        name: Set(claim.worker.clone()),
        token_id: Set(token_id),
        device: Set(claim.device.clone()),
        memory_bytes: Set(super::signed(claim.memory_bytes)),
        dtypes: Set(super::to_json(&claim.dtypes)?),
        architectures: Set(super::to_json(&claim.architectures)?),
        seen_at_ms: Set(super::now_ms(conn).await?),
    };
    let again = OnConflict::columns([worker::Column::Name, worker::Column::TokenId])
        .update_columns([
            worker::Column::Device,
            worker::Column::MemoryBytes,
            worker::Column::Dtypes,
            worker::Column::Architectures,
            worker::Column::SeenAtMs,
        ])
        .to_owned();
    worker::Entity::insert(row)
        .on_conflict(again)
        .exec_without_returning(conn)
        .await
        .map(|_| ())
}

/// What the workers that asked since `since_ms` can do: (dtypes, architectures) of each.
pub(crate) async fn seen_since(
    conn: &impl ConnectionTrait,
    since_ms: i64,
) -> Result<Vec<(Vec<String>, Vec<String>)>, DbErr> {
    let rows = worker::Entity::find()
        .filter(worker::Column::SeenAtMs.gte(since_ms))
        .all(conn)
        .await?;
    rows.into_iter()
        .map(|row| Ok((super::from_json(row.dtypes)?, super::from_json(row.architectures)?)))
        .collect()
}
