//! JSON objects whose keys must be unique: two readers of one duplicate would see two different files.
//!
//! **Invariant:** an object has at most [`MAX_MEMBERS`] members, since each takes many times the memory of its text.

use std::collections::HashSet;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};

/// The most members of an object: more than the tensors that a file may have.
const MAX_MEMBERS: usize = 1 << 18;

/// The members of an object, in their order; a repeated key is an error.
#[derive(Debug)]
pub(crate) struct UniqueMap<V>(pub(crate) Vec<(String, V)>);

impl<'de, V: Deserialize<'de>> Deserialize<'de> for UniqueMap<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(UniqueVisitor(PhantomData))
    }
}

struct UniqueVisitor<V>(PhantomData<V>);

impl<'de, V: Deserialize<'de>> Visitor<'de> for UniqueVisitor<V> {
    type Value = UniqueMap<V>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        let (mut members, mut seen) = (Vec::new(), HashSet::new());
        while let Some((key, value)) = access.next_entry::<String, V>()? {
            if !seen.insert(key.clone()) {
                return Err(A::Error::custom(format_args!(
                    "the key `{}` stands twice",
                    crate::error::shown(&key)
                )));
            }
            if members.len() == MAX_MEMBERS {
                return Err(A::Error::custom(format_args!(
                    "an object has more than {MAX_MEMBERS} members"
                )));
            }
            members.push((key, value));
        }
        Ok(UniqueMap(members))
    }
}
