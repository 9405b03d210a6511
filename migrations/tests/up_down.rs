//! Every migration goes up and down: empty → up → down → up leaves the schema of the first up.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use fineline_migrations::Migrator;
use sea_orm_migration::MigratorTrait;
use sea_orm_migration::sea_orm::{ConnectionTrait, Database, DatabaseConnection, DbBackend, Statement};

/// What the database holds beside the migrator's own table and what SQLite makes by itself.
async fn schema(db: &DatabaseConnection) -> Vec<String> {
    let sql = "SELECT type || ' ' || name || ': ' || coalesce(sql, '') AS line FROM sqlite_master \
        WHERE tbl_name NOT LIKE 'seaql_%' AND name NOT LIKE 'sqlite_%' ORDER BY type, name";
    lines(db, sql).await
}

#[tokio::test]
async fn up_down_up_is_up() {
    let db = Database::connect("sqlite::memory:").await.unwrap();
    Migrator::up(&db, None).await.unwrap();
    let first = schema(&db).await;
    assert!(
        first.iter().any(|line| line.starts_with("table possession:")),
        "{first:#?}"
    );
    Migrator::down(&db, None).await.unwrap();
    assert_eq!(
        schema(&db).await,
        Vec::<String>::new(),
        "nothing is left after all went down"
    );
    Migrator::up(&db, None).await.unwrap();
    assert_eq!(schema(&db).await, first);
    // Each by itself too: its down undoes its up, and no more.
    for migration in Migrator::migrations().iter().rev() {
        let before = schema(&db).await;
        Migrator::down(&db, Some(1)).await.unwrap();
        let (name, is_undone) = (migration.name(), schema(&db).await != before);
        // SQLite compares by bytes anyway.
        assert_eq!(is_undone, !name.ends_with("_compare_text_by_bytes"), "{name}");
        Migrator::up(&db, Some(1)).await.unwrap();
        assert_eq!(schema(&db).await, before);
        Migrator::down(&db, Some(1)).await.unwrap();
    }
}

/// Columns, foreign keys and indexes of the two tables that are made anew, as text.
async fn shape(db: &DatabaseConnection) -> Vec<String> {
    let of_both = "JOIN (SELECT 'chunk' AS of_table UNION ALL SELECT 'possession')";
    let sql = format!(
        "SELECT of_table || ' ' || name || ' ' || lower(type) || ' ' || \"notnull\" || ' ' || pk AS line \
        FROM pragma_table_info(of_table) {of_both} \
        UNION ALL SELECT of_table || ' ' || \"from\" || ' ' || \"table\" || ' ' || on_delete \
        FROM pragma_foreign_key_list(of_table) {of_both} \
        UNION ALL SELECT name || ' ' || sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL \
        AND tbl_name IN ('chunk', 'possession') ORDER BY 1"
    );
    lines(db, &sql).await
}

async fn lines(db: &DatabaseConnection, sql: &str) -> Vec<String> {
    let rows = db
        .query_all_raw(Statement::from_string(DbBackend::Sqlite, sql))
        .await
        .unwrap();
    rows.iter().map(|row| row.try_get("", "line").unwrap()).collect()
}

/// The rows of the two tables that are made anew, as text.
async fn rows(db: &DatabaseConnection) -> Vec<String> {
    let sql = "SELECT 'chunk ' || hex(digest) || ' ' || size_bytes || ' ' || hex(frame_id) || ' ' || \
        coalesce(damaged_at_ms, '') AS line FROM chunk UNION ALL SELECT 'possession ' || hex(digest) || ' ' || run_id || ' ' \
        || put_at_ms || ' ' || coalesce(published_at_ms, '') || ' ' || coalesce(released_at_ms, '') FROM possession ORDER BY 1";
    lines(db, sql).await
}

#[tokio::test]
async fn rows_stay_when_their_tables_are_made_anew() {
    // Given chunks and possessions of a registry from before.
    let db = Database::connect("sqlite::memory:").await.unwrap();
    Migrator::up(&db, Some(14)).await.unwrap();
    db.execute_unprepared(
        "INSERT INTO run (id, namespace, name, attributes, created_at_ms) VALUES (7, 'lab', 'run', '{}', 1);
        INSERT INTO frame (id, chunk_digest, state, stored_bytes, created_at_ms) VALUES (x'01', x'bb', 'live', 5, 1);
        INSERT INTO chunk VALUES (x'bb', 10, x'01', NULL), (x'aa', 20, x'01', 3);
        INSERT INTO possession VALUES (x'bb', 7, 1, NULL, NULL), (x'aa', 7, 2, 3, 4);",
    )
    .await
    .unwrap();
    let before = rows(&db).await;
    assert_eq!(before.len(), 4, "{before:?}");
    let described = shape(&db).await;
    // When the tables are made anew, either way, then every row is what it was, and so are columns, keys and indexes.
    Migrator::up(&db, Some(1)).await.unwrap();
    assert_eq!(rows(&db).await, before);
    assert_eq!(shape(&db).await, described);
    let without_rowid = |line: &&String| line.ends_with("WITHOUT ROWID");
    assert_eq!(schema(&db).await.iter().filter(without_rowid).count(), 2);
    // What they point to still binds them.
    let orphan = "INSERT INTO chunk VALUES (x'cc', 1, x'99', NULL)";
    assert!(db.execute_unprepared(orphan).await.is_err());
    Migrator::down(&db, Some(1)).await.unwrap();
    assert_eq!(rows(&db).await, before);
    assert_eq!(shape(&db).await, described);
    Migrator::up(&db, Some(1)).await.unwrap();
    db.execute_unprepared("DELETE FROM run").await.unwrap();
    assert_eq!(rows(&db).await.len(), 2, "possessions go with their run");
}
