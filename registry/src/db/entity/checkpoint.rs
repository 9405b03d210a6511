//! Table `checkpoint`.

use sea_orm::entity::prelude::*;

/// What follows from a checkpoint's bytes alone.
#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "checkpoint")]
pub(crate) struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub(crate) digest: Vec<u8>,
    #[sea_orm(column_type = "Blob")]
    pub(crate) manifest: Vec<u8>,
    pub(crate) n_files: i64,
    pub(crate) size_bytes: i64,
    #[sea_orm(column_type = "Blob", nullable)]
    pub(crate) weights_digest: Option<Vec<u8>>,
    #[sea_orm(column_type = "Blob", nullable)]
    pub(crate) model_digest: Option<Vec<u8>>,
    pub(crate) architecture: Option<String>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub(crate) enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
