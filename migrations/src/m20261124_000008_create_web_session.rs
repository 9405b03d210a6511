//! The logins of browsers. A row has no secret: only the SHA-256 of the cookie.

use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let web_session = Table::create()
            .table("web_session")
            .col(ColumnDef::new("secret_sha256").binary().not_null().primary_key())
            .col(ColumnDef::new("token_id").uuid().not_null())
            .col(ColumnDef::new("created_at_ms").big_integer().not_null())
            .col(ColumnDef::new("expires_at_ms").big_integer().not_null())
            .foreign_key(
                ForeignKey::create()
                    .from("web_session", "token_id")
                    .to("token", "id")
                    .on_delete(ForeignKeyAction::Cascade),
            )
            .to_owned();
        manager.create_table(web_session).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.drop_table(Table::drop().table("web_session").to_owned()).await
    }
}
