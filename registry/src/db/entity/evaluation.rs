//! Table `evaluation`.

use sea_orm::entity::prelude::*;

/// An evaluation.
#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "evaluation")]
pub(crate) struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub(crate) id: Uuid,
    pub(crate) namespace: String,
    pub(crate) run_id: i64,
    pub(crate) revision_id: i64,
    #[sea_orm(column_type = "Blob")]
    pub(crate) model_digest: Vec<u8>,
    #[sea_orm(column_type = "Blob")]
    pub(crate) suite_digest: Vec<u8>,
    pub(crate) suite_name: String,
    pub(crate) dtype: String,
    pub(crate) architecture: Option<String>,
    pub(crate) state: String,
    pub(crate) reason: Option<String>,
    pub(crate) n_failures: i32,
    pub(crate) n_expiries: i32,
    pub(crate) not_before_ms: i64,
    pub(crate) worker: Option<String>,
    pub(crate) token_id: Option<Uuid>,
    #[sea_orm(column_type = "Blob", nullable)]
    pub(crate) lease_sha256: Option<Vec<u8>>,
    pub(crate) lease_expires_at_ms: Option<i64>,
    #[sea_orm(column_type = "Blob", nullable)]
    pub(crate) claim_sha256: Option<Vec<u8>>,
    #[sea_orm(column_type = "Blob", nullable)]
    pub(crate) failed_lease_sha256: Option<Vec<u8>>,
    pub(crate) progress: Option<Json>,
    #[sea_orm(column_type = "Blob", nullable)]
    pub(crate) result_digest: Option<Vec<u8>>,
    pub(crate) created_at_ms: i64,
    pub(crate) started_at_ms: Option<i64>,
    pub(crate) finished_at_ms: Option<i64>,
    pub(crate) place: i64,
    #[sea_orm(column_type = "Blob", nullable)]
    pub(crate) tokenizer_digest: Option<Vec<u8>>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub(crate) enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
