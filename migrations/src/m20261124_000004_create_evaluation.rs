//! Suites and their bindings, evaluations, workers, scores and sample logs.

use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        create_suites(manager).await?;
        create_evaluations(manager).await?;
        create_scores(manager).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let tables = [
            "sample_log",
            "score",
            "worker",
            "revision_evaluation",
            "evaluation",
            "binding",
            "suite_pattern",
            "suite",
        ];
        for table in tables {
            manager.drop_table(Table::drop().table(table).to_owned()).await?;
        }
        Ok(())
    }
}

async fn create_suites(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    let suite = Table::create()
        .table("suite")
        .col(ColumnDef::new("digest").binary().not_null().primary_key())
        .col(ColumnDef::new("name").text().not_null())
        .col(ColumnDef::new("definition").json().not_null())
        .col(ColumnDef::new("size_bytes").big_integer().not_null())
        .col(ColumnDef::new("created_at_ms").big_integer().not_null())
        .to_owned();
    manager.create_table(suite).await?;

    // The runs that a suite was uploaded for: who reads some of them may name it.
    let pattern = Table::create()
        .table("suite_pattern")
        .col(ColumnDef::new("suite_digest").binary().not_null())
        .col(ColumnDef::new("pattern").text().not_null())
        .primary_key(Index::create().col("suite_digest").col("pattern"))
        .foreign_key(
            ForeignKey::create()
                .from("suite_pattern", "suite_digest")
                .to("suite", "digest"),
        )
        .to_owned();
    manager.create_table(pattern).await?;

    let binding = Table::create()
        .table("binding")
        .col(ColumnDef::new("id").uuid().not_null().primary_key())
        .col(ColumnDef::new("pattern").text().not_null())
        .col(ColumnDef::new("suite_name").text().not_null())
        .col(ColumnDef::new("suite_digest").binary().not_null())
        .col(ColumnDef::new("dtype").text().not_null())
        .col(ColumnDef::new("created_at_ms").big_integer().not_null())
        .foreign_key(
            ForeignKey::create()
                .from("binding", "suite_digest")
                .to("suite", "digest"),
        )
        .to_owned();
    manager.create_table(binding).await?;
    let one = Index::create()
        .name("binding_by_pattern")
        .table("binding")
        .col("pattern")
        .col("suite_name")
        .unique()
        .to_owned();
    manager.create_index(one).await
}

async fn create_evaluations(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    let evaluation = Table::create()
        .table("evaluation")
        .col(ColumnDef::new("id").uuid().not_null().primary_key())
        .col(ColumnDef::new("namespace").text().not_null())
        // The run and revision that it was queued for, whose files a worker reads.
        .col(ColumnDef::new("run_id").big_integer().not_null())
        .col(ColumnDef::new("revision_id").big_integer().not_null())
        .col(ColumnDef::new("model_digest").binary().not_null())
        .col(ColumnDef::new("suite_digest").binary().not_null())
        .col(ColumnDef::new("dtype").text().not_null())
        .col(ColumnDef::new("architecture").text())
        .col(ColumnDef::new("state").text().not_null())
        .col(ColumnDef::new("reason").text())
        .col(ColumnDef::new("n_failures").integer().not_null())
        .col(ColumnDef::new("n_expiries").integer().not_null())
        // No worker gets it before this: the back-off after a failure.
        .col(ColumnDef::new("not_before_ms").big_integer().not_null())
        .col(ColumnDef::new("worker").text())
        .col(ColumnDef::new("token_id").uuid())
        .col(ColumnDef::new("lease_sha256").binary())
        .col(ColumnDef::new("lease_expires_at_ms").big_integer())
        .col(ColumnDef::new("progress").json())
        .col(ColumnDef::new("result_digest").binary())
        .col(ColumnDef::new("created_at_ms").big_integer().not_null())
        .col(ColumnDef::new("started_at_ms").big_integer())
        .col(ColumnDef::new("finished_at_ms").big_integer())
        .foreign_key(
            ForeignKey::create()
                .from("evaluation", "revision_id")
                .to("revision", "id"),
        )
        .foreign_key(
            ForeignKey::create()
                .from("evaluation", "suite_digest")
                .to("suite", "digest"),
        )
        .to_owned();
    manager.create_table(evaluation).await?;
    let by_state = Index::create()
        .name("evaluation_by_state")
        .table("evaluation")
        .col("state")
        .col("created_at_ms")
        .to_owned();
    manager.create_index(by_state).await?;
    let by_key = Index::create()
        .name("evaluation_by_key")
        .table("evaluation")
        .col("namespace")
        .col("model_digest")
        .col("suite_digest")
        .col("dtype")
        .to_owned();
    manager.create_index(by_key).await?;
    // One run never has two evaluations of one key, whatever races.
    let one = Index::create()
        .name("evaluation_once_a_run")
        .table("evaluation")
        .col("run_id")
        .col("model_digest")
        .col("suite_digest")
        .col("dtype")
        .unique()
        .to_owned();
    manager.create_index(one).await?;

    // The revisions whose scores an evaluation gives: the same model at two steps is evaluated once.
    let link = Table::create()
        .table("revision_evaluation")
        .col(ColumnDef::new("revision_id").big_integer().not_null())
        .col(ColumnDef::new("evaluation_id").uuid().not_null())
        .primary_key(Index::create().col("revision_id").col("evaluation_id"))
        .foreign_key(
            ForeignKey::create()
                .from("revision_evaluation", "revision_id")
                .to("revision", "id")
                .on_delete(ForeignKeyAction::Cascade),
        )
        .foreign_key(
            ForeignKey::create()
                .from("revision_evaluation", "evaluation_id")
                .to("evaluation", "id")
                .on_delete(ForeignKeyAction::Cascade),
        )
        .to_owned();
    manager.create_table(link).await?;
    let by_evaluation = Index::create()
        .name("revision_evaluation_by_evaluation")
        .table("revision_evaluation")
        .col("evaluation_id")
        .to_owned();
    manager.create_index(by_evaluation).await?;

    let worker = Table::create()
        .table("worker")
        .col(ColumnDef::new("name").text().not_null())
        .col(ColumnDef::new("token_id").uuid().not_null())
        .col(ColumnDef::new("device").text().not_null())
        .col(ColumnDef::new("memory_bytes").big_integer().not_null())
        .col(ColumnDef::new("dtypes").json().not_null())
        .col(ColumnDef::new("architectures").json().not_null())
        .col(ColumnDef::new("seen_at_ms").big_integer().not_null())
        .primary_key(Index::create().col("name").col("token_id"))
        .to_owned();
    manager.create_table(worker).await
}

async fn create_scores(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    // Ours belong to an evaluation, those from outside to a revision; exactly one of the two is set.
    let score = Table::create()
        .table("score")
        .col(
            ColumnDef::new("id")
                .big_integer()
                .not_null()
                .auto_increment()
                .primary_key(),
        )
        .col(ColumnDef::new("evaluation_id").uuid())
        .col(ColumnDef::new("revision_id").big_integer())
        .col(ColumnDef::new("task").text().not_null())
        .col(ColumnDef::new("metric").text().not_null())
        .col(ColumnDef::new("filter").text().not_null())
        .col(ColumnDef::new("value").double().not_null())
        .col(ColumnDef::new("stderr").double())
        .col(ColumnDef::new("stderr_method").text())
        .col(ColumnDef::new("n").big_integer().not_null())
        .col(ColumnDef::new("n_shot").integer().not_null())
        .col(ColumnDef::new("higher_is_better").boolean())
        .col(ColumnDef::new("harness").text().not_null())
        .col(ColumnDef::new("harness_version").text())
        .col(ColumnDef::new("dtype").text())
        .col(ColumnDef::new("provenance").json().not_null())
        .col(ColumnDef::new("created_at_ms").big_integer().not_null())
        .foreign_key(
            ForeignKey::create()
                .from("score", "evaluation_id")
                .to("evaluation", "id")
                .on_delete(ForeignKeyAction::Cascade),
        )
        .foreign_key(
            ForeignKey::create()
                .from("score", "revision_id")
                .to("revision", "id")
                .on_delete(ForeignKeyAction::Cascade),
        )
        .to_owned();
    manager.create_table(score).await?;
    let ours = Index::create()
        .name("score_by_evaluation")
        .table("score")
        .col("evaluation_id")
        .col("task")
        .col("metric")
        .col("filter")
        .unique()
        .to_owned();
    manager.create_index(ours).await?;
    let outside = Index::create()
        .name("score_by_revision")
        .table("score")
        .col("revision_id")
        .col("harness")
        .col("task")
        .col("metric")
        .col("filter")
        .col("n_shot")
        .unique()
        .to_owned();
    manager.create_index(outside).await?;

    let log = Table::create()
        .table("sample_log")
        .col(ColumnDef::new("evaluation_id").uuid().not_null())
        .col(ColumnDef::new("task").text().not_null())
        .col(ColumnDef::new("file_digest").binary().not_null())
        .primary_key(Index::create().col("evaluation_id").col("task"))
        .foreign_key(
            ForeignKey::create()
                .from("sample_log", "evaluation_id")
                .to("evaluation", "id")
                .on_delete(ForeignKeyAction::Cascade),
        )
        .to_owned();
    manager.create_table(log).await
}
