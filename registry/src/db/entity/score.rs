//! Table `score`.

use sea_orm::entity::prelude::*;

/// A score: of an evaluation, or of a revision when it came from outside.
#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "score")]
pub(crate) struct Model {
    #[sea_orm(primary_key)]
    pub(crate) id: i64,
    pub(crate) evaluation_id: Option<Uuid>,
    pub(crate) revision_id: Option<i64>,
    pub(crate) task: String,
    pub(crate) metric: String,
    pub(crate) filter: String,
    pub(crate) value: f64,
    pub(crate) stderr: Option<f64>,
    pub(crate) stderr_method: Option<String>,
    pub(crate) n: i64,
    pub(crate) n_shot: i32,
    pub(crate) higher_is_better: Option<bool>,
    pub(crate) harness: String,
    pub(crate) harness_version: Option<String>,
    pub(crate) dtype: Option<String>,
    pub(crate) provenance: Json,
    pub(crate) created_at_ms: i64,
    pub(crate) sample_limit: Option<i64>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub(crate) enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
