//! What keeps content while a backup or a move copies it, and where a registry went or came from. None of this is content:
//! no backup has it, and no move carries it.

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::DbBackend;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let text = |name: &str| {
            let mut column = ColumnDef::new(name.to_owned());
            column.text().not_null();
            if manager.get_database_backend() == DbBackend::Postgres {
                column.extra("COLLATE \"C\"");
            }
            column
        };
        // While one lasts, no frame is deleted.
        let hold = Table::create()
            .table("hold")
            .col(ColumnDef::new("id").uuid().not_null().primary_key())
            .col(text("purpose"))
            .col(ColumnDef::new("until_ms").big_integer().not_null())
            .to_owned();
        manager.create_table(hold).await?;

        // At most one row: while it is there nobody writes here but the move itself.
        let departure = Table::create()
            .table("departure")
            .col(ColumnDef::new("id").uuid().not_null().primary_key())
            .col(text("database"))
            .col(text("store"))
            .col(ColumnDef::new("began_at_ms").big_integer().not_null())
            // When everything was there; absent while the move may still be taken back.
            .col(ColumnDef::new("ended_at_ms").big_integer())
            .to_owned();
        manager.create_table(departure).await?;

        // At most one row, with the id of the departure, written in the transaction of all that came.
        let arrival = Table::create()
            .table("arrival")
            .col(ColumnDef::new("id").uuid().not_null().primary_key())
            .col(ColumnDef::new("arrived_at_ms").big_integer().not_null())
            .to_owned();
        manager.create_table(arrival).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in ["arrival", "departure", "hold"] {
            manager.drop_table(Table::drop().table(table).to_owned()).await?;
        }
        Ok(())
    }
}
