//! What the constructors in a state dict's pickle make: tensors as views of storages, and ordered dicts.
//!
//! Not here: any call. A constructor is known by its name and its arguments are read; every other name is refused.

use std::rc::Rc;

use crate::pickle::{Node, Value};
use crate::weights::{Dtype, MAX_RANK};

/// A storage that a tensor is a view of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Storage {
    /// Its element type; bytes where it has none.
    pub(crate) dtype: Dtype,
    /// The zip entry `data/KEY` holds it.
    pub(crate) key: Rc<str>,
    /// Its elements.
    pub(crate) n_elements: u64,
}

/// A tensor: a view of a storage. Offset and strides count elements of its own type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) storage: Rc<Storage>,
    pub(crate) dtype: Dtype,
    pub(crate) first_element: u64,
    pub(crate) shape: Vec<u64>,
    pub(crate) strides: Vec<u64>,
}

/// What a constructor makes.
#[derive(Debug)]
pub(crate) enum Made {
    Tensor(Rc<View>),
    Dict(Vec<(Value, Value)>),
}

type Res<T> = Result<T, String>;

/// What `callable` makes of `args`.
///
/// # Errors
/// A sentence that names the constructor when it is none of a state dict's, or its arguments are wrong.
pub(crate) fn construct(arena: &[Node], callable: &Value, args: &Value) -> Res<Made> {
    let Value::Global(name) = callable else {
        return Err("its pickle calls what is no global".to_owned());
    };
    let args = sequence(arena, args)?;
    match &**name {
        "collections OrderedDict" => pairs(arena, args).map(Made::Dict),
        "torch._tensor _rebuild_from_type_v2" => {
            let [inner, _type, inner_args, ..] = args else {
                return Err("its pickle makes a tensor of too few arguments".to_owned());
            };
            // One level only: a call of this within itself would nest without bound.
            if matches!(inner, Value::Global(inner) if inner == name) {
                return Err("its pickle nests `_rebuild_from_type_v2`".to_owned());
            }
            construct(arena, inner, inner_args)
        }
        "torch._utils _rebuild_tensor_v2" => view(arena, args, None),
        "torch._utils _rebuild_tensor_v3" => {
            let Some(Value::Global(dtype)) = args.get(6) else {
                return Err("its pickle makes a tensor without a dtype".to_owned());
            };
            view(arena, args, Some(named_dtype(dtype)?))
        }
        "torch._utils _rebuild_parameter" | "torch._utils _rebuild_parameter_with_state" => match args.first() {
            Some(Value::Tensor(view)) => Ok(Made::Tensor(Rc::clone(view))),
            _ => Err("its pickle makes a parameter of what is no tensor".to_owned()),
        },
        other => {
            let name = other.replace(' ', ".");
            Err(format!(
                "its pickle calls `{name}`, which is never run: save a plain state dict of tensors"
            ))
        }
    }
}

/// The storage that a persistent id names: `('storage', torch.XStorage, key, location, elements)`.
///
/// # Errors
/// A sentence that names the storage's type when it is unknown.
pub(crate) fn storage(arena: &[Node], id: &Value) -> Res<Value> {
    let [
        Value::Str(kind),
        Value::Global(class),
        Value::Str(key),
        _location,
        Value::Int(n),
    ] = sequence(arena, id)?
    else {
        return Err("its pickle names a storage in a form that is unknown".to_owned());
    };
    if &**kind != "storage" {
        return Err(format!("its pickle refers to a `{kind}`, which is no storage"));
    }
    let n_elements = u64::try_from(*n).map_err(|_| "its pickle holds a negative size")?;
    let dtype = storage_dtype(class)?;
    let key = Rc::clone(key);
    Ok(Value::Storage(Rc::new(Storage { dtype, key, n_elements })))
}

fn storage_dtype(class: &str) -> Res<Dtype> {
    Ok(match class {
        "torch DoubleStorage" => Dtype::F64,
        "torch FloatStorage" => Dtype::F32,
        "torch HalfStorage" => Dtype::F16,
        "torch BFloat16Storage" => Dtype::Bf16,
        "torch LongStorage" => Dtype::I64,
        "torch IntStorage" => Dtype::I32,
        "torch ShortStorage" => Dtype::I16,
        "torch CharStorage" => Dtype::I8,
        "torch BoolStorage" => Dtype::Bool,
        "torch ByteStorage" | "torch UntypedStorage" | "torch.storage UntypedStorage" => Dtype::U8,
        _ => {
            let class = class.replace(' ', ".");
            return Err(format!("its pickle holds a storage of the unknown type `{class}`"));
        }
    })
}

fn named_dtype(global: &str) -> Res<Dtype> {
    Ok(match global {
        "torch float64" => Dtype::F64,
        "torch float32" => Dtype::F32,
        "torch float16" => Dtype::F16,
        "torch bfloat16" => Dtype::Bf16,
        "torch float8_e4m3fn" => Dtype::F8E4m3,
        "torch float8_e5m2" => Dtype::F8E5m2,
        "torch int64" => Dtype::I64,
        "torch int32" => Dtype::I32,
        "torch int16" => Dtype::I16,
        "torch int8" => Dtype::I8,
        "torch uint64" => Dtype::U64,
        "torch uint32" => Dtype::U32,
        "torch uint16" => Dtype::U16,
        "torch uint8" => Dtype::U8,
        "torch bool" => Dtype::Bool,
        _ => {
            let dtype = global.replace(' ', ".");
            return Err(format!("its pickle holds a tensor of the unknown dtype `{dtype}`"));
        }
    })
}

/// `storage, first element, shape, strides, …`; the dtype is the storage's unless it is given.
fn view(arena: &[Node], args: &[Value], dtype: Option<Dtype>) -> Res<Made> {
    let [Value::Storage(storage), Value::Int(first), shape, strides, ..] = args else {
        return Err("its pickle makes a tensor of wrong arguments".to_owned());
    };
    let first_element = u64::try_from(*first).map_err(|_| "its pickle holds a negative offset")?;
    Ok(Made::Tensor(Rc::new(View {
        storage: Rc::clone(storage),
        dtype: dtype.unwrap_or(storage.dtype),
        first_element,
        shape: sizes(arena, shape)?,
        strides: sizes(arena, strides)?,
    })))
}

fn sizes(arena: &[Node], value: &Value) -> Res<Vec<u64>> {
    let numbers = sequence(arena, value)?;
    if numbers.len() > MAX_RANK {
        let n = numbers.len();
        return Err(format!(
            "its pickle holds a tensor of {n} dimensions, {MAX_RANK} are the most"
        ));
    }
    let number = |value: &Value| match value {
        Value::Int(n) => u64::try_from(*n).map_err(|_| "its pickle holds a negative size".to_owned()),
        _ => Err("its pickle holds a size that is no number".to_owned()),
    };
    numbers.iter().map(number).collect()
}

/// The items that a dict is made with: none, or one list of pairs, as old Pythons write it.
fn pairs(arena: &[Node], args: &[Value]) -> Res<Vec<(Value, Value)>> {
    let wrong = || "its pickle makes a dict of what is no list of pairs".to_owned();
    let [items] = args else {
        return if args.is_empty() { Ok(Vec::new()) } else { Err(wrong()) };
    };
    let pair = |item: &Value| match sequence(arena, item)? {
        [key, value] => Ok((key.clone(), value.clone())),
        _ => Err(wrong()),
    };
    sequence(arena, items)?.iter().map(pair).collect()
}

fn sequence<'a>(arena: &'a [Node], value: &Value) -> Res<&'a [Value]> {
    match value {
        Value::Node(at) => match &arena[*at] {
            Node::Sequence(items) => Ok(items),
            Node::Dict(_) => Err("its pickle gives a dict where arguments belong".to_owned()),
        },
        _ => Err("its pickle gives no arguments where they belong".to_owned()),
    }
}
