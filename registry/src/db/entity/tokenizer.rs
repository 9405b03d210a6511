//! Table `tokenizer`.

use sea_orm::entity::prelude::*;

/// The files of a tokenizer that runs lend to their steps.
#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "tokenizer")]
pub(crate) struct Model {
    #[sea_orm(primary_key, auto_increment = false, column_type = "Blob")]
    pub(crate) digest: Vec<u8>,
    pub(crate) files: Json,
    pub(crate) created_at_ms: i64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub(crate) enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
