//! Table `kept_chunk`.

use sea_orm::entity::prelude::*;

/// A chunk of a file that the server keeps for itself: of a suite, or a sample log.
#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "kept_chunk")]
pub(crate) struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub(crate) file_digest: Vec<u8>,
    #[sea_orm(primary_key, auto_increment = false)]
    pub(crate) chunk_digest: Vec<u8>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub(crate) enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
