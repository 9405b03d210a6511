//! Content: frames, chunks, files, and who may name them.

use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let frame = Table::create()
            .table("frame")
            .col(ColumnDef::new("id").uuid().not_null().primary_key())
            .col(ColumnDef::new("chunk_digest").binary().not_null())
            .col(ColumnDef::new("state").text().not_null())
            .col(ColumnDef::new("stored_bytes").big_integer().not_null())
            .col(ColumnDef::new("created_at_ms").big_integer().not_null())
            .to_owned();
        manager.create_table(frame).await?;
        let by_state = Index::create()
            .name("frame_by_state")
            .table("frame")
            .col("state")
            .col("created_at_ms")
            .to_owned();
        manager.create_index(by_state).await?;

        let chunk = Table::create()
            .table("chunk")
            .col(ColumnDef::new("digest").binary().not_null().primary_key())
            .col(ColumnDef::new("size_bytes").big_integer().not_null())
            .col(ColumnDef::new("frame_id").uuid().not_null())
            .foreign_key(ForeignKey::create().from("chunk", "frame_id").to("frame", "id"))
            .to_owned();
        manager.create_table(chunk).await?;

        let possession = Table::create()
            .table("possession")
            .col(ColumnDef::new("digest").binary().not_null())
            .col(ColumnDef::new("run_id").big_integer().not_null())
            .col(ColumnDef::new("put_at_ms").big_integer().not_null())
            // When a ready checkpoint of the run first held the digest: from then on readers may name it too.
            .col(ColumnDef::new("published_at_ms").big_integer())
            .primary_key(Index::create().col("digest").col("run_id"))
            .foreign_key(
                ForeignKey::create()
                    .from("possession", "run_id")
                    .to("run", "id")
                    .on_delete(ForeignKeyAction::Cascade),
            )
            .to_owned();
        manager.create_table(possession).await?;

        // A row exists only for a file whose bytes were read back from the store and hashed to its digest.
        let file = Table::create()
            .table("file")
            .col(ColumnDef::new("digest").binary().not_null().primary_key())
            .col(ColumnDef::new("size_bytes").big_integer().not_null())
            // Its chunks in order, 40 bytes each: digest, then the raw size as a little-endian u64.
            .col(ColumnDef::new("recipe").binary().not_null())
            // Its tensors (name, dtype, shape, digest), where it is a container of weights.
            .col(ColumnDef::new("tensors").json())
            .col(ColumnDef::new("verified_at_ms").big_integer().not_null())
            .to_owned();
        manager.create_table(file).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in ["file", "possession", "chunk", "frame"] {
            manager.drop_table(Table::drop().table(table).to_owned()).await?;
        }
        Ok(())
    }
}
