//! Table `frame`.

use sea_orm::entity::prelude::*;

/// A frame in the store; its object key follows from its id.
#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "frame")]
pub(crate) struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub(crate) id: Uuid,
    #[sea_orm(column_type = "Blob")]
    pub(crate) chunk_digest: Vec<u8>,
    pub(crate) state: String,
    pub(crate) stored_bytes: i64,
    pub(crate) created_at_ms: i64,
    pub(crate) condemned_at_ms: Option<i64>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub(crate) enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
