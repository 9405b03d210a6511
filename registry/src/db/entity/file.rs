//! Table `file`.

use sea_orm::entity::prelude::*;

/// A verified file.
#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "file")]
pub(crate) struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub(crate) digest: Vec<u8>,
    pub(crate) size_bytes: i64,
    #[sea_orm(column_type = "Blob")]
    pub(crate) recipe: Vec<u8>,
    pub(crate) tensors: Option<Json>,
    pub(crate) verified_at_ms: i64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub(crate) enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
