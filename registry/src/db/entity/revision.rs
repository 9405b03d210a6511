//! Table `revision`.

use sea_orm::entity::prelude::*;

/// What a step of a run points to, or pointed to.
#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "revision")]
pub(crate) struct Model {
    #[sea_orm(primary_key)]
    pub(crate) id: i64,
    pub(crate) run_id: i64,
    pub(crate) step: i64,
    pub(crate) label: Option<String>,
    pub(crate) state: String,
    pub(crate) current: bool,
    #[sea_orm(column_type = "Blob", nullable)]
    pub(crate) checkpoint_digest: Option<Vec<u8>>,
    #[sea_orm(column_type = "Blob", nullable)]
    pub(crate) weights_digest: Option<Vec<u8>>,
    #[sea_orm(column_type = "Blob", nullable)]
    pub(crate) model_digest: Option<Vec<u8>>,
    pub(crate) tokens: Option<i64>,
    pub(crate) loss: Option<f64>,
    pub(crate) metadata: Json,
    pub(crate) tags: Json,
    pub(crate) warnings: Json,
    pub(crate) failure: Option<String>,
    pub(crate) replace: bool,
    pub(crate) created_at_ms: i64,
    pub(crate) ready_at_ms: Option<i64>,
    pub(crate) verifier: Option<Uuid>,
    pub(crate) verifier_until_ms: Option<i64>,
    #[sea_orm(column_type = "Blob", nullable)]
    pub(crate) tokenizer_digest: Option<Vec<u8>>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub(crate) enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
