//! Table `source_step`.

use sea_orm::entity::prelude::*;

/// A checkpoint of a source, and how far it is.
#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "source_step")]
pub(crate) struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub(crate) source_id: i64,
    #[sea_orm(primary_key, auto_increment = false)]
    pub(crate) place: String,
    pub(crate) state: String,
    pub(crate) step: Option<i64>,
    pub(crate) shown: Json,
    pub(crate) version: String,
    #[sea_orm(column_type = "Blob")]
    pub(crate) fingerprint: Vec<u8>,
    pub(crate) since_ms: i64,
    pub(crate) settle_ms: i64,
    pub(crate) marker: Option<String>,
    #[sea_orm(column_type = "Blob", nullable)]
    pub(crate) weights: Option<Vec<u8>>,
    #[sea_orm(column_type = "Blob", nullable)]
    pub(crate) ready_fingerprint: Option<Vec<u8>>,
    pub(crate) n_failures: i64,
    pub(crate) retry_at_ms: Option<i64>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub(crate) enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
