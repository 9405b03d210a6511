//! Sources: places outside of the registry whose checkpoints come in by themselves, how far each checkpoint is, and what
//! was read of each file.

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::DbBackend;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        create_sources(manager).await?;
        create_source_steps(manager).await?;
        create_source_files(manager).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in ["source_file", "source_step", "source"] {
            manager.drop_table(Table::drop().table(table).to_owned()).await?;
        }
        Ok(())
    }
}

/// A column of text that compares by bytes on either engine.
fn text(manager: &SchemaManager<'_>, name: &str) -> ColumnDef {
    let mut column = ColumnDef::new(name.to_owned());
    column.text();
    if manager.get_database_backend() == DbBackend::Postgres {
        column.extra("COLLATE \"C\"");
    }
    column
}

fn to_source(table: &'static str) -> ForeignKeyCreateStatement {
    ForeignKey::create()
        .from(table, "source_id")
        .to("source", "id")
        .on_delete(ForeignKeyAction::Cascade)
        .to_owned()
}

async fn create_sources(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    let source = Table::create()
        .table("source")
        .col(
            ColumnDef::new("id")
                .big_integer()
                .not_null()
                .auto_increment()
                .primary_key(),
        )
        .col(text(manager, "name").not_null().unique_key())
        .col(ColumnDef::new("run_id").big_integer().not_null())
        // What it was made with, less its secrets.
        .col(ColumnDef::new("definition").json().not_null())
        // What opens the place, unless the environment has it.
        .col(text(manager, "secret"))
        .col(ColumnDef::new("webhook_secret_sha256").binary())
        .col(text(manager, "state").not_null())
        .col(ColumnDef::new("created_at_ms").big_integer().not_null())
        .col(ColumnDef::new("synced_at_ms").big_integer())
        // When it is looked at next; null when it is not.
        .col(ColumnDef::new("next_sync_at_ms").big_integer())
        .col(text(manager, "error"))
        // Which server looks at it, until when: another may take over after that.
        .col(ColumnDef::new("syncer").uuid())
        .col(ColumnDef::new("syncer_until_ms").big_integer())
        .foreign_key(
            ForeignKey::create()
                .from("source", "run_id")
                .to("run", "id")
                .on_delete(ForeignKeyAction::Cascade),
        )
        .to_owned();
    manager.create_table(source).await
}

async fn create_source_steps(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    let source_step = Table::create()
        .table("source_step")
        .col(ColumnDef::new("source_id").big_integer().not_null())
        // Where in the source: `lab/run@ckpt_000`, `step-1`.
        .col(text(manager, "place").not_null())
        .col(text(manager, "state").not_null())
        .col(ColumnDef::new("step").big_integer())
        // All that is shown of it, as the API has it.
        .col(ColumnDef::new("shown").json().not_null())
        // What the place called its contents when they were listed last.
        .col(text(manager, "version").not_null())
        // Over the paths, sizes and versions of the files that come in, and since when they are so.
        .col(ColumnDef::new("fingerprint").binary().not_null())
        .col(ColumnDef::new("since_ms").big_integer().not_null())
        // Over the digests of its weights' files, where the place tells them.
        .col(ColumnDef::new("weights").binary())
        // The fingerprint that came in, where one did.
        .col(ColumnDef::new("ready_fingerprint").binary())
        // Attempts that failed since it changed last, and until when the next one waits.
        .col(ColumnDef::new("n_failures").big_integer().not_null())
        .col(ColumnDef::new("retry_at_ms").big_integer())
        .primary_key(Index::create().col("source_id").col("place"))
        .foreign_key(&mut to_source("source_step"))
        .to_owned();
    manager.create_table(source_step).await
}

async fn create_source_files(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    let source_file = Table::create()
        .table("source_file")
        .col(ColumnDef::new("source_id").big_integer().not_null())
        // Its checkpoint's place and its path there.
        .col(text(manager, "key").not_null())
        // What the place called its bytes (ETag, git's oid), and how many they were.
        .col(text(manager, "version").not_null())
        .col(ColumnDef::new("size_bytes").big_integer().not_null())
        // The chunks that were read so far, from its beginning on.
        .col(ColumnDef::new("recipe").binary().not_null())
        // Of the whole file, once it was read to its end.
        .col(ColumnDef::new("digest").binary())
        .primary_key(Index::create().col("source_id").col("key"))
        .foreign_key(&mut to_source("source_file"))
        .to_owned();
    manager.create_table(source_file).await
}
