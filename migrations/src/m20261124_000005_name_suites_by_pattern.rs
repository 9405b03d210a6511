//! A suite's name and age belong to the runs that it was uploaded for, not to its content: two namespaces that upload the
//! same files know nothing of each other. An evaluation keeps the name that it was queued under.

use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

const UP: [&str; 5] = [
    "ALTER TABLE suite_pattern ADD COLUMN name TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE suite_pattern ADD COLUMN created_at_ms BIGINT NOT NULL DEFAULT 0",
    "UPDATE suite_pattern SET \
        name = (SELECT name FROM suite WHERE digest = suite_digest), \
        created_at_ms = (SELECT created_at_ms FROM suite WHERE digest = suite_digest)",
    "ALTER TABLE evaluation ADD COLUMN suite_name TEXT NOT NULL DEFAULT ''",
    "UPDATE evaluation SET suite_name = (SELECT name FROM suite WHERE digest = suite_digest)",
];

const DOWN: [&str; 3] = [
    "ALTER TABLE evaluation DROP COLUMN suite_name",
    "ALTER TABLE suite_pattern DROP COLUMN created_at_ms",
    "ALTER TABLE suite_pattern DROP COLUMN name",
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
