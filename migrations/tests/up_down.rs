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

#[tokio::test]
async fn scores_of_limited_suites_say_so_and_keep_apart() {
    // Given scores of a suite with a limit and of one without, and one from outside, of a registry from before.
    let db = Database::connect("sqlite::memory:").await.unwrap();
    Migrator::up(&db, Some(16)).await.unwrap();
    let evaluation = |id: &str, suite: &str| {
        format!(
            "INSERT INTO evaluation (id, namespace, run_id, revision_id, model_digest, suite_digest, dtype, state, n_failures, \
            n_expiries, not_before_ms, created_at_ms, suite_name) VALUES (x'{id}', 'lab', 1, 1, x'{id}', x'{suite}', 'float32', \
            'done', 0, 0, 0, 0, 's');"
        )
    };
    let score = |of: &str, n_shot: u32| {
        format!(
            "INSERT INTO score ({}, task, metric, filter, value, n, n_shot, harness, provenance, created_at_ms) \
            VALUES ({of}, 't', 'acc', 'none', 0.5, 9, {n_shot}, 'h', '{{}}', 0);",
            if of.starts_with('x') {
                "evaluation_id"
            } else {
                "revision_id"
            }
        )
    };
    let rows = [
        "PRAGMA foreign_keys = OFF;".to_owned(),
        "INSERT INTO suite (digest, name, definition, size_bytes, created_at_ms) VALUES \
            (x'aa', 's', '{\"tasks\":[],\"limit\":200}', 1, 0), (x'bb', 's', '{\"tasks\":[]}', 1, 0);"
            .to_owned(),
        evaluation("01", "aa"),
        evaluation("02", "bb"),
        score("x'01'", 0),
        score("x'02'", 1),
        score("7", 2),
    ];
    db.execute_unprepared(&rows.concat()).await.unwrap();
    // When it is brought up to date
    Migrator::up(&db, Some(1)).await.unwrap();
    // Then each says the limit of its suite,
    let limits =
        "SELECT n_shot || ' ' || coalesce(sample_limit, 'all') AS line FROM score ORDER BY n_shot, sample_limit";
    assert_eq!(lines(&db, limits).await, ["0 200", "1 all", "2 all"]);
    // and one of fewer samples has a place beside that of all, which alone stays on the way back.
    let again = score("7", 2);
    assert!(db.execute_unprepared(&again).await.is_err());
    let limited = again
        .replace("created_at_ms)", "created_at_ms, sample_limit)")
        .replace("'{}', 0)", "'{}', 0, 50)");
    db.execute_unprepared(&limited).await.unwrap();
    assert_eq!(lines(&db, limits).await, ["0 200", "1 all", "2 all", "2 50"]);
    Migrator::down(&db, Some(1)).await.unwrap();
    assert_eq!(
        lines(&db, "SELECT n_shot || '' AS line FROM score ORDER BY n_shot").await,
        ["0", "1", "2"]
    );
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
