//! Table `suite`.

use sea_orm::entity::prelude::*;

/// A suite.
#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "suite")]
pub(crate) struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub(crate) digest: Vec<u8>,
    /// As it was first uploaded, by whomever; what is shown stands in `suite_pattern`.
    pub(crate) name: String,
    pub(crate) definition: Json,
    pub(crate) size_bytes: i64,
    pub(crate) created_at_ms: i64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub(crate) enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
