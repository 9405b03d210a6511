//! Table `worker`.

use sea_orm::entity::prelude::*;

/// A worker that asked for work, and what it can do.
#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "worker")]
pub(crate) struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub(crate) name: String,
    #[sea_orm(primary_key, auto_increment = false)]
    pub(crate) token_id: Uuid,
    pub(crate) device: String,
    pub(crate) memory_bytes: i64,
    pub(crate) dtypes: Json,
    pub(crate) architectures: Json,
    pub(crate) seen_at_ms: i64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub(crate) enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
