//! A binding says which steps it asks for and which comes next. A score says which limit left samples out, and one that a
//! limit left out of is another than the one of all samples.

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::DbBackend;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

const UP: [&str; 4] = [
    // Steps that this divides.
    "ALTER TABLE binding ADD COLUMN every_steps BIGINT NOT NULL DEFAULT 1",
    // Samples of a task at most; null when all were asked.
    "ALTER TABLE score ADD COLUMN sample_limit BIGINT",
    "DROP INDEX score_by_revision",
    "CREATE UNIQUE INDEX score_by_revision ON score \
        (revision_id, harness, task, metric, filter, n_shot, COALESCE(sample_limit, 0))",
];

/// arrival, newest or coarse; compared by bytes on either engine.
const ORDER: [&str; 2] = [
    "ALTER TABLE binding ADD COLUMN step_order TEXT NOT NULL DEFAULT 'arrival'",
    "ALTER TABLE binding ADD COLUMN step_order TEXT COLLATE \"C\" NOT NULL DEFAULT 'arrival'",
];

/// What the suite says, for scores that were there before: how many samples there were is not known of them.
const LIMITS: [&str; 2] = [
    "UPDATE score SET sample_limit = (SELECT json_extract(suite.definition, '$.limit') FROM evaluation \
        JOIN suite ON suite.digest = evaluation.suite_digest WHERE evaluation.id = score.evaluation_id) \
        WHERE evaluation_id IS NOT NULL",
    "UPDATE score SET sample_limit = (suite.definition->>'limit')::bigint FROM evaluation \
        JOIN suite ON suite.digest = evaluation.suite_digest WHERE evaluation.id = score.evaluation_id",
];

const DOWN: [&str; 6] = [
    "DROP INDEX score_by_revision",
    // Of a score with a limit and one without only one can stay.
    "DELETE FROM score WHERE revision_id IS NOT NULL AND EXISTS (SELECT 1 FROM score AS other \
        WHERE other.revision_id = score.revision_id AND other.harness = score.harness AND other.task = score.task \
        AND other.metric = score.metric AND other.filter = score.filter AND other.n_shot = score.n_shot \
        AND COALESCE(other.sample_limit, 0) < COALESCE(score.sample_limit, 0))",
    // To the letter as it was made first.
    r#"CREATE UNIQUE INDEX "score_by_revision" ON "score" ("revision_id", "harness", "task", "metric", "filter", "n_shot")"#,
    "ALTER TABLE score DROP COLUMN sample_limit",
    "ALTER TABLE binding DROP COLUMN step_order",
    "ALTER TABLE binding DROP COLUMN every_steps",
];

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        run(manager, &UP).await?;
        let engine = usize::from(manager.get_database_backend() == DbBackend::Postgres);
        run(manager, &[ORDER[engine], LIMITS[engine]]).await
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
