//! For how long a checkpoint of a source has to stay as it is, and which marker file was there: one that was there before its
//! files changed says nothing of what they are now.

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::DbBackend;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        // What a place calls the bytes of its marker file; compared by bytes on either engine.
        let collation = match manager.get_database_backend() {
            DbBackend::Postgres => " COLLATE \"C\"",
            _ => "",
        };
        let run = |statement: String| async move { manager.get_connection().execute_unprepared(&statement).await };
        run(format!("ALTER TABLE source_step ADD COLUMN marker TEXT{collation}")).await?;
        run("ALTER TABLE source_step ADD COLUMN settle_ms BIGINT NOT NULL DEFAULT 300000".to_owned()).await?;
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for column in ["settle_ms", "marker"] {
            let statement = format!("ALTER TABLE source_step DROP COLUMN {column}");
            manager.get_connection().execute_unprepared(&statement).await?;
        }
        Ok(())
    }
}
