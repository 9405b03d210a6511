//! Table `web_session`.

use sea_orm::entity::prelude::*;

/// The login of a browser: never its cookie, only the SHA-256 of it.
#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "web_session")]
pub(crate) struct Model {
    #[sea_orm(primary_key, auto_increment = false, column_type = "Blob")]
    pub(crate) secret_sha256: Vec<u8>,
    pub(crate) token_id: Uuid,
    pub(crate) created_at_ms: i64,
    pub(crate) expires_at_ms: i64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub(crate) enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
