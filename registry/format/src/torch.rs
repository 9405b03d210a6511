//! The reader of PyTorch's zip form: `PREFIX/data.pkl` says which tensors are views of which storages, and
//! `PREFIX/data/KEY` holds each storage as it is.
//!
//! **Invariant:** every view that is given lies inside of its storage, and all views together have, and are gathered
//! from, at most [`MAX_ALIASING`] times the file's bytes: so hashing them is work in proportion to the file.

use std::collections::{BTreeMap, HashSet};
use std::rc::Rc;

use crate::pickle::{self, Node, Pickle, Value};
use crate::rebuild::View;
use crate::source::{ReadAt, read_vec};
use crate::split::Span;
use crate::weights::{MAX_NAME_BYTES, MAX_TENSORS, Tensor, TensorLayout, checked_size};
use crate::zip::{self, Entry};
use crate::{Element, FormatError};

/// What a file in the zip form begins with.
pub(crate) use crate::zip::LOCAL_MAGIC as ZIP_MAGIC;

const MAX_PICKLE_BYTES: u64 = 64 << 20;

/// How often a file's bytes may stand in its tensors: tied weights share a storage, a zoo of views does not.
const MAX_ALIASING: u64 = 8;

/// Where trainers put a state dict inside of another dict.
const NESTED_KEYS: [&str; 4] = ["model", "model_state_dict", "module", "state_dict"];

struct Archive {
    pickle: Vec<u8>,
    storages: BTreeMap<String, Entry>,
}

/// The archive, or `None` when the zip is whole and not PyTorch's.
fn open(source: &dyn ReadAt, file: &str) -> Result<Option<Archive>, FormatError> {
    let entries = zip::read(source, file)?;
    let mut pickles = entries.iter().filter(|entry| entry.name.ends_with("/data.pkl"));
    let (Some(data), None) = (pickles.next(), pickles.next()) else {
        return Ok(None);
    };
    if !entries.iter().all(|entry| entry.is_stored) {
        return Ok(None);
    }
    if data.size_bytes > MAX_PICKLE_BYTES {
        return Err(FormatError::container(file, "its pickle is larger than 64 MiB"));
    }
    let prefix = data.name.strip_suffix("data.pkl").expect("found by its end").to_owned();
    let size = usize::try_from(data.size_bytes).expect("bounded above");
    let pickle = read_vec(source, data.offset, size).map_err(FormatError::io(file))?;
    let (data_prefix, byte_order) = (format!("{prefix}data/"), format!("{prefix}byteorder"));
    let mut storages = BTreeMap::new();
    for entry in entries {
        if entry.name == byte_order {
            let n = usize::try_from(entry.size_bytes.min(16)).expect("at most 16");
            let order = read_vec(source, entry.offset, n).map_err(FormatError::io(file))?;
            if order != b"little" {
                return Err(FormatError::container(file, "its byte order is not little"));
            }
        } else if let Some(key) = entry.name.strip_prefix(&data_prefix) {
            storages.insert(key.to_owned(), entry.clone());
        }
    }
    Ok(Some(Archive { pickle, storages }))
}

/// The storages in the order in which they lie. A pickle that can't be read only costs the
/// knowledge of the elements: the file may be an optimizer's. `None` for a zip that is not PyTorch's.
///
/// # Errors
/// [`FormatError::Container`] when the zip is damaged.
pub(crate) fn storages(source: &dyn ReadAt, file: &str) -> Result<Option<Vec<Span>>, FormatError> {
    let Some(archive) = open(source, file)? else {
        return Ok(None);
    };
    let views = pickle::read(&archive.pickle)
        .and_then(|pickle| state_dict(&pickle))
        .unwrap_or_default();
    let elements: BTreeMap<&str, Element> = views
        .iter()
        .map(|(_, view)| (&*view.storage.key, view.dtype.into()))
        .collect();
    let mut storages: Vec<_> = archive
        .storages
        .iter()
        .map(|(key, entry)| Span {
            offset: entry.offset,
            size_bytes: entry.size_bytes,
            element: elements.get(key.as_str()).copied().unwrap_or(Element::Unknown),
        })
        .collect();
    storages.sort_by_key(|span| (span.offset, span.size_bytes));
    Ok(Some(storages))
}

/// The tensors, by name.
///
/// # Errors
/// [`FormatError::Container`] when the file is damaged, holds anything but a state dict, or a view leaves its storage.
pub(crate) fn read(source: &dyn ReadAt, file: &str) -> Result<Vec<Tensor>, FormatError> {
    let archive = open(source, file)?.ok_or_else(|| {
        let what =
            "it is a zip without a single `data.pkl` and stored entries, so no PyTorch file: save it with PyTorch";
        FormatError::container(file, what)
    })?;
    let views = pickle::read(&archive.pickle)
        .and_then(|pickle| state_dict(&pickle))
        .map_err(|what| FormatError::container(file, what))?;
    let mut tensors = Vec::with_capacity(views.len());
    let mut left_bytes = source.size_bytes().saturating_mul(MAX_ALIASING);
    for (name, view) in views {
        let tensor = place(&name, &view, &archive.storages)
            .map_err(|what| FormatError::container(file, format!("tensor `{name}`: {what}")))?;
        let (TensorLayout::Contiguous { size_bytes, .. } | TensorLayout::Strided { size_bytes, .. }) = &tensor.layout;
        left_bytes = left_bytes
            .checked_sub(tensor.size_bytes().max(*size_bytes))
            .ok_or_else(|| {
                let what = format!("its tensors share storages over {MAX_ALIASING} times: save them contiguous");
                FormatError::container(file, what)
            })?;
        tensors.push(tensor);
    }
    Ok(tensors)
}

/// A tensor of a state dict, by its name.
type Named = (Rc<str>, Rc<View>);

/// The tensors of a state dict: the top-level dict, or the one that it holds under a trainer's usual key. Names and views
/// stay the pickle's own, which can recall one many times.
fn state_dict(pickle: &Pickle) -> Result<Vec<Named>, String> {
    let dict = |value: &Value| match value {
        Value::Node(at) => match &pickle.arena[*at] {
            Node::Dict(items) => Some(items),
            Node::Sequence(_) => None,
        },
        _ => None,
    };
    let is_tensor = |value: &Value| matches!(value, Value::Tensor(_));
    let top = dict(&pickle.root).ok_or("it holds no dict of tensors")?;
    let is_nested_key = |key: &Value| matches!(key, Value::Str(key) if NESTED_KEYS.contains(&&**key));
    let mut nested = top
        .iter()
        .filter(|(key, _)| is_nested_key(key))
        .filter_map(|(_, value)| dict(value));
    let items = match (nested.next(), nested.next()) {
        (Some(inner), None) if !top.iter().any(|(_, value)| is_tensor(value)) => inner,
        _ => top,
    };
    if items.len() > MAX_TENSORS {
        let n = items.len();
        return Err(format!("its dict has {n} entries, {MAX_TENSORS} are the most"));
    }
    let mut names = HashSet::new();
    let tensor = |(key, value): &(Value, Value)| match (key, value) {
        (Value::Str(name), Value::Tensor(_)) if name.len() > MAX_NAME_BYTES => Err(format!(
            "a tensor's name has {} bytes, {MAX_NAME_BYTES} are the most",
            name.len()
        )),
        (Value::Str(name), Value::Tensor(_)) if name.chars().any(char::is_control) => {
            Err("a tensor's name has a control character".to_owned())
        }
        (Value::Str(name), Value::Tensor(_)) if !names.insert(Rc::clone(name)) => {
            Err(format!("tensor `{name}` stands twice"))
        }
        (Value::Str(name), Value::Tensor(view)) => Ok((Rc::clone(name), Rc::clone(view))),
        (Value::Str(name), _) => Err(format!("entry `{name}` of its dict is no tensor")),
        _ => Err("a key of its dict is no text".to_owned()),
    };
    items.iter().map(tensor).collect()
}

/// Where a view's values lie in the file, after checking that they do.
fn place(name: &str, view: &View, storages: &BTreeMap<String, Entry>) -> Result<Tensor, String> {
    let dtype = view.dtype;
    let key = &view.storage.key;
    let entry = storages
        .get(&**key)
        .ok_or_else(|| format!("its storage `data/{key}` is not in the zip"))?;
    let (_, storage_size_bytes) =
        checked_size(&[view.storage.n_elements], view.storage.dtype).ok_or("its storage's size overflows")?;
    if entry.size_bytes != storage_size_bytes {
        let size = entry.size_bytes;
        return Err(format!(
            "its storage `data/{key}` has {size} bytes and should have {storage_size_bytes}"
        ));
    }
    let n_stored = storage_size_bytes / dtype.size_bytes();
    if view.shape.len() != view.strides.len() {
        return Err("its shape and its strides differ in length".to_owned());
    }
    let (n_elements, size_bytes) = checked_size(&view.shape, dtype).ok_or("its size overflows")?;
    let contiguous = n_elements == 0 || is_contiguous(&view.shape, &view.strides);
    let last = view
        .shape
        .iter()
        .zip(&view.strides)
        .try_fold(view.first_element, |last, (dim, stride)| {
            last.checked_add(dim.saturating_sub(1).checked_mul(*stride)?)
        });
    if n_elements > 0 && last.is_none_or(|last| last >= n_stored) {
        return Err(format!("it reaches outside of its storage `data/{key}`"));
    }
    let first = if n_elements == 0 { 0 } else { view.first_element };
    let offset = entry.offset + first * dtype.size_bytes();
    let layout = match last {
        Some(last) if !contiguous => TensorLayout::Strided {
            offset,
            size_bytes: (last - first + 1) * dtype.size_bytes(),
            strides: view.strides.clone(),
        },
        _ => TensorLayout::Contiguous { offset, size_bytes },
    };
    Ok(Tensor {
        name: name.to_owned(),
        dtype,
        shape: view.shape.clone(),
        layout,
    })
}

/// Whether the strides are those of row-major order; a dimension of one element may have any.
fn is_contiguous(shape: &[u64], strides: &[u64]) -> bool {
    let mut expected = 1;
    shape.iter().zip(strides).rev().all(|(&dim, &stride)| {
        let fits = dim == 1 || stride == expected;
        // The product of the shape was checked.
        expected *= dim;
        fits
    })
}
