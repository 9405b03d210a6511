//! Table `suite_pattern`.

use sea_orm::entity::prelude::*;

/// The runs that a suite was uploaded for.
#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "suite_pattern")]
pub(crate) struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub(crate) suite_digest: Vec<u8>,
    #[sea_orm(primary_key, auto_increment = false)]
    pub(crate) pattern: String,
    pub(crate) name: String,
    pub(crate) created_at_ms: i64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub(crate) enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
