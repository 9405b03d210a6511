//! Deletion and collection: when a run stopped holding a digest, since when a frame is condemned, which stored bytes were
//! found damaged, what the server keeps for itself, and runs that are deleted but not yet forgotten.

use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

const UP: [&str; 13] = [
    // Set by the mark when no checkpoint of the run holds the digest any more; the row goes a grace later.
    "ALTER TABLE possession ADD COLUMN released_at_ms BIGINT",
    "CREATE INDEX possession_released ON possession (released_at_ms) WHERE released_at_ms IS NOT NULL",
    "CREATE INDEX possession_by_run ON possession (run_id, digest)",
    "ALTER TABLE frame ADD COLUMN condemned_at_ms BIGINT",
    // A frame that lost a race was condemned without a time.
    "UPDATE frame SET condemned_at_ms = created_at_ms WHERE state = 'condemned'",
    "CREATE INDEX frame_condemned ON frame (condemned_at_ms) WHERE condemned_at_ms IS NOT NULL",
    // Since when it is known that the frame does not hold the chunk: it counts as missing, and the next put replaces it.
    "ALTER TABLE chunk ADD COLUMN damaged_at_ms BIGINT",
    "CREATE INDEX chunk_damaged ON chunk (damaged_at_ms) WHERE damaged_at_ms IS NOT NULL",
    "CREATE INDEX chunk_by_frame ON chunk (frame_id)",
    "CREATE INDEX sample_log_by_file ON sample_log (file_digest)",
    "ALTER TABLE run ADD COLUMN deleted_at_ms BIGINT",
    "DROP INDEX run_by_name",
    // The name of a deleted run is free at once, whatever is left of it.
    "CREATE UNIQUE INDEX run_by_name ON run (namespace, name) WHERE deleted_at_ms IS NULL",
];

const DOWN: [&str; 14] = [
    "DELETE FROM evaluation WHERE run_id IN (SELECT id FROM run WHERE deleted_at_ms IS NOT NULL)",
    "DELETE FROM run WHERE deleted_at_ms IS NOT NULL",
    "DROP INDEX run_by_name",
    "CREATE UNIQUE INDEX \"run_by_name\" ON \"run\" (\"namespace\", \"name\")",
    "ALTER TABLE run DROP COLUMN deleted_at_ms",
    "DROP INDEX sample_log_by_file",
    "DROP INDEX chunk_by_frame",
    "DROP INDEX chunk_damaged",
    "ALTER TABLE chunk DROP COLUMN damaged_at_ms",
    "DROP INDEX frame_condemned",
    "ALTER TABLE frame DROP COLUMN condemned_at_ms",
    "DROP INDEX possession_by_run",
    "DROP INDEX possession_released",
    "ALTER TABLE possession DROP COLUMN released_at_ms",
];

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        run(manager, &UP).await?;
        let retention = Table::alter()
            .table("run")
            .add_column(ColumnDef::new("retention").json())
            .to_owned();
        manager.alter_table(retention).await?;
        // The chunks of files that belong to no run: those of suites and sample logs.
        let kept = Table::create()
            .table("kept_chunk")
            .col(ColumnDef::new("file_digest").binary().not_null())
            .col(ColumnDef::new("chunk_digest").binary().not_null())
            .primary_key(Index::create().col("file_digest").col("chunk_digest"))
            .to_owned();
        manager.create_table(kept).await?;
        let by_chunk = Index::create()
            .name("kept_chunk_by_chunk")
            .table("kept_chunk")
            .col("chunk_digest")
            .to_owned();
        manager.create_index(by_chunk).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.drop_table(Table::drop().table("kept_chunk").to_owned()).await?;
        run(manager, &["ALTER TABLE run DROP COLUMN retention"]).await?;
        run(manager, &DOWN).await
    }
}

async fn run(manager: &SchemaManager<'_>, statements: &[&str]) -> Result<(), DbErr> {
    for statement in statements {
        manager.get_connection().execute_unprepared(statement).await?;
    }
    Ok(())
}
