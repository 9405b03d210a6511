//! Condemned frames by their chunk: who asks for thousands of chunks learns of those that are going from a small index, and
//! looks at no frame.

use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let create = "CREATE INDEX frame_condemned_chunk ON frame (chunk_digest) WHERE condemned_at_ms IS NOT NULL";
        manager.get_connection().execute_unprepared(create).await.map(|_| ())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let drop = "DROP INDEX frame_condemned_chunk";
        manager.get_connection().execute_unprepared(drop).await.map(|_| ())
    }
}
