//! Table `push_session`.

use sea_orm::entity::prelude::*;

/// A push session.
#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "push_session")]
pub(crate) struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub(crate) id: Uuid,
    pub(crate) run_id: i64,
    pub(crate) revision_id: Option<i64>,
    pub(crate) step: i64,
    pub(crate) state: String,
    pub(crate) unchanged: bool,
    #[sea_orm(column_type = "Blob", nullable)]
    pub(crate) manifest_digest: Option<Vec<u8>>,
    pub(crate) received_chunks: i64,
    pub(crate) received_bytes: i64,
    pub(crate) failure: Option<String>,
    pub(crate) created_at_ms: i64,
    pub(crate) heartbeat_at_ms: i64,
    pub(crate) session_name: Option<String>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub(crate) enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
