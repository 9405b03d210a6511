//! When the last mark of a collection began: a possession that was put or named since then needs no newer time.

use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        // At most one row, with the id 1. It says something of this place alone: no backup has it, and no move carries it.
        let mark = Table::create()
            .table("mark")
            .col(ColumnDef::new("id").big_integer().not_null().primary_key())
            .col(ColumnDef::new("begun_at_ms").big_integer().not_null())
            .to_owned();
        manager.create_table(mark).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.drop_table(Table::drop().table("mark").to_owned()).await
    }
}
