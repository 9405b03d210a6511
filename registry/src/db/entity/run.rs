//! Table `run`.

use sea_orm::entity::prelude::*;

/// A run.
#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "run")]
pub(crate) struct Model {
    #[sea_orm(primary_key)]
    pub(crate) id: i64,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) attributes: Json,
    pub(crate) created_at_ms: i64,
    #[sea_orm(column_type = "Blob", nullable)]
    pub(crate) tokenizer_digest: Option<Vec<u8>>,
    #[sea_orm(nullable)]
    pub(crate) retention: Option<Json>,
    pub(crate) deleted_at_ms: Option<i64>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub(crate) enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
