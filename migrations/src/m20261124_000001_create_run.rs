//! Runs, tokens and the events of runs.

use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let run = Table::create()
            .table("run")
            .col(
                ColumnDef::new("id")
                    .big_integer()
                    .not_null()
                    .auto_increment()
                    .primary_key(),
            )
            .col(ColumnDef::new("namespace").text().not_null())
            .col(ColumnDef::new("name").text().not_null())
            .col(ColumnDef::new("attributes").json().not_null())
            .col(ColumnDef::new("created_at_ms").big_integer().not_null())
            .to_owned();
        manager.create_table(run).await?;
        let by_name = Index::create()
            .name("run_by_name")
            .table("run")
            .col("namespace")
            .col("name")
            .unique()
            .to_owned();
        manager.create_index(by_name).await?;

        let token = Table::create()
            .table("token")
            .col(ColumnDef::new("id").uuid().not_null().primary_key())
            .col(ColumnDef::new("name").text().not_null())
            .col(ColumnDef::new("secret_sha256").binary().not_null().unique_key())
            .col(ColumnDef::new("scopes").text().not_null())
            .col(ColumnDef::new("pattern").text().not_null())
            .col(ColumnDef::new("created_at_ms").big_integer().not_null())
            .col(ColumnDef::new("expires_at_ms").big_integer())
            .col(ColumnDef::new("revoked_at_ms").big_integer())
            .to_owned();
        manager.create_table(token).await?;

        let event = Table::create()
            .table("event")
            .col(
                ColumnDef::new("id")
                    .big_integer()
                    .not_null()
                    .auto_increment()
                    .primary_key(),
            )
            .col(ColumnDef::new("run_id").big_integer().not_null())
            .col(ColumnDef::new("step").big_integer().not_null())
            .col(ColumnDef::new("kind").text().not_null())
            .col(ColumnDef::new("data").json().not_null())
            .col(ColumnDef::new("created_at_ms").big_integer().not_null())
            .foreign_key(
                ForeignKey::create()
                    .from("event", "run_id")
                    .to("run", "id")
                    .on_delete(ForeignKeyAction::Cascade),
            )
            .to_owned();
        manager.create_table(event).await?;
        let by_run = Index::create()
            .name("event_by_run")
            .table("event")
            .col("run_id")
            .col("id")
            .to_owned();
        manager.create_index(by_run).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in ["event", "token", "run"] {
            manager.drop_table(Table::drop().table(table).to_owned()).await?;
        }
        Ok(())
    }
}
