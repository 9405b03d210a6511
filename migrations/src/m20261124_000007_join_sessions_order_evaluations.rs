//! Push sessions that the ranks of a job join by name. An evaluation has a place in the queue. A run lends a tokenizer
//! to the steps that have none of their own.

use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

const UP: [&str; 4] = [
    "ALTER TABLE push_session ADD COLUMN session_name TEXT",
    // Two ranks that open a session of one name at the same instant have one.
    "CREATE UNIQUE INDEX push_session_open_name ON push_session (run_id, step, session_name) \
        WHERE session_name IS NOT NULL AND state = 'open'",
    // 0 for a new step; a back-fill counts from 1, so that new steps come first.
    "ALTER TABLE evaluation ADD COLUMN place BIGINT NOT NULL DEFAULT 0",
    "CREATE INDEX evaluation_by_place ON evaluation (state, place, created_at_ms)",
];

const DOWN: [&str; 4] = [
    "DROP INDEX evaluation_by_place",
    "ALTER TABLE evaluation DROP COLUMN place",
    "DROP INDEX push_session_open_name",
    "ALTER TABLE push_session DROP COLUMN session_name",
];

/// The run's default; what a revision's model digest was made with, and what an evaluation was queued with, where that is
/// not the checkpoint's own.
const BORROWERS: [&str; 3] = ["run", "revision", "evaluation"];

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        run(manager, &UP).await?;
        let tokenizer = Table::create()
            .table("tokenizer")
            .col(ColumnDef::new("digest").binary().not_null().primary_key())
            // The digest of each of its files by name; the server keeps these files itself.
            .col(ColumnDef::new("files").json().not_null())
            .col(ColumnDef::new("created_at_ms").big_integer().not_null())
            .to_owned();
        manager.create_table(tokenizer).await?;
        for table in BORROWERS {
            let column = ColumnDef::new("tokenizer_digest").binary().to_owned();
            manager
                .alter_table(Table::alter().table(table).add_column(column).to_owned())
                .await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in BORROWERS {
            manager
                .alter_table(Table::alter().table(table).drop_column("tokenizer_digest").to_owned())
                .await?;
        }
        manager.drop_table(Table::drop().table("tokenizer").to_owned()).await?;
        run(manager, &DOWN).await
    }
}

async fn run(manager: &SchemaManager<'_>, statements: &[&str]) -> Result<(), DbErr> {
    for statement in statements {
        manager.get_connection().execute_unprepared(statement).await?;
    }
    Ok(())
}
