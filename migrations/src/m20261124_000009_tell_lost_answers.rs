//! A call whose answer was lost is known when it comes again: the claim that gave a lease, and the lease whose failure was
//! told last.

use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

const COLUMNS: [&str; 2] = ["claim_sha256", "failed_lease_sha256"];

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for column in COLUMNS {
            let add = Table::alter()
                .table("evaluation")
                .add_column(ColumnDef::new(column).binary())
                .to_owned();
            manager.alter_table(add).await?;
        }
        let by_claim = Index::create()
            .name("evaluation_by_claim")
            .table("evaluation")
            .col("claim_sha256")
            .to_owned();
        manager.create_index(by_claim).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let by_claim = Index::drop().name("evaluation_by_claim").table("evaluation").to_owned();
        manager.drop_index(by_claim).await?;
        for column in COLUMNS {
            let drop = Table::alter().table("evaluation").drop_column(column).to_owned();
            manager.alter_table(drop).await?;
        }
        Ok(())
    }
}
