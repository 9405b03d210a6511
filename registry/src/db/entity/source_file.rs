//! Table `source_file`.

use sea_orm::entity::prelude::*;

/// What was read of a file of a source, by its checkpoint's place and its path there.
#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "source_file")]
pub(crate) struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub(crate) source_id: i64,
    #[sea_orm(primary_key, auto_increment = false)]
    pub(crate) key: String,
    pub(crate) version: String,
    pub(crate) size_bytes: i64,
    #[sea_orm(column_type = "Blob")]
    pub(crate) recipe: Vec<u8>,
    #[sea_orm(column_type = "Blob", nullable)]
    pub(crate) digest: Option<Vec<u8>>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub(crate) enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
