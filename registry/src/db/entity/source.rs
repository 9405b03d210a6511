//! Table `source`.

use sea_orm::entity::prelude::*;

/// A place outside of the registry whose checkpoints come in by themselves.
#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "source")]
pub(crate) struct Model {
    #[sea_orm(primary_key)]
    pub(crate) id: i64,
    pub(crate) name: String,
    pub(crate) run_id: i64,
    pub(crate) definition: Json,
    pub(crate) secret: Option<String>,
    #[sea_orm(column_type = "Blob", nullable)]
    pub(crate) webhook_secret_sha256: Option<Vec<u8>>,
    pub(crate) state: String,
    pub(crate) created_at_ms: i64,
    pub(crate) synced_at_ms: Option<i64>,
    pub(crate) next_sync_at_ms: Option<i64>,
    pub(crate) error: Option<String>,
    pub(crate) syncer: Option<Uuid>,
    pub(crate) syncer_until_ms: Option<i64>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub(crate) enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
