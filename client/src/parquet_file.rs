//! Parquet data files become JSON lines when a suite is read: a registry and its workers take no containers that may claim
//! more than they hold, and the user's own disk is where they can be read without harm.

use std::path::Path;

use bytes::Bytes;
use fineline_api::suite::MAX_SUITE_BYTES;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{Field, Row};
use serde_json::{Map, Number, Value};

use crate::error::{Error, Result};

/// The documents of a file, a JSON object a line, with the fields of its columns in their order.
///
/// # Errors
/// [`Error::Folder`] that names the file and what is wrong with it.
pub(crate) fn json_lines(path: &Path, bytes: Bytes) -> Result<Vec<u8>> {
    let refused = |what: String| Error::Folder(format!("Parquet file `{}`: {what}", path.display()));
    let reader = SerializedFileReader::new(bytes).map_err(|error| refused(error.to_string()))?;
    let rows = reader.get_row_iter(None).map_err(|error| refused(error.to_string()))?;
    let mut lines = Vec::new();
    for (i, row) in rows.enumerate() {
        let row = row.map_err(|error| refused(format!("row {i}: {error}")))?;
        let document = object(&row).map_err(|what| refused(format!("row {i}: {what}")))?;
        serde_json::to_writer(&mut lines, &document).map_err(|error| refused(error.to_string()))?;
        lines.push(b'\n');
        if lines.len() as u64 > MAX_SUITE_BYTES {
            return Err(refused(format!(
                "it holds more than {MAX_SUITE_BYTES} bytes, the most of a suite: take fewer rows"
            )));
        }
    }
    Ok(lines)
}

fn object(row: &Row) -> std::result::Result<Value, String> {
    let mut map = Map::new();
    for (name, field) in row.get_column_iter() {
        let value = value(field).map_err(|what| format!("column `{name}`: {what}"))?;
        map.insert(name.clone(), value);
    }
    Ok(map.into())
}

fn value(field: &Field) -> std::result::Result<Value, String> {
    let number = |value: f64| Number::from_f64(value).map_or(Value::Null, Value::Number);
    Ok(match field {
        Field::Null => Value::Null,
        Field::Bool(value) => (*value).into(),
        Field::Byte(value) => (*value).into(),
        Field::Short(value) => (*value).into(),
        Field::Int(value) => (*value).into(),
        Field::Long(value) => (*value).into(),
        Field::UByte(value) => (*value).into(),
        Field::UShort(value) => (*value).into(),
        Field::UInt(value) => (*value).into(),
        Field::ULong(value) => (*value).into(),
        Field::Float(value) => number(f64::from(*value)),
        Field::Double(value) => number(*value),
        Field::Str(text) => text.as_str().into(),
        Field::Group(row) => object(row)?,
        Field::ListInternal(list) => {
            let items = list.elements().iter().map(value);
            Value::Array(items.collect::<std::result::Result<_, _>>()?)
        }
        Field::Float16(_)
        | Field::Decimal(_)
        | Field::Bytes(_)
        | Field::Date(_)
        | Field::TimeMillis(_)
        | Field::TimeMicros(_)
        | Field::TimestampMillis(_)
        | Field::TimestampMicros(_)
        | Field::MapInternal(_) => {
            return Err("its type has no like in JSON: leave the column out, or write it as text".to_owned());
        }
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;

    use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
    use parquet::file::properties::WriterProperties;
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::parser::parse_message_type;

    use super::*;

    /// A file of two rows with a text, a number that may be null and a list of texts.
    pub(crate) fn file() -> Vec<u8> {
        let schema = "message m { required binary q (STRING); optional int64 n; \
            required group c (LIST) { repeated group list { optional binary element (STRING); } } }";
        let schema = Arc::new(parse_message_type(schema).unwrap());
        let properties = WriterProperties::builder()
            .set_compression(parquet::basic::Compression::SNAPPY)
            .build();
        let mut bytes = Vec::new();
        let mut writer = SerializedFileWriter::new(&mut bytes, schema, Arc::new(properties)).unwrap();
        let mut rows = writer.next_row_group().unwrap();
        let texts = |texts: &[&str]| texts.iter().map(|text| ByteArray::from(*text)).collect::<Vec<_>>();
        let mut column = rows.next_column().unwrap().unwrap();
        let values = texts(&["a", "é"]);
        column
            .typed::<ByteArrayType>()
            .write_batch(&values, None, None)
            .unwrap();
        column.close().unwrap();
        let mut column = rows.next_column().unwrap().unwrap();
        column
            .typed::<Int64Type>()
            .write_batch(&[7], Some(&[1, 0]), None)
            .unwrap();
        column.close().unwrap();
        let mut column = rows.next_column().unwrap().unwrap();
        let values = texts(&["x", "y", "z"]);
        let levels = (Some(&[2i16, 2, 2][..]), Some(&[0i16, 1, 0][..]));
        column
            .typed::<ByteArrayType>()
            .write_batch(&values, levels.0, levels.1)
            .unwrap();
        column.close().unwrap();
        rows.close().unwrap();
        writer.close().unwrap();
        bytes
    }

    #[test]
    fn rows_become_documents() {
        let lines = json_lines(Path::new("a.parquet"), file().into()).unwrap();
        assert_eq!(
            String::from_utf8(lines).unwrap(),
            "{\"q\":\"a\",\"n\":7,\"c\":[\"x\",\"y\"]}\n{\"q\":\"é\",\"n\":null,\"c\":[\"z\"]}\n"
        );
    }

    #[test]
    fn what_is_damaged_is_refused_by_name() {
        let mut bytes = file();
        let middle = bytes.len() / 2;
        bytes.truncate(middle);
        let error = json_lines(Path::new("a.parquet"), bytes.into())
            .unwrap_err()
            .to_string();
        assert!(error.contains("`a.parquet`"), "{error}");
    }
}
