//! Chunks and possessions lie in the tree of their key on SQLite, as `WITHOUT ROWID`: a row is found by one search, where an
//! index beside the table takes two, and who asks for thousands of digests asks for that many rows anywhere in the tree.
//! PostgreSQL keeps its heap, which has no such form.

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::{DbBackend, Statement};

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

/// What a table's definition ends in when its rows lie in the tree of their key.
const FORM: &str = " WITHOUT ROWID";

/// The tables, with their keys; no other table refers to them.
const TABLES: [(&str, &str); 2] = [("chunk", "digest"), ("possession", "digest, run_id")];

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        rebuild(manager, |columns| format!("{columns}{FORM}")).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        rebuild(manager, |columns| columns.trim_end_matches(FORM).to_owned()).await
    }
}

/// Makes each table anew with the same columns, rows and indexes, and another form.
async fn rebuild(manager: &SchemaManager<'_>, formed: impl Fn(&str) -> String) -> Result<(), DbErr> {
    if manager.get_database_backend() != DbBackend::Sqlite {
        return Ok(());
    }
    for (table, key) in TABLES {
        let defined = format!("type = 'table' AND name = '{table}'");
        let definition = definitions(manager, &defined).await?.concat();
        let columns = &definition[definition.find('(').unwrap_or_default()..];
        let indexes = definitions(
            manager,
            &format!("type = 'index' AND tbl_name = '{table}' AND sql IS NOT NULL"),
        )
        .await?;
        let rebuilt = [
            format!("CREATE TABLE rebuilt {}", formed(columns)),
            // In the order of the key, so that each page is filled and then left; read as it lies and sorted, since by its index
            // each row would be a read anywhere.
            format!("INSERT INTO rebuilt SELECT * FROM {table} NOT INDEXED ORDER BY {key}"),
            format!("DROP TABLE {table}"),
            format!("ALTER TABLE rebuilt RENAME TO {table}"),
        ];
        for statement in rebuilt.iter().chain(&indexes) {
            manager.get_connection().execute_unprepared(statement).await?;
        }
    }
    Ok(())
}

/// The statements that made what `condition` says.
async fn definitions(manager: &SchemaManager<'_>, condition: &str) -> Result<Vec<String>, DbErr> {
    let sql = format!("SELECT sql FROM sqlite_master WHERE {condition} ORDER BY name");
    let asked = Statement::from_string(DbBackend::Sqlite, sql);
    let rows = manager.get_connection().query_all_raw(asked).await?;
    rows.iter().map(|row| row.try_get("", "sql")).collect()
}
