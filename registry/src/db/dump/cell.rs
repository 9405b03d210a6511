//! One value of a row, between a database and JSON.

use sea_orm::{DbBackend, DbErr, QueryResult, Value};
use serde_json::Value as Json;
use uuid::Uuid;

use super::{Column, Kind, Table, quoted};

/// Floats that JSON has no number for.
const NAN: &str = "NaN";
const INFINITY: &str = "Infinity";
const NEGATIVE_INFINITY: &str = "-Infinity";

/// How a column is asked for.
pub(super) fn selected(backend: DbBackend, column: &Column) -> String {
    let name = quoted(&column.name);
    match column.kind {
        Kind::Json => format!("CAST({name} AS TEXT) AS {name}"),
        Kind::Integer if backend == DbBackend::Postgres => format!("CAST({name} AS BIGINT) AS {name}"),
        _ => name,
    }
}

/// How rows are ordered by a column: by bytes, also in a schema that has text of a language still.
pub(super) fn ordered(backend: DbBackend, table: &Table, column: &str) -> String {
    let kind = table.position(column).map(|at| table.columns[at].kind);
    match kind {
        Some(Kind::Text) if backend == DbBackend::Postgres => format!("{} COLLATE \"C\"", quoted(column)),
        _ => quoted(column),
    }
}

/// How the `n`th value of a statement is written.
pub(super) fn place(backend: DbBackend, n: usize, kind: Kind) -> String {
    match kind {
        Kind::Json if backend == DbBackend::Postgres => format!("CAST(${n} AS JSON)"),
        _ => format!("${n}"),
    }
}

/// A value that was selected.
pub(super) fn read(row: &QueryResult, at: usize, kind: Kind) -> Result<Json, DbErr> {
    Ok(match kind {
        Kind::Bool => row.try_get_by_index::<Option<bool>>(at)?.into(),
        Kind::Integer => row.try_get_by_index::<Option<i64>>(at)?.into(),
        Kind::Float => row.try_get_by_index::<Option<f64>>(at)?.map_or(Json::Null, float),
        Kind::Text | Kind::Json => row.try_get_by_index::<Option<String>>(at)?.into(),
        Kind::Bytes => row.try_get_by_index::<Option<Vec<u8>>>(at)?.map(hex::encode).into(),
        Kind::Uuid => row
            .try_get_by_index::<Option<Uuid>>(at)?
            .map(|id| id.to_string())
            .into(),
    })
}

fn float(value: f64) -> Json {
    if value.is_nan() {
        return NAN.into();
    }
    match serde_json::Number::from_f64(value) {
        Some(number) => Json::Number(number),
        None if value > 0.0 => INFINITY.into(),
        None => NEGATIVE_INFINITY.into(),
    }
}

/// A value that is to be written.
///
/// # Errors
/// A sentence when it is none of the kind.
pub(super) fn value(json: Json, kind: Kind) -> Result<Value, String> {
    let wrong = |json: &Json| format!("`{json}` is no {kind:?}");
    let text = |json: Json| match json {
        Json::Null => Ok(None),
        Json::String(text) => Ok(Some(text)),
        other => Err(wrong(&other)),
    };
    Ok(match kind {
        Kind::Bool => match json {
            Json::Null => Value::Bool(None),
            Json::Bool(truth) => Value::Bool(Some(truth)),
            other => return Err(wrong(&other)),
        },
        Kind::Integer if json.is_null() => Value::BigInt(None),
        Kind::Integer => Value::BigInt(Some(json.as_i64().ok_or_else(|| wrong(&json))?)),
        Kind::Float => Value::Double(match &json {
            Json::Null => None,
            Json::Number(number) => number.as_f64(),
            Json::String(word) if word == NAN => Some(f64::NAN),
            Json::String(word) if word == INFINITY => Some(f64::INFINITY),
            Json::String(word) if word == NEGATIVE_INFINITY => Some(f64::NEG_INFINITY),
            other => return Err(wrong(other)),
        }),
        Kind::Text | Kind::Json => Value::String(text(json)?),
        Kind::Bytes => {
            let bytes = text(json)?.map(hex::decode).transpose();
            Value::Bytes(bytes.map_err(|error| error.to_string())?)
        }
        Kind::Uuid => {
            let id = text(json)?.map(|id| Uuid::parse_str(&id)).transpose();
            Value::Uuid(id.map_err(|error| error.to_string())?)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_keep_their_bits() {
        for bits in [
            0,
            1,
            1 << 63,
            0x3fd5_5555_5555_5555,
            f64::MAX.to_bits(),
            f64::INFINITY.to_bits(),
        ] {
            let line = serde_json::to_string(&float(f64::from_bits(bits))).unwrap();
            let back = value(serde_json::from_str(&line).unwrap(), Kind::Float).unwrap();
            let Value::Double(Some(back)) = back else {
                panic!("{back:?}")
            };
            assert_eq!(back.to_bits(), bits, "{line}");
        }
        let Value::Double(Some(nan)) = value(float(f64::NAN), Kind::Float).unwrap() else {
            panic!("it is a number, if none")
        };
        assert!(nan.is_nan());
    }

    #[test]
    fn what_is_of_another_kind_is_refused() {
        for (json, kind) in [
            (Json::from("x"), Kind::Integer),
            (Json::from(1.5), Kind::Integer),
            (Json::from(1), Kind::Bool),
            (Json::from("0"), Kind::Bytes),
            (Json::from("x"), Kind::Uuid),
            (Json::from(1), Kind::Text),
            (Json::from("x"), Kind::Float),
        ] {
            assert!(value(json.clone(), kind).is_err(), "{json} as {kind:?}");
        }
    }
}
