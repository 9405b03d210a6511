//! Push sessions that the ranks of a job join by name. An evaluation has a place in the queue.

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

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        run(manager, &UP).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        run(manager, &DOWN).await
    }
}

async fn run(manager: &SchemaManager<'_>, statements: &[&str]) -> Result<(), DbErr> {
    for statement in statements {
        manager.get_connection().execute_unprepared(statement).await?;
    }
    Ok(())
}
