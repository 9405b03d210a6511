//! PostgreSQL compares text by the rules of the database's language unless told otherwise; lists and patterns of runs rely
//! on bytes, as SQLite compares. A table that is made later says so itself, or in a migration like this.

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::DbBackend;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

const UP: &str = r#"DO $$
DECLARE t record;
BEGIN
    FOR t IN SELECT c.table_name, c.column_name FROM information_schema.columns c
        WHERE c.table_schema = current_schema() AND c.data_type = 'text' AND c.collation_name IS DISTINCT FROM 'C'
    LOOP
        EXECUTE format('ALTER TABLE %I ALTER COLUMN %I TYPE text COLLATE "C"', t.table_name, t.column_name);
    END LOOP;
END $$"#;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        match manager.get_database_backend() {
            DbBackend::Postgres => manager.get_connection().execute_unprepared(UP).await.map(|_| ()),
            _ => Ok(()),
        }
    }

    /// Whatever stands below compares by bytes as well as by a language.
    async fn down(&self, _manager: &SchemaManager) -> Result<(), DbErr> {
        Ok(())
    }
}
