//! Places in the store at which clients put frames by themselves. A row is there before its URL is given away and until
//! its object is surely gone, so that nothing has to be listed.

use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        // No foreign key: a row outlives its session, or its object would be forgotten.
        let staging = Table::create()
            .table("staging")
            .col(ColumnDef::new("id").uuid().not_null().primary_key())
            .col(ColumnDef::new("session_id").uuid().not_null())
            // When the URL stops working.
            .col(ColumnDef::new("expires_at_ms").big_integer().not_null())
            .to_owned();
        manager.create_table(staging).await?;
        let by_expiry = Index::create()
            .name("staging_by_expiry")
            .table("staging")
            .col("expires_at_ms")
            .to_owned();
        manager.create_index(by_expiry).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.drop_table(Table::drop().table("staging").to_owned()).await
    }
}
