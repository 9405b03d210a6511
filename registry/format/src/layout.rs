//! Weights laid out as safetensors: a file's header and where its values go, and the index of several files.
//!
//! **Invariant:** tensors lie as the reference implementation lays them out (by dtype, then by name, without a hole,
//! behind a header of a multiple of 8 bytes): the same tensors are the same file, whoever writes it.
//!
//! Not here: the values, and I/O.

use std::collections::BTreeMap;

use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::FormatError;
use crate::error::short;
use crate::safetensors::MAX_HEADER_BYTES;
use crate::weights::{Dtype, Tensor, TensorLayout, checked_size};

/// The name of weights in one file.
pub const SINGLE_FILE: &str = "model.safetensors";

/// The name of the index of weights in several.
pub const INDEX_FILE: &str = "model.safetensors.index.json";

/// The key of a header under which it has what is no tensor.
const METADATA: &str = "__metadata__";

/// A file of tensors as safetensors has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// What the file begins with: the length of the header, and the header.
    pub header: Vec<u8>,
    /// The tensors in the order in which their values lie, each in one piece.
    pub tensors: Vec<Tensor>,
    /// Bytes of the whole file.
    pub size_bytes: u64,
}

impl Layout {
    /// Lays tensors out; `file` is the name that a refusal has.
    ///
    /// # Errors
    /// [`FormatError::Container`] when a name stands twice or can't be one in safetensors, or sizes are beyond bounds.
    pub fn new(file: &str, tensors: impl IntoIterator<Item = (String, Dtype, Vec<u64>)>) -> Result<Self, FormatError> {
        let refused = |what: String| FormatError::container(file, what);
        let mut tensors: Vec<_> = tensors.into_iter().collect();
        tensors.sort_by(|(a, a_dtype, _), (b, b_dtype, _)| rank(*b_dtype).cmp(&rank(*a_dtype)).then_with(|| a.cmp(b)));
        let mut names: Vec<&str> = tensors.iter().map(|(name, ..)| name.as_str()).collect();
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(refused(format!("tensor `{}` stands twice", short(twice[0]))));
        }
        if names.contains(&METADATA) {
            return Err(refused(format!(
                "safetensors can't hold a tensor of the name `{METADATA}`"
            )));
        }
        let mut placed = Vec::with_capacity(tensors.len());
        let mut at = 0_u64;
        for (name, dtype, shape) in tensors {
            let beyond = || refused(format!("tensor `{}`: the sizes overflow", short(&name)));
            let (_, size_bytes) = checked_size(&shape, dtype).ok_or_else(beyond)?;
            let layout = TensorLayout::Contiguous { offset: at, size_bytes };
            at = at
                .checked_add(size_bytes)
                .filter(|end| i64::try_from(*end).is_ok())
                .ok_or_else(beyond)?;
            placed.push(Tensor {
                name,
                dtype,
                shape,
                layout,
            });
        }
        let mut json = serde_json::to_vec(&Header(&placed)).expect("strings and integers are always JSON");
        json.resize(json.len().next_multiple_of(8), b' ');
        if json.len() as u64 > MAX_HEADER_BYTES {
            return Err(refused(format!("its header would have over {MAX_HEADER_BYTES} bytes")));
        }
        let header = [&(json.len() as u64).to_le_bytes()[..], &json].concat();
        for tensor in &mut placed {
            if let TensorLayout::Contiguous { offset, .. } = &mut tensor.layout {
                *offset += header.len() as u64;
            }
        }
        Ok(Self {
            size_bytes: header.len() as u64 + at,
            header,
            tensors: placed,
        })
    }

    fn values_bytes(&self) -> u64 {
        self.size_bytes - self.header.len() as u64
    }
}

/// The name of the `n`-th (from 1) of several files of weights.
pub fn shard_name(n: usize, of: usize) -> String {
    format!("model-{n:05}-of-{of:05}.safetensors")
}

/// The index of several files, as transformers writes it.
pub fn index_json<'a>(files: impl IntoIterator<Item = (&'a str, &'a Layout)>) -> Vec<u8> {
    let (mut total_size, mut weight_map) = (0, BTreeMap::new());
    for (file, layout) in files {
        total_size += layout.values_bytes();
        weight_map.extend(layout.tensors.iter().map(|tensor| (tensor.name.as_str(), file)));
    }
    let index = serde_json::json!({ "metadata": { "total_size": total_size }, "weight_map": weight_map });
    let mut json = serde_json::to_vec_pretty(&index).expect("strings and integers are always JSON");
    json.push(b'\n');
    json
}

/// Where the reference implementation has a dtype: larger alignments come first in a file, the rest is its own order.
fn rank(dtype: Dtype) -> u8 {
    match dtype {
        Dtype::Bool => 0,
        Dtype::U8 => 1,
        Dtype::I8 => 2,
        Dtype::F8E5m2 => 3,
        Dtype::F8E4m3 => 4,
        Dtype::I16 => 5,
        Dtype::U16 => 6,
        Dtype::F16 => 7,
        Dtype::Bf16 => 8,
        Dtype::I32 => 9,
        Dtype::U32 => 10,
        Dtype::F32 => 11,
        Dtype::F64 => 12,
        Dtype::I64 => 13,
        Dtype::U64 => 14,
    }
}

/// The header of tensors whose offsets still count from its end.
struct Header<'a>(&'a [Tensor]);

#[derive(serde::Serialize)]
struct Entry<'a> {
    dtype: &'static str,
    shape: &'a [u64],
    data_offsets: [u64; 2],
}

impl Serialize for Header<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len() + 1))?;
        // What transformers asks of a file before it loads it.
        map.serialize_entry(METADATA, &BTreeMap::from([("format", "pt")]))?;
        for tensor in self.0 {
            let (TensorLayout::Contiguous { offset, size_bytes } | TensorLayout::Strided { offset, size_bytes, .. }) =
                tensor.layout;
            let entry = Entry {
                dtype: tensor.dtype.as_str(),
                shape: &tensor.shape,
                data_offsets: [offset, offset + size_bytes],
            };
            map.serialize_entry(&tensor.name, &entry)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Container;
    use crate::weights::{parse_index, read_tensors};

    fn laid_out(tensors: &[(&str, Dtype, &[u64])]) -> Result<Layout, String> {
        let tensors = tensors
            .iter()
            .map(|(name, dtype, shape)| ((*name).to_owned(), *dtype, shape.to_vec()));
        Layout::new("m.bin", tensors).map_err(|error| error.to_string())
    }

    #[test]
    fn a_layout_is_what_the_reader_reads_and_wide_values_come_first() {
        let layout = laid_out(&[
            ("b", Dtype::Bf16, &[3]),
            ("a", Dtype::Bf16, &[2, 2]),
            ("mask", Dtype::Bool, &[5]),
            ("none", Dtype::F32, &[0, 4]),
            ("positions", Dtype::I64, &[]),
            ("w\u{e9}", Dtype::F32, &[1]),
        ])
        .unwrap();
        let names: Vec<_> = layout.tensors.iter().map(|tensor| tensor.name.as_str()).collect();
        assert_eq!(names, ["positions", "none", "w\u{e9}", "a", "b", "mask"]);
        assert_eq!(layout.header.len() % 8, 0);
        assert!(
            layout.header[8..]
                .starts_with(br#"{"__metadata__":{"format":"pt"},"positions":{"dtype":"I64","shape":[],"#)
        );
        let file = [&layout.header[..], &[7; 8 + 4 + 8 + 6 + 5]].concat();
        assert_eq!(file.len() as u64, layout.size_bytes);
        assert_eq!(
            read_tensors(&file, Container::Safetensors, "m").unwrap(),
            layout.tensors
        );
    }

    #[test]
    fn what_safetensors_cannot_hold_is_refused_by_name() {
        for (tensors, expected) in [
            (&[("__metadata__", Dtype::U8, &[1][..])][..], "`__metadata__`"),
            (&[("a", Dtype::U8, &[1]), ("a", Dtype::F32, &[1])], "`a` stands twice"),
            (&[("a", Dtype::F64, &[1 << 62])], "`a`: the sizes overflow"),
            (
                &[("a", Dtype::U8, &[1 << 62]), ("b", Dtype::U8, &[1 << 62])],
                "`b`: the sizes overflow",
            ),
        ] {
            let error = laid_out(tensors).unwrap_err();
            assert!(error.contains(expected) && error.contains("m.bin"), "{error}");
        }
        assert_eq!(laid_out(&[]).unwrap().size_bytes % 8, 0);
    }

    #[test]
    fn an_index_names_each_tensors_file_and_the_bytes_of_all() {
        let (a, b) = (
            laid_out(&[("x", Dtype::F32, &[2])]).unwrap(),
            laid_out(&[("y", Dtype::U8, &[3])]).unwrap(),
        );
        let names = [shard_name(1, 2), shard_name(2, 2)];
        let json = index_json([(names[0].as_str(), &a), (names[1].as_str(), &b)]);
        let index: serde_json::Value = serde_json::from_slice(&json).unwrap();
        assert_eq!(index["metadata"]["total_size"], 11);
        let map = parse_index(INDEX_FILE, &json).unwrap();
        assert_eq!(map["x"], "model-00001-of-00002.safetensors");
        assert_eq!(map["y"], "model-00002-of-00002.safetensors");
    }
}
