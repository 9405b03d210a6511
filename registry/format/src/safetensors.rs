//! The reader of safetensors: an 8-byte length, a JSON header, then the tensors' values without a hole.
//!
//! **Invariant:** what passes covers the file exactly: no overlap, no hole, no byte behind the last tensor.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::FormatError;
use crate::error::short;
use crate::json::UniqueMap;
use crate::source::{ReadAt, read_vec};
use crate::weights::{Dtype, MAX_NAME_BYTES, MAX_RANK, Tensor, TensorLayout, checked_size};

/// The longest header, as the reference implementation bounds it.
pub(crate) const MAX_HEADER_BYTES: u64 = 100_000_000;

/// The longest entry of a tensor: a shape of any sane length fits, and a huge one costs no memory.
const MAX_ENTRY_BYTES: usize = 4 << 10;

/// A safetensors file.
#[derive(Debug)]
pub(crate) struct Safetensors {
    /// Where the values begin.
    pub(crate) data_offset: u64,
    /// The tensors, by where they lie.
    pub(crate) tensors: Vec<Tensor>,
}

/// A tensor's entry in the header.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: [u64; 2],
}

/// Reads and checks the header.
///
/// # Errors
/// [`FormatError::Container`] that names the tensor and what is wrong.
pub(crate) fn read(source: &dyn ReadAt, file: &str) -> Result<Safetensors, FormatError> {
    let refused = |what: String| FormatError::container(file, what);
    let size = source.size_bytes();
    if size < 8 {
        return Err(refused(format!(
            "it has {size} bytes, too few for a safetensors header: it is cut short"
        )));
    }
    let prefix = read_vec(source, 0, 8).map_err(FormatError::io(file))?;
    let header_size = u64::from_le_bytes(prefix.try_into().expect("eight bytes"));
    if header_size > MAX_HEADER_BYTES || header_size > size - 8 {
        return Err(refused(format!(
            "its header claims {header_size} bytes of {size}: it is cut short or no safetensors"
        )));
    }
    let header_len = usize::try_from(header_size).expect("bounded above");
    let header = read_vec(source, 8, header_len).map_err(FormatError::io(file))?;
    let UniqueMap(entries): UniqueMap<&RawValue> =
        serde_json::from_slice(&header).map_err(|error| refused(format!("its header is wrong: {error}")))?;
    let data_offset = 8 + header_size;
    let mut tensors = Vec::new();
    for (name, entry) in entries {
        if name == "__metadata__" {
            serde_json::from_str::<UniqueMap<String>>(entry.get())
                .map_err(|error| refused(format!("its `__metadata__` is no object of strings: {error}")))?;
        } else {
            let tensor = tensor(&name, entry.get(), data_offset);
            tensors.push(tensor.map_err(|what| refused(format!("tensor `{}`: {what}", short(&name))))?);
        }
    }
    cover(&mut tensors, data_offset, size).map_err(refused)?;
    Ok(Safetensors { data_offset, tensors })
}

fn tensor(name: &str, entry: &str, data_offset: u64) -> Result<Tensor, String> {
    if name.len() > MAX_NAME_BYTES {
        let n = name.len();
        return Err(format!("its name has {n} bytes, {MAX_NAME_BYTES} are the most"));
    }
    if name.chars().any(char::is_control) {
        return Err("its name has a control character".to_owned());
    }
    if entry.len() > MAX_ENTRY_BYTES {
        let n = entry.len();
        return Err(format!("its entry has {n} bytes, {MAX_ENTRY_BYTES} are the most"));
    }
    let fields: Fields = serde_json::from_str(entry).map_err(|error| format!("its entry is wrong: {error}"))?;
    let (shape, [begin, end]) = (fields.shape, fields.data_offsets);
    if shape.len() > MAX_RANK {
        let n = shape.len();
        return Err(format!("it has {n} dimensions, {MAX_RANK} are the most"));
    }
    let dtype: Dtype = fields.dtype.parse()?;
    let (_, size_bytes) = checked_size(&shape, dtype).ok_or("its size overflows")?;
    if begin > end || end - begin != size_bytes {
        return Err(format!(
            "its shape {shape:?} of {dtype} takes {size_bytes} bytes, its offsets say {begin} to {end}"
        ));
    }
    let offset = data_offset.checked_add(begin).ok_or("its offsets overflow")?;
    Ok(Tensor {
        name: name.to_owned(),
        dtype,
        shape,
        layout: TensorLayout::Contiguous { offset, size_bytes },
    })
}

/// Sorts the tensors by where they lie and checks that they cover the values exactly.
fn cover(tensors: &mut [Tensor], data_offset: u64, size: u64) -> Result<(), String> {
    let span = |tensor: &Tensor| match tensor.layout {
        TensorLayout::Contiguous { offset, size_bytes } => (offset, size_bytes),
        TensorLayout::Strided { .. } => unreachable!("safetensors has no views"),
    };
    tensors.sort_by(|a, b| span(a).cmp(&span(b)).then_with(|| a.name.cmp(&b.name)));
    let mut at = data_offset;
    for tensor in &*tensors {
        let (offset, size_bytes) = span(tensor);
        if offset != at {
            let what = if offset < at {
                "overlaps the one before it"
            } else {
                "leaves a hole before it"
            };
            return Err(format!("tensor `{}` {what}", tensor.name));
        }
        at = at
            .checked_add(size_bytes)
            .ok_or_else(|| format!("tensor `{}` ends beyond the file", tensor.name))?;
        if at > size {
            let name = &tensor.name;
            return Err(format!(
                "tensor `{name}` ends at byte {at} of {size}: the file is cut short"
            ));
        }
    }
    if at < size {
        return Err(format!("{} bytes follow its last tensor", size - at));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn file(header: &str, n_data: usize) -> Vec<u8> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend(vec![0; n_data]);
        bytes
    }

    #[test]
    fn an_honest_header_is_read_in_the_order_of_its_values() {
        let header = r#"{"b":{"dtype":"F32","shape":[2],"data_offsets":[2,10]},"a":{"dtype":"BF16","shape":[],"data_offsets":[0,2]},"__metadata__":{"format":"pt"}}"#;
        let tensors = read(&file(header, 10), "x").unwrap().tensors;
        assert_eq!(tensors.iter().map(|t| t.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn a_lying_header_is_refused_by_tensor() {
        let cases = [
            (
                r#"{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}"#,
                8,
                "takes 12 bytes",
            ),
            (
                r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#,
                4,
                "cut short",
            ),
            (
                r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#,
                9,
                "1 bytes follow",
            ),
            (r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#, 12, "hole"),
            (
                r#"{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}}"#,
                3,
                "overlaps",
            ),
            (
                r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}"#,
                2,
                "`a` stands twice",
            ),
            (
                r#"{"a":{"dtype":"F31","shape":[1],"data_offsets":[0,4]}}"#,
                4,
                "`F31` is unknown",
            ),
            (
                r#"{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}}"#,
                0,
                "overflows",
            ),
            (
                r#"{"a":{"dtype":"U8","shape":[-1],"data_offsets":[0,0]}}"#,
                0,
                "invalid value: integer `-1`",
            ),
            (r#"{"a":{"dtype":"U8","shape":[0],"data_offsets":[5,5]}}"#, 0, "hole"),
            ("[]", 0, "header is wrong"),
            (
                r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"x":1}}"#,
                1,
                "unknown field `x`",
            ),
            (
                r#"{"a":{"dtype":"U8","dtype":"I8","shape":[1],"data_offsets":[0,1]}}"#,
                1,
                "duplicate field `dtype`",
            ),
            (
                r#"{"__metadata__":{"a":"1","a":"2"},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#,
                1,
                "`a` stands twice",
            ),
            (r#"{"__metadata__":{"a":1}}"#, 0, "no object of strings"),
            (
                r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[18446744073709551615,0]}}"#,
                1,
                "takes 1 bytes",
            ),
            (
                r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[18446744073709551614,18446744073709551615]}}"#,
                1,
                "overflow",
            ),
            (r#"{"a":{"dtype":"U8","shape":[1]}}"#, 1, "missing field `data_offsets`"),
            (
                r#"{"a\u0000":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#,
                1,
                "a control character",
            ),
        ];
        for (header, n_data, expected) in cases {
            let error = read(&file(header, n_data), "m.safetensors").unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains("m.safetensors"), "{error}");
        }
    }

    #[test]
    fn a_length_beyond_the_file_is_refused_without_allocating_it() {
        let mut bytes = file("{}", 0);
        bytes[..8].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(read(&bytes, "x").unwrap_err().to_string().contains("claims"));
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), header in "[{}\\[\\]\":,a-z0-9]{0,60}") {
            let _ = read(&bytes, "x");
            let _ = read(&file(&header, 4), "x");
        }
    }
}
