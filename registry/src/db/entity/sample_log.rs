//! Table `sample_log`.

use sea_orm::entity::prelude::*;

/// The per-sample log of a task.
#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "sample_log")]
pub(crate) struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub(crate) evaluation_id: Uuid,
    #[sea_orm(primary_key, auto_increment = false)]
    pub(crate) task: String,
    #[sea_orm(column_type = "Blob")]
    pub(crate) file_digest: Vec<u8>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub(crate) enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
