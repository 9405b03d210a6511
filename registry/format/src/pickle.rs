//! A pickle read as data: the operations that `torch.save` writes for tensors. Nothing is ever called; what the few
//! constructors of a state dict make is in [`crate::rebuild`].
//!
//! **Invariant:** values live in one arena, so that nesting costs no stack, and there are at most [`MAX_VALUES`] of
//! them, however often one is recalled or copied.

use std::collections::HashMap;
use std::rc::Rc;

use crate::rebuild::{self, Made, Storage, View};

/// The most values of a pickle: enough for the tensors of any state dict, and some 300 MB at worst.
const MAX_VALUES: usize = 4 << 20;

/// The longest name of a global.
const MAX_GLOBAL_BYTES: usize = 1 << 10;

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
    n_values: usize,
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
        n_values: 0,
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
        machine.grow(1)?;
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

    /// Counts values: each operation makes at most one, beside what it copies.
    fn grow(&mut self, n: usize) -> Res<()> {
        self.n_values += n;
        if self.n_values > MAX_VALUES {
            return Err(format!(
                "its pickle holds more than {MAX_VALUES} values: save fewer tensors in a file"
            ));
        }
        Ok(())
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
                self.reduce(&callable, &args)?;
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
                let storage = rebuild::storage(&self.arena, &id)?;
                self.stack.push(storage);
            } // BINPERSID
            other => {
                return Err(format!(
                    "its pickle uses the operation {other:#04x}, which no state dict needs"
                ));
            }
        }
        Ok(())
    }

    fn reduce(&mut self, callable: &Value, args: &Value) -> Res<()> {
        match rebuild::construct(&self.arena, callable, args)? {
            Made::Tensor(view) => {
                self.grow(view.shape.len() + view.strides.len())?;
                self.stack.push(Value::Tensor(view));
            }
            Made::Dict(items) => {
                self.grow(items.len())?;
                self.push_node(Node::Dict(items));
            }
        }
        Ok(())
    }

    fn stack_global(&mut self) -> Res<()> {
        let (name, module) = (self.pop()?, self.pop()?);
        let (Value::Str(module), Value::Str(name)) = (module, name) else {
            return Err("its pickle names a global by something other than text".to_owned());
        };
        // Each can be recalled often, and this copies it.
        if module.len() + name.len() > MAX_GLOBAL_BYTES {
            return Err("its pickle names a global by more text than any has".to_owned());
        }
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

    #[test]
    fn values_that_are_multiplied_are_bounded() {
        let mut pairs = b"\x80\x02ccollections\nOrderedDict\nq\x00](".to_vec();
        for _ in 0..1000 {
            pairs.extend(b"X\x01\x00\x00\x00aN\x86");
        }
        pairs.extend(b"e\x85q\x01");
        for _ in 0..10_000 {
            pairs.extend(b"h\x00h\x01R");
        }
        let error = read(&pairs).unwrap_err();
        assert!(error.contains("more than"), "{error}");
    }

    #[test]
    fn a_long_text_is_not_copied_as_often_as_it_is_recalled() {
        let mut bytes = b"\x80\x04X\x00\x00\x10\x00".to_vec();
        bytes.extend(vec![b'a'; 1 << 20]);
        bytes.push(0x94);
        bytes.extend(b"h\x00h\x00\x93".repeat(500_000));
        let error = read(&bytes).unwrap_err();
        assert!(error.contains("more text"), "{error}");
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(prop::sample::select(b"\x80\x02}])(qrhjcR\x93bX\x8cJKM\x8aGNtle\x85\x86\x87asuQ.0\x00\x01\n".to_vec()), 0..60)) {
            let _ = read(&bytes);
        }
    }
}
