//! Every migration goes up and down: empty → up → down → up leaves the schema of the first up.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use fineline_migrations::Migrator;
use sea_orm_migration::MigratorTrait;
use sea_orm_migration::sea_orm::{ConnectionTrait, Database, DatabaseConnection, DbBackend, Statement};

/// What the database holds beside the migrator's own table and what SQLite makes by itself.
async fn schema(db: &DatabaseConnection) -> Vec<String> {
    let sql = "SELECT type || ' ' || name || ': ' || coalesce(sql, '') AS line FROM sqlite_master \
        WHERE tbl_name NOT LIKE 'seaql_%' AND name NOT LIKE 'sqlite_%' ORDER BY type, name";
    let rows = db
        .query_all_raw(Statement::from_string(DbBackend::Sqlite, sql))
        .await
        .unwrap();
    rows.iter().map(|row| row.try_get("", "line").unwrap()).collect()
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
