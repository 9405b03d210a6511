//! Weights: tensors in whichever container, their digests, and which files of a checkpoint hold them.
//!
//! **Invariant:** a tensor's digest and the weights digest follow from names, dtypes, shapes and values alone: the same
//! for every container, sharding and splitting.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

use crate::error::short;
use crate::json::UniqueMap;
use crate::source::{ReadAt, read_vec};
use crate::split::PIECE_BYTES;
use crate::{Digest, FormatError, Hasher, Manifest, gather, layout, safetensors, torch};

/// The largest tensor that is made contiguous in memory: larger views of a storage are refused.
const MAX_STRIDED_BYTES: u64 = 1 << 30;

/// The most tensors of a file.
pub(crate) const MAX_TENSORS: usize = 200_000;

/// The longest name of a tensor.
pub(crate) const MAX_NAME_BYTES: usize = 1 << 10;

/// The most dimensions of a tensor, as PyTorch bounds them.
pub(crate) const MAX_RANK: usize = 64;

/// The largest index that is read.
pub const MAX_INDEX_BYTES: u64 = 64 << 20;

/// What kind of file holds weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Container {
    /// safetensors.
    Safetensors,
    /// A PyTorch file in its zip form.
    TorchZip,
    /// Neither.
    Other,
}

impl Container {
    /// The container of a file by its name and, for PyTorch's, its first bytes.
    ///
    /// # Errors
    /// [`FormatError::Io`].
    pub fn of(source: &dyn ReadAt, file_name: &str) -> Result<Self, FormatError> {
        if file_name.ends_with(".safetensors") {
            return Ok(Self::Safetensors);
        }
        if is_torch_name(file_name) && source.size_bytes() >= 4 {
            let magic = read_vec(source, 0, 4).map_err(FormatError::io(file_name))?;
            if magic == torch::ZIP_MAGIC {
                return Ok(Self::TorchZip);
            }
        }
        Ok(Self::Other)
    }
}

fn is_torch_name(file_name: &str) -> bool {
    [".bin", ".pt", ".pth"].iter().any(|end| file_name.ends_with(end))
}

macro_rules! dtypes {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $size:literal;)+) => {
        /// A tensor's element type, by safetensors' name.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Dtype { $($(#[$doc])* $variant,)+ }

        impl Dtype {
            /// safetensors' name.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// Bytes of one element.
            pub const fn size_bytes(self) -> u64 {
                match self { $(Self::$variant => $size,)+ }
            }
        }

        impl FromStr for Dtype {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                match text {
                    $($name => Ok(Self::$variant),)+
                    _ => Err(format!("dtype `{}` is unknown", text.chars().take(40).collect::<String>())),
                }
            }
        }
    };
}

dtypes! {
    /// IEEE binary64.
    F64 = "F64", 8;
    /// IEEE binary32.
    F32 = "F32", 4;
    /// IEEE binary16.
    F16 = "F16", 2;
    /// bfloat16.
    Bf16 = "BF16", 2;
    /// 8-bit float, 4 bits of exponent.
    F8E4m3 = "F8_E4M3", 1;
    /// 8-bit float, 5 bits of exponent.
    F8E5m2 = "F8_E5M2", 1;
    /// Signed 64 bits.
    I64 = "I64", 8;
    /// Signed 32 bits.
    I32 = "I32", 4;
    /// Signed 16 bits.
    I16 = "I16", 2;
    /// Signed 8 bits.
    I8 = "I8", 1;
    /// Unsigned 64 bits.
    U64 = "U64", 8;
    /// Unsigned 32 bits.
    U32 = "U32", 4;
    /// Unsigned 16 bits.
    U16 = "U16", 2;
    /// Unsigned 8 bits.
    U8 = "U8", 1;
    /// A byte that is 0 or 1.
    Bool = "BOOL", 1;
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A tensor of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    /// Its name.
    pub name: String,
    /// Its element type.
    pub dtype: Dtype,
    /// Its shape, outermost dimension first.
    pub shape: Vec<u64>,
    /// Where its values lie.
    pub layout: TensorLayout,
}

impl Tensor {
    /// Bytes of its values in row-major order.
    pub fn size_bytes(&self) -> u64 {
        // The readers have checked that this does not overflow.
        self.shape.iter().product::<u64>() * self.dtype.size_bytes()
    }
}

/// Where a tensor's values lie in its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TensorLayout {
    /// Row-major, in one piece.
    Contiguous {
        /// Where it begins in the file.
        offset: u64,
        /// Its bytes.
        size_bytes: u64,
    },
    /// A view of a storage (PyTorch), not in row-major order.
    Strided {
        /// Where its first element begins in the file.
        offset: u64,
        /// Bytes from there to the end of its last element.
        size_bytes: u64,
        /// Elements from one index to the next, for each dimension.
        strides: Vec<u64>,
    },
}

/// Elements and bytes of a shape, unless they overflow.
pub(crate) fn checked_size(shape: &[u64], dtype: Dtype) -> Option<(u64, u64)> {
    let elements = shape.iter().try_fold(1u64, |product, &dim| product.checked_mul(dim))?;
    let bytes = elements.checked_mul(dtype.size_bytes())?;
    i64::try_from(bytes).is_ok().then_some((elements, bytes))
}

/// The tensors of a file in the order in which their values lie.
///
/// # Errors
/// [`FormatError`] when the container is damaged or lies about itself; [`FormatError::LegacyTorch`] for a PyTorch file
/// from before its zip form. A file that is no container has none.
pub fn read_tensors(source: &dyn ReadAt, container: Container, file_name: &str) -> Result<Vec<Tensor>, FormatError> {
    let tensors = match container {
        Container::Safetensors => safetensors::read(source, file_name)?.tensors,
        Container::TorchZip => torch::read(source, file_name)?,
        Container::Other if is_torch_name(file_name) => return Err(FormatError::LegacyTorch(file_name.to_owned())),
        Container::Other => Vec::new(),
    };
    if tensors.len() > MAX_TENSORS {
        let what = format!("it holds {} tensors, {MAX_TENSORS} are the most", tensors.len());
        return Err(FormatError::container(file_name, what));
    }
    Ok(tensors)
}

/// A tensor's digest: SHA-256 over the concatenated SHA-256s of its 16 MiB pieces, one piece when it is smaller.
/// `known` gives the digest of a piece (offset in the file, bytes) that is a chunk already.
///
/// # Errors
/// [`FormatError`] when its values can't be read.
pub fn tensor_digest(
    source: &dyn ReadAt,
    tensor: &Tensor,
    known: &dyn Fn(u64, u64) -> Option<Digest>,
) -> Result<Digest, FormatError> {
    let mut pieces = Hasher::new();
    let mut add = |digest: Digest| pieces.update(digest.as_bytes());
    match tensor.layout {
        TensorLayout::Contiguous { offset, size_bytes } => {
            let mut at = 0;
            while at == 0 || at < size_bytes {
                let len = PIECE_BYTES.min(size_bytes - at);
                add(match known(offset + at, len) {
                    Some(digest) => digest,
                    None => Digest::of(&read_piece(source, offset + at, len, &tensor.name)?),
                });
                at += PIECE_BYTES;
            }
        }
        TensorLayout::Strided { .. } => {
            let values = read_tensor(source, tensor)?;
            let piece = usize::try_from(PIECE_BYTES).expect("16 MiB fit");
            values.chunks(piece).for_each(|piece| add(Digest::of(piece)));
        }
    }
    Ok(pieces.finish())
}

fn read_piece(source: &dyn ReadAt, offset: u64, len: u64, name: &str) -> Result<Vec<u8>, FormatError> {
    let len = usize::try_from(len).map_err(|_| FormatError::container(name, "a tensor is larger than memory"))?;
    read_vec(source, offset, len).map_err(FormatError::io(name))
}

/// A tensor's values, row-major and little-endian.
///
/// # Errors
/// [`FormatError`] when they can't be read.
pub fn read_tensor(source: &dyn ReadAt, tensor: &Tensor) -> Result<Vec<u8>, FormatError> {
    match &tensor.layout {
        TensorLayout::Contiguous { offset, size_bytes } => read_piece(source, *offset, *size_bytes, &tensor.name),
        TensorLayout::Strided { offset, size_bytes, .. } => {
            if *size_bytes > MAX_STRIDED_BYTES || tensor.size_bytes() > MAX_STRIDED_BYTES {
                let what = "it is a view over 1 GiB of a storage: save it contiguous";
                return Err(FormatError::container(&tensor.name, what));
            }
            let viewed = read_piece(source, *offset, *size_bytes, &tensor.name)?;
            let mut values = vec![0; usize::try_from(tensor.size_bytes()).expect("at most 1 GiB")];
            gather::fill(&mut values, 0, tensor, &viewed, *offset);
            Ok(values)
        }
    }
}

/// The weights digest: SHA-256 over `[["name","DTYPE",[shape],"<64 hex>"],…]`, no white space, sorted by name.
///
/// # Errors
/// [`FormatError::Manifest`] when a name stands twice.
pub fn weights_digest(
    tensors: impl IntoIterator<Item = (String, Dtype, Vec<u64>, Digest)>,
) -> Result<Digest, FormatError> {
    let mut sorted = BTreeMap::new();
    for (name, dtype, shape, digest) in tensors {
        let entry = (name.clone(), dtype.as_str(), shape, digest.to_hex());
        if sorted.insert(name.clone(), entry).is_some() {
            return Err(FormatError::manifest(format!(
                "tensor `{name}` stands in two files: keep one"
            )));
        }
    }
    let rows: Vec<_> = sorted.into_values().collect();
    Ok(Digest::of(
        &serde_json::to_vec(&rows).expect("strings and integers are always JSON"),
    ))
}

/// The files of a checkpoint that hold its weights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WeightFiles {
    /// The index, when they are shards.
    pub index: Option<String>,
    /// The files, sorted.
    pub shards: Vec<String>,
}

impl WeightFiles {
    /// Whether they are safetensors, by the name that they are found by.
    pub fn is_safetensors(&self) -> bool {
        match &self.index {
            Some(index) => index == layout::INDEX_FILE,
            None => self.shards == [layout::SINGLE_FILE],
        }
    }
}

/// The forms in which weights lie, in the order in which they are taken.
const FORMS: [(&str, bool); 4] = [
    (layout::INDEX_FILE, true),
    (layout::SINGLE_FILE, false),
    ("pytorch_model.bin.index.json", true),
    ("pytorch_model.bin", false),
];

/// Whether a file of that name holds weights, or says which files do.
pub(crate) fn is_form(name: &str) -> bool {
    FORMS.into_iter().any(|(form, _)| form == name)
}

/// The file by which a checkpoint's weights are found.
pub fn form_path(manifest: &Manifest) -> Option<&'static str> {
    FORMS.into_iter().find_map(|(path, _)| manifest.get(path).map(|_| path))
}

/// The index that says which files hold the weights, when there is one to read.
pub fn index_path(manifest: &Manifest) -> Option<String> {
    let (path, is_index) = FORMS.into_iter().find(|(path, _)| manifest.get(path).is_some())?;
    is_index.then(|| path.to_owned())
}

#[derive(Deserialize)]
struct Index {
    weight_map: UniqueMap<String>,
}

/// Which shard the index names for each tensor.
pub(crate) fn parse_index(index: &str, json: &[u8]) -> Result<BTreeMap<String, String>, FormatError> {
    let refused = |what: String| FormatError::index(index, what);
    if json.len() as u64 > MAX_INDEX_BYTES {
        return Err(refused(format!("it has more than {MAX_INDEX_BYTES} bytes")));
    }
    let parsed: Index = serde_json::from_slice(json).map_err(|error| refused(error.to_string()))?;
    if parsed.weight_map.0.is_empty() {
        return Err(refused("its `weight_map` is empty".to_owned()));
    }
    Ok(parsed.weight_map.0.into_iter().collect())
}

/// Which files of a checkpoint hold its weights; `index_json` is the content of [`index_path`]'s file. `None` for a
/// checkpoint without weights in a form that we know.
///
/// # Errors
/// [`FormatError::Index`] when the index can't be read or names a shard that is not there.
pub fn weight_files(manifest: &Manifest, index_json: Option<&[u8]>) -> Result<Option<WeightFiles>, FormatError> {
    let Some((path, is_index)) = FORMS.into_iter().find(|(path, _)| manifest.get(path).is_some()) else {
        return Ok(None);
    };
    if !is_index {
        return Ok(Some(WeightFiles {
            index: None,
            shards: vec![path.to_owned()],
        }));
    }
    let json = index_json.ok_or_else(|| FormatError::index(path, "its content is not given: read it first"))?;
    let shards: BTreeSet<String> = parse_index(path, json)?.into_values().collect();
    if let Some(missing) = shards.iter().find(|shard| manifest.get(shard).is_none()) {
        let missing = short(missing);
        let what = format!("it names shard `{missing}`, which is not there: add the shard or mend the index");
        return Err(FormatError::index(path, what));
    }
    Ok(Some(WeightFiles {
        index: Some(path.to_owned()),
        shards: shards.into_iter().collect(),
    }))
}

/// Checks that each tensor of the index lies in the shard that it names and that no shard holds another.
///
/// # Errors
/// [`FormatError::Index`] that names the tensor and the shard.
pub fn check_index(
    index: &str,
    index_json: &[u8],
    names_by_shard: &BTreeMap<String, BTreeSet<String>>,
) -> Result<(), FormatError> {
    let refused = |what: String| Err(FormatError::index(index, what));
    let parsed = parse_index(index, index_json)?;
    for (tensor, shard) in &parsed {
        if !names_by_shard.get(shard).is_some_and(|names| names.contains(tensor)) {
            return refused(format!(
                "tensor `{tensor}` is not in shard `{shard}`: the shard is another or cut short"
            ));
        }
    }
    for (shard, names) in names_by_shard {
        if let Some(tensor) = names.iter().find(|name| parsed.get(*name) != Some(shard)) {
            return refused(format!(
                "shard `{shard}` holds tensor `{tensor}`, which the index does not name there"
            ));
        }
    }
    Ok(())
}
