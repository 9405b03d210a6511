//! Table `binding`.

use sea_orm::entity::prelude::*;

/// A binding of a suite to runs.
#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "binding")]
pub(crate) struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub(crate) id: Uuid,
    pub(crate) pattern: String,
    pub(crate) suite_name: String,
    #[sea_orm(column_type = "Blob")]
    pub(crate) suite_digest: Vec<u8>,
    pub(crate) dtype: String,
    pub(crate) created_at_ms: i64,
    pub(crate) every_steps: i64,
    pub(crate) step_order: String,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub(crate) enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
