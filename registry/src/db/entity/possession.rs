//! Table `possession`.

use sea_orm::entity::prelude::*;

/// Who may name a digest: the runs into which its bytes were put.
#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "possession")]
pub(crate) struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub(crate) digest: Vec<u8>,
    #[sea_orm(primary_key, auto_increment = false)]
    pub(crate) run_id: i64,
    /// When it was put or named, as far as the marks can tell: one that is newer than the last of them stays as it is.
    pub(crate) put_at_ms: i64,
    pub(crate) published_at_ms: Option<i64>,
    pub(crate) released_at_ms: Option<i64>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub(crate) enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
