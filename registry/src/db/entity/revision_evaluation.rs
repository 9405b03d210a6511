//! Table `revision_evaluation`.

use sea_orm::entity::prelude::*;

/// The revisions whose scores an evaluation gives.
#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "revision_evaluation")]
pub(crate) struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub(crate) revision_id: i64,
    #[sea_orm(primary_key, auto_increment = false)]
    pub(crate) evaluation_id: Uuid,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub(crate) enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
