//! Table `token`.

use sea_orm::entity::prelude::*;

/// A token: never its secret, only the SHA-256 of it.
#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "token")]
pub(crate) struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub(crate) id: Uuid,
    pub(crate) name: String,
    #[sea_orm(column_type = "Blob")]
    pub(crate) secret_sha256: Vec<u8>,
    pub(crate) scopes: String,
    pub(crate) pattern: String,
    pub(crate) created_at_ms: i64,
    pub(crate) expires_at_ms: Option<i64>,
    pub(crate) revoked_at_ms: Option<i64>,
    pub(crate) last_used_at_ms: Option<i64>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub(crate) enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
