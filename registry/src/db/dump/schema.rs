//! Which tables there are, what their columns hold, and which has to be filled before which.

use std::collections::BTreeMap;

use sea_orm::{ConnectionTrait, DbBackend, DbErr, QueryResult, Value};

use super::{Column, Kind, OF_THE_PLACE, Table, quoted};

/// All tables that hold what is kept, each behind those that it points to.
///
/// # Errors
/// When the database is down, or a column is of a type that has no kind here.
pub(crate) async fn tables(conn: &impl ConnectionTrait) -> Result<Vec<Table>, DbErr> {
    let (names_sql, pointed_sql) = match conn.get_database_backend() {
        DbBackend::Postgres => (
            "SELECT CAST(table_name AS TEXT) AS name FROM information_schema.tables \
             WHERE table_schema = current_schema() AND table_type = 'BASE TABLE' ORDER BY 1",
            "SELECT CAST(other.relname AS TEXT) AS name FROM pg_constraint c JOIN pg_class other ON other.oid = c.confrelid \
             WHERE c.contype = 'f' AND c.conrelid = CAST($1 AS regclass)",
        ),
        _ => (
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name",
            "SELECT \"table\" AS name FROM pragma_foreign_key_list($1)",
        ),
    };
    let mut waiting = BTreeMap::new();
    for name in names(conn, names_sql, Vec::new()).await? {
        if OF_THE_PLACE.contains(&&*name) {
            continue;
        }
        let pointed = match conn.get_database_backend() {
            DbBackend::Postgres => vec![quoted(&name).into()],
            _ => vec![name.as_str().into()],
        };
        let pointed = names(conn, pointed_sql, pointed).await?;
        waiting.insert(name.clone(), (describe(conn, name).await?, pointed));
    }
    let mut ordered = Vec::with_capacity(waiting.len());
    while !waiting.is_empty() {
        let is_free = |pointed: &[String]| !pointed.iter().any(|other| waiting.contains_key(other));
        let free = waiting.iter().find(|(_, (_, pointed))| is_free(pointed));
        let free = free.map(|(name, _)| name.clone()).ok_or_else(|| {
            let names: Vec<&str> = waiting.keys().map(String::as_str).collect();
            DbErr::Custom(format!("tables point to each other in a circle: {}", names.join(", ")))
        })?;
        ordered.extend(waiting.remove(&free).map(|(table, _)| table));
    }
    Ok(ordered)
}

async fn names(conn: &impl ConnectionTrait, sql: &str, values: Vec<Value>) -> Result<Vec<String>, DbErr> {
    let rows = conn.query_all_raw(super::super::statement(conn, sql, values)).await?;
    rows.iter().map(|row| row.try_get("", "name")).collect()
}

async fn describe(conn: &impl ConnectionTrait, name: String) -> Result<Table, DbErr> {
    let sql = match conn.get_database_backend() {
        DbBackend::Postgres => {
            "SELECT CAST(c.column_name AS TEXT) AS name, CAST(c.data_type AS TEXT) AS type, \
             CAST(COALESCE((SELECT k.ordinal_position FROM information_schema.key_column_usage k \
                 JOIN information_schema.table_constraints t USING (constraint_schema, constraint_name, table_name) \
                 WHERE t.constraint_type = 'PRIMARY KEY' AND k.table_schema = c.table_schema \
                 AND k.table_name = c.table_name AND k.column_name = c.column_name), 0) AS BIGINT) AS key_position \
             FROM information_schema.columns c WHERE c.table_schema = current_schema() AND c.table_name = $1 \
             ORDER BY c.ordinal_position"
        }
        _ => "SELECT name, lower(type) AS type, pk AS key_position FROM pragma_table_info($1) ORDER BY cid",
    };
    let asked = super::super::statement(conn, sql, vec![name.as_str().into()]);
    let rows = conn.query_all_raw(asked).await?;
    let mut key: Vec<(i64, String)> = Vec::new();
    let mut column = |row: &QueryResult| {
        let (column, of_type): (String, String) = (row.try_get("", "name")?, row.try_get("", "type")?);
        let position: i64 = row.try_get("", "key_position")?;
        if position > 0 {
            key.push((position, column.clone()));
        }
        let unknown = || {
            DbErr::Type(format!(
                "column `{name}.{column}` has a type without a kind: `{of_type}`"
            ))
        };
        let kind = kind(&of_type).ok_or_else(unknown)?;
        Ok(Column { name: column, kind })
    };
    let columns = rows.iter().map(&mut column).collect::<Result<_, DbErr>>()?;
    key.sort();
    let key = key.into_iter().map(|(_, column)| column).collect();
    Ok(Table { name, columns, key })
}

fn kind(of_type: &str) -> Option<Kind> {
    Some(match of_type {
        "boolean" => Kind::Bool,
        "integer" | "bigint" => Kind::Integer,
        "double" | "double precision" => Kind::Float,
        "text" | "character varying" => Kind::Text,
        "bytea" => Kind::Bytes,
        "uuid" | "uuid_text" => Kind::Uuid,
        "json" | "json_text" => Kind::Json,
        other if other.starts_with("blob") => Kind::Bytes,
        _ => return None,
    })
}
