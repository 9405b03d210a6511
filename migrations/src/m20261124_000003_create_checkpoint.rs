//! Checkpoints, the revisions that steps point to, push sessions, tags and releases.

use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        create_checkpoints(manager).await?;
        create_push_sessions(manager).await?;
        create_names(manager).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in [
            "release",
            "tag",
            "push_session_file",
            "push_session",
            "revision",
            "checkpoint",
        ] {
            manager.drop_table(Table::drop().table(table).to_owned()).await?;
        }
        Ok(())
    }
}

async fn create_checkpoints(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    // What follows from the bytes alone; the same for every run that holds them.
    let checkpoint = Table::create()
        .table("checkpoint")
        .col(ColumnDef::new("digest").binary().not_null().primary_key())
        .col(ColumnDef::new("manifest").binary().not_null())
        .col(ColumnDef::new("n_files").big_integer().not_null())
        .col(ColumnDef::new("size_bytes").big_integer().not_null())
        .col(ColumnDef::new("weights_digest").binary())
        .col(ColumnDef::new("model_digest").binary())
        .col(ColumnDef::new("architecture").text())
        .to_owned();
    manager.create_table(checkpoint).await?;

    let revision = Table::create()
        .table("revision")
        .col(
            ColumnDef::new("id")
                .big_integer()
                .not_null()
                .auto_increment()
                .primary_key(),
        )
        .col(ColumnDef::new("run_id").big_integer().not_null())
        .col(ColumnDef::new("step").big_integer().not_null())
        .col(ColumnDef::new("label").text())
        .col(ColumnDef::new("state").text().not_null())
        .col(ColumnDef::new("current").boolean().not_null())
        .col(ColumnDef::new("checkpoint_digest").binary())
        .col(ColumnDef::new("weights_digest").binary())
        // Weights, config and tokenizer together; absent while the step cannot be evaluated.
        .col(ColumnDef::new("model_digest").binary())
        .col(ColumnDef::new("tokens").big_integer())
        .col(ColumnDef::new("loss").double())
        .col(ColumnDef::new("metadata").json().not_null())
        .col(ColumnDef::new("tags").json().not_null())
        .col(ColumnDef::new("warnings").json().not_null())
        .col(ColumnDef::new("failure").text())
        .col(ColumnDef::new("replace").boolean().not_null())
        .col(ColumnDef::new("created_at_ms").big_integer().not_null())
        .col(ColumnDef::new("ready_at_ms").big_integer())
        // Which server verifies it, until when: another may take over after that.
        .col(ColumnDef::new("verifier").uuid())
        .col(ColumnDef::new("verifier_until_ms").big_integer())
        .foreign_key(
            ForeignKey::create()
                .from("revision", "run_id")
                .to("run", "id")
                .on_delete(ForeignKeyAction::Cascade),
        )
        .to_owned();
    manager.create_table(revision).await?;
    let by_step = Index::create()
        .name("revision_by_step")
        .table("revision")
        .col("run_id")
        .col("step")
        .col("id")
        .to_owned();
    manager.create_index(by_step).await?;
    let by_state = Index::create()
        .name("revision_by_state")
        .table("revision")
        .col("state")
        .to_owned();
    manager.create_index(by_state).await?;
    let by_model = Index::create()
        .name("revision_by_model")
        .table("revision")
        .col("model_digest")
        .to_owned();
    manager.create_index(by_model).await?;
    let by_weights = Index::create()
        .name("revision_by_weights")
        .table("revision")
        .col("run_id")
        .col("weights_digest")
        .to_owned();
    manager.create_index(by_weights).await?;
    let by_checkpoint = Index::create()
        .name("revision_by_checkpoint")
        .table("revision")
        .col("checkpoint_digest")
        .col("run_id")
        .to_owned();
    manager.create_index(by_checkpoint).await?;
    let one_current = "CREATE UNIQUE INDEX revision_current ON revision (run_id, step) WHERE current";
    manager
        .get_connection()
        .execute_unprepared(one_current)
        .await
        .map(|_| ())
}

async fn create_push_sessions(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    let session = Table::create()
        .table("push_session")
        .col(ColumnDef::new("id").uuid().not_null().primary_key())
        .col(ColumnDef::new("run_id").big_integer().not_null())
        // The revision that it fills; absent where the step held the same checkpoint already.
        .col(ColumnDef::new("revision_id").big_integer())
        .col(ColumnDef::new("step").big_integer().not_null())
        .col(ColumnDef::new("state").text().not_null())
        .col(ColumnDef::new("unchanged").boolean().not_null())
        .col(ColumnDef::new("manifest_digest").binary())
        .col(ColumnDef::new("received_chunks").big_integer().not_null())
        .col(ColumnDef::new("received_bytes").big_integer().not_null())
        .col(ColumnDef::new("failure").text())
        .col(ColumnDef::new("created_at_ms").big_integer().not_null())
        .col(ColumnDef::new("heartbeat_at_ms").big_integer().not_null())
        .foreign_key(
            ForeignKey::create()
                .from("push_session", "run_id")
                .to("run", "id")
                .on_delete(ForeignKeyAction::Cascade),
        )
        .to_owned();
    manager.create_table(session).await?;
    let by_state = Index::create()
        .name("push_session_by_state")
        .table("push_session")
        .col("state")
        .col("heartbeat_at_ms")
        .to_owned();
    manager.create_index(by_state).await?;

    let file = Table::create()
        .table("push_session_file")
        .col(ColumnDef::new("session_id").uuid().not_null())
        .col(ColumnDef::new("path").text().not_null())
        .col(ColumnDef::new("digest").binary().not_null())
        .col(ColumnDef::new("size_bytes").big_integer().not_null())
        .col(ColumnDef::new("recipe").binary().not_null())
        .primary_key(Index::create().col("session_id").col("path"))
        .foreign_key(
            ForeignKey::create()
                .from("push_session_file", "session_id")
                .to("push_session", "id")
                .on_delete(ForeignKeyAction::Cascade),
        )
        .to_owned();
    manager.create_table(file).await
}

async fn create_names(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    let tag = Table::create()
        .table("tag")
        .col(ColumnDef::new("run_id").big_integer().not_null())
        .col(ColumnDef::new("name").text().not_null())
        .col(ColumnDef::new("revision_id").big_integer().not_null())
        .col(ColumnDef::new("updated_at_ms").big_integer().not_null())
        .primary_key(Index::create().col("run_id").col("name"))
        .foreign_key(
            ForeignKey::create()
                .from("tag", "revision_id")
                .to("revision", "id")
                .on_delete(ForeignKeyAction::Cascade),
        )
        .to_owned();
    manager.create_table(tag).await?;

    let release = Table::create()
        .table("release")
        .col(ColumnDef::new("run_id").big_integer().not_null())
        .col(ColumnDef::new("name").text().not_null())
        .col(ColumnDef::new("revision_id").big_integer().not_null())
        .col(ColumnDef::new("notes").text().not_null())
        .col(ColumnDef::new("created_at_ms").big_integer().not_null())
        .primary_key(Index::create().col("run_id").col("name"))
        .foreign_key(ForeignKey::create().from("release", "revision_id").to("revision", "id"))
        .to_owned();
    manager.create_table(release).await
}
