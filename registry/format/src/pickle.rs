//! A pickle read as data: the protocol-2 subset that `torch.save` writes for tensors. Nothing is ever called; the few
//! constructors of a state dict are known by name, every other is refused by name.
//!
//! **Invariant:** values live in one arena, so that nesting costs no stack, and their number is bounded by the
//! pickle's bytes.

use std::collections::HashMap;
use std::rc::Rc;

use crate::weights::Dtype;

/// A storage that a tensor is a view of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Storage {
    /// Its element type.
    pub(crate) dtype: Dtype,
    /// The zip entry `data/KEY` holds it.
    pub(crate) key: Rc<str>,
    /// Its elements.
    pub(crate) n_elements: u64,
}

/// A tensor: a view of a storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) storage: Rc<Storage>,
    pub(crate) first_element: u64,
    pub(crate) shape: Vec<u64>,
    pub(crate) strides: Vec<u64>,
}

/// A value; what has parts is in the arena.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    /// Something that no tensor is made of: None, a float, bytes, a flag.
    Opaque,
    Int(i64),
    Str(Rc<str>),
    Global(Rc<str>),
    Storage(Rc<Storage>),
    Tensor(Rc<View>),
    Node(usize),
}

/// What has parts.
#[derive(Debug)]
pub(crate) enum Node {
    Sequence(Vec<Value>),
    Dict(Vec<(Value, Value)>),
}

/// A pickle's result and the arena that it lives in.
#[derive(Debug)]
pub(crate) struct Pickle {
    pub(crate) root: Value,
    pub(crate) arena: Vec<Node>,
}

struct Machine<'a> {
    rest: &'a [u8],
    stack: Vec<Value>,
    marks: Vec<usize>,
    memo: HashMap<u32, Value>,
    arena: Vec<Node>,
}

type Res<T> = Result<T, String>;

/// Reads a pickle.
///
/// # Errors
/// A sentence that says what is damaged or names what is refused.
pub(crate) fn read(bytes: &[u8]) -> Res<Pickle> {
    let mut machine = Machine {
        rest: bytes,
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        arena: Vec::new(),
    };
    loop {
        let [op] = machine.take::<1>()?;
        if op == b'.' {
            let root = machine.pop()?;
            return Ok(Pickle {
                root,
                arena: machine.arena,
            });
        }
        machine.step(op)?;
    }
}

impl Machine<'_> {
    fn take<const N: usize>(&mut self) -> Res<[u8; N]> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or("its pickle is cut short")?;
        self.rest = rest;
        Ok(*bytes)
    }

    fn take_bytes(&mut self, n: usize) -> Res<&[u8]> {
        let (bytes, rest) = self.rest.split_at_checked(n).ok_or("its pickle is cut short")?;
        self.rest = rest;
        Ok(bytes)
    }

    fn take_text(&mut self, n: usize) -> Res<Rc<str>> {
        let bytes = self.take_bytes(n)?;
        Ok(std::str::from_utf8(bytes)
            .map_err(|_| "its pickle holds text that is no UTF-8")?
            .into())
    }

    fn take_line(&mut self) -> Res<Rc<str>> {
        let n = self
            .rest
            .iter()
            .position(|&b| b == b'\n')
            .ok_or("its pickle is cut short")?;
        let line = self.take_text(n)?;
        self.take::<1>()?;
        Ok(line)
    }

    fn pop(&mut self) -> Res<Value> {
        let floor = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() <= floor {
            return Err("its pickle takes more than it has".to_owned());
        }
        Ok(self.stack.pop().expect("longer than its floor"))
    }

    fn pop_mark(&mut self) -> Res<Vec<Value>> {
        let mark = self.marks.pop().ok_or("its pickle ends a list that it did not begin")?;
        Ok(self.stack.split_off(mark))
    }

    fn push_node(&mut self, node: Node) {
        self.arena.push(node);
        self.stack.push(Value::Node(self.arena.len() - 1));
    }

    fn tuple(&mut self, n: usize) -> Res<()> {
        let mut items = (0..n).map(|_| self.pop()).collect::<Res<Vec<_>>>()?;
        items.reverse();
        self.push_node(Node::Sequence(items));
        Ok(())
    }

    fn memoize(&mut self, key: u32) -> Res<()> {
        let value = self.stack.last().ok_or("its pickle remembers nothing")?.clone();
        self.memo.insert(key, value);
        Ok(())
    }

    fn recall(&mut self, key: u32) -> Res<()> {
        let value = self
            .memo
            .get(&key)
            .ok_or("its pickle recalls what it never remembered")?
            .clone();
        self.stack.push(value);
        Ok(())
    }

    /// One operation; the names are those of Python's `pickletools`.
    fn step(&mut self, op: u8) -> Res<()> {
        match op {
            0x80 => drop(self.take::<1>()?),                           // PROTO
            0x95 => drop(self.take::<8>()?),                           // FRAME
            b'}' => self.push_node(Node::Dict(Vec::new())),            // EMPTY_DICT
            b']' | b')' => self.push_node(Node::Sequence(Vec::new())), // EMPTY_LIST, EMPTY_TUPLE
            b'(' => self.marks.push(self.stack.len()),                 // MARK
            b'q' => {
                let [key] = self.take()?;
                self.memoize(u32::from(key))?;
            } // BINPUT
            b'r' => {
                let key = u32::from_le_bytes(self.take()?);
                self.memoize(key)?;
            } // LONG_BINPUT
            0x94 => {
                let key = u32::try_from(self.memo.len()).map_err(|e| e.to_string())?;
                self.memoize(key)?;
            } // MEMOIZE
            b'h' => {
                let [key] = self.take()?;
                self.recall(u32::from(key))?;
            } // BINGET
            b'j' => {
                let key = u32::from_le_bytes(self.take()?);
                self.recall(key)?;
            } // LONG_BINGET
            b'c' => {
                let global = format!("{} {}", self.take_line()?, self.take_line()?);
                self.stack.push(Value::Global(global.into()));
            } // GLOBAL
            0x93 => self.stack_global()?,                              // STACK_GLOBAL
            b'R' | 0x81 => {
                let args = self.pop()?;
                let callable = self.pop()?;
                self.construct(&callable, &args)?;
            } // REDUCE, NEWOBJ
            b'b' | b'0' => drop(self.pop()?),                          // BUILD (an object's attributes), POP
            b'X' => {
                let n = u32::from_le_bytes(self.take()?) as usize;
                let text = self.take_text(n)?;
                self.stack.push(Value::Str(text));
            } // BINUNICODE
            0x8c => {
                let [n] = self.take()?;
                let text = self.take_text(usize::from(n))?;
                self.stack.push(Value::Str(text));
            } // SHORT_BINUNICODE
            b'B' => {
                let n = u32::from_le_bytes(self.take()?) as usize;
                self.take_bytes(n)?;
                self.stack.push(Value::Opaque);
            } // BINBYTES
            b'C' => {
                let [n] = self.take()?;
                self.take_bytes(usize::from(n))?;
                self.stack.push(Value::Opaque);
            } // SHORT_BINBYTES
            b'J' => {
                let n = i32::from_le_bytes(self.take()?);
                self.stack.push(Value::Int(i64::from(n)));
            } // BININT
            b'K' => {
                let [n] = self.take()?;
                self.stack.push(Value::Int(i64::from(n)));
            } // BININT1
            b'M' => {
                let n = u16::from_le_bytes(self.take()?);
                self.stack.push(Value::Int(i64::from(n)));
            } // BININT2
            0x8a => self.long()?,                                      // LONG1
            b'G' => {
                self.take::<8>()?;
                self.stack.push(Value::Opaque);
            } // BINFLOAT
            b'N' | 0x88 | 0x89 => self.stack.push(Value::Opaque),      // NONE, NEWTRUE, NEWFALSE
            b't' | b'l' => {
                let items = self.pop_mark()?;
                self.push_node(Node::Sequence(items));
            } // TUPLE, LIST
            0x85..=0x87 => self.tuple(usize::from(op - 0x84))?,        // TUPLE1, TUPLE2, TUPLE3
            b'a' => {
                let item = self.pop()?;
                self.append(vec![item])?;
            } // APPEND
            b'e' => {
                let items = self.pop_mark()?;
                self.append(items)?;
            } // APPENDS
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.set(vec![key, value])?;
            } // SETITEM
            b'u' => {
                let items = self.pop_mark()?;
                self.set(items)?;
            } // SETITEMS
            b'Q' => {
                let id = self.pop()?;
                self.persistent(&id)?;
            } // BINPERSID
            other => {
                return Err(format!(
                    "its pickle uses the operation {other:#04x}, which no state dict needs"
                ));
            }
        }
        Ok(())
    }

    fn stack_global(&mut self) -> Res<()> {
        let (name, module) = (self.pop()?, self.pop()?);
        let (Value::Str(module), Value::Str(name)) = (module, name) else {
            return Err("its pickle names a global by something other than text".to_owned());
        };
        self.stack.push(Value::Global(format!("{module} {name}").into()));
        Ok(())
    }

    fn long(&mut self) -> Res<()> {
        let [n] = self.take()?;
        let bytes = self.take_bytes(usize::from(n))?;
        if bytes.len() > 8 {
            return Err("its pickle holds a number beyond 64 bits".to_owned());
        }
        let sign = if bytes.last().is_some_and(|&b| b >= 0x80) {
            0xff
        } else {
            0
        };
        let mut wide = [sign; 8];
        wide[..bytes.len()].copy_from_slice(bytes);
        self.stack.push(Value::Int(i64::from_le_bytes(wide)));
        Ok(())
    }

    fn top_node(&mut self) -> Res<&mut Node> {
        match self.stack.last() {
            Some(&Value::Node(at)) => Ok(&mut self.arena[at]),
            _ => Err("its pickle adds items to what has none".to_owned()),
        }
    }

    fn append(&mut self, items: Vec<Value>) -> Res<()> {
        match self.top_node()? {
            Node::Sequence(list) => list.extend(items),
            Node::Dict(_) => return Err("its pickle appends to a dict".to_owned()),
        }
        Ok(())
    }

    fn set(&mut self, items: Vec<Value>) -> Res<()> {
        let Node::Dict(dict) = self.top_node()? else {
            return Err("its pickle sets items of what is no dict".to_owned());
        };
        let mut items = items.into_iter();
        while let Some(key) = items.next() {
            dict.push((key, items.next().ok_or("its pickle sets a key without a value")?));
        }
        Ok(())
    }

    fn sequence(&self, value: &Value) -> Res<&[Value]> {
        match value {
            Value::Node(at) => match &self.arena[*at] {
                Node::Sequence(items) => Ok(items),
                Node::Dict(_) => Err("its pickle gives a dict where arguments belong".to_owned()),
            },
            _ => Err("its pickle gives no arguments where they belong".to_owned()),
        }
    }

    /// Makes what a constructor of a state dict makes.
    fn construct(&mut self, callable: &Value, args: &Value) -> Res<()> {
        let Value::Global(name) = callable else {
            return Err("its pickle calls what is no global".to_owned());
        };
        match &**name {
            "collections OrderedDict" => self.push_node(Node::Dict(Vec::new())),
            "torch._utils _rebuild_tensor_v2" => {
                let view = self.view(args)?;
                self.stack.push(Value::Tensor(Rc::new(view)));
            }
            "torch._utils _rebuild_parameter" => {
                let tensor = self
                    .sequence(args)?
                    .first()
                    .ok_or("its pickle makes a parameter of nothing")?
                    .clone();
                self.stack.push(tensor);
            }
            "torch._tensor _rebuild_from_type_v2" => {
                let [callable, _type, args, ..] = self.sequence(args)? else {
                    return Err("its pickle makes a tensor of too few arguments".to_owned());
                };
                let (callable, args) = (callable.clone(), args.clone());
                // One level only: a call of this within itself would nest without bound.
                if matches!(&callable, Value::Global(inner) if inner == name) {
                    return Err("its pickle nests `_rebuild_from_type_v2`".to_owned());
                }
                self.construct(&callable, &args)?;
            }
            other => {
                let name = other.replace(' ', ".");
                return Err(format!(
                    "its pickle calls `{name}`, which is never run: save a plain state dict of tensors"
                ));
            }
        }
        Ok(())
    }

    fn view(&self, args: &Value) -> Res<View> {
        let [Value::Storage(storage), Value::Int(first), shape, strides, ..] = self.sequence(args)? else {
            return Err("its pickle makes a tensor of wrong arguments".to_owned());
        };
        let sizes = |value: &Value| -> Res<Vec<u64>> {
            let number = |value: &Value| match value {
                Value::Int(n) => u64::try_from(*n).map_err(|_| "its pickle holds a negative size".to_owned()),
                _ => Err("its pickle holds a size that is no number".to_owned()),
            };
            self.sequence(value)?.iter().map(number).collect()
        };
        let first_element = u64::try_from(*first).map_err(|_| "its pickle holds a negative offset")?;
        Ok(View {
            storage: storage.clone(),
            first_element,
            shape: sizes(shape)?,
            strides: sizes(strides)?,
        })
    }

    /// `('storage', torch.XStorage, key, location, elements)`.
    fn persistent(&mut self, id: &Value) -> Res<()> {
        let [
            Value::Str(kind),
            Value::Global(class),
            Value::Str(key),
            _location,
            Value::Int(n),
        ] = self.sequence(id)?
        else {
            return Err("its pickle names a storage in a form that is unknown".to_owned());
        };
        let dtype = match class.strip_prefix("torch ") {
            Some("DoubleStorage") => Dtype::F64,
            Some("FloatStorage") => Dtype::F32,
            Some("HalfStorage") => Dtype::F16,
            Some("BFloat16Storage") => Dtype::Bf16,
            Some("LongStorage") => Dtype::I64,
            Some("IntStorage") => Dtype::I32,
            Some("ShortStorage") => Dtype::I16,
            Some("CharStorage") => Dtype::I8,
            Some("ByteStorage") => Dtype::U8,
            Some("BoolStorage") => Dtype::Bool,
            _ => {
                return Err(format!(
                    "its pickle holds a storage of the unknown type `{}`",
                    class.replace(' ', ".")
                ));
            }
        };
        if &**kind != "storage" {
            return Err(format!("its pickle refers to a `{kind}`, which is no storage"));
        }
        let n_elements = u64::try_from(*n).map_err(|_| "its pickle holds a negative size")?;
        let storage = Storage {
            dtype,
            key: key.clone(),
            n_elements,
        };
        self.stack.push(Value::Storage(Rc::new(storage)));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_unknown_constructor_is_refused_by_name_and_never_run() {
        let error = read(b"\x80\x02cposix\nsystem\nX\x02\x00\x00\x00id\x85R.").unwrap_err();
        assert!(error.contains("`posix.system`"), "{error}");
    }

    #[test]
    fn deep_nesting_costs_no_stack() {
        let mut bytes = b"\x80\x02)".to_vec();
        bytes.extend(std::iter::repeat_n(0x85, 1 << 20));
        bytes.push(b'.');
        assert_eq!(read(&bytes).unwrap().arena.len(), (1 << 20) + 1);
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(prop::sample::select(b"\x80\x02}])(qrhjcR\x93bX\x8cJKM\x8aGNtle\x85\x86\x87asuQ.0\x00\x01\n".to_vec()), 0..60)) {
            let _ = read(&bytes);
        }
    }
}
