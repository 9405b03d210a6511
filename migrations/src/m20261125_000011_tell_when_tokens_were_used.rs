//! When a token was used last, to the minute: one that nobody uses any more can be revoked.

use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let add = Table::alter()
            .table("token")
            .add_column(ColumnDef::new("last_used_at_ms").big_integer())
            .to_owned();
        manager.alter_table(add).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let drop = Table::alter().table("token").drop_column("last_used_at_ms").to_owned();
        manager.alter_table(drop).await
    }
}
