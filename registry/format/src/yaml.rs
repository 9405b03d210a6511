//! YAML as data of bounded size: an alias is expanded as often as it stands, so a few hundred bytes can mean gigabytes.
//!
//! **Invariant:** a document has at most [`MAX_YAML_BYTES`] as written, and what it means is counted while it is built, so
//! that no more than [`MAX_MEANING`] is ever there.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, EnumAccess, Error, MapAccess, SeqAccess, VariantAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_yaml_ng::value::{Tag, TaggedValue};
use serde_yaml_ng::{Mapping, Value};

/// The largest document as written.
pub(crate) const MAX_YAML_BYTES: usize = 1 << 20;

/// The most that a document may mean: bytes of its texts, and some for each value.
const MAX_MEANING: usize = 4 << 20;

/// What a value costs beside its text.
const PER_VALUE: usize = 16;

/// Reads a document.
///
/// # Errors
/// A sentence that says what is wrong with it and where.
pub(crate) fn parse(text: &str) -> Result<Value, String> {
    if text.len() > MAX_YAML_BYTES {
        return Err(format!("it has {} bytes, {MAX_YAML_BYTES} are the most", text.len()));
    }
    let left = Cell::new(MAX_MEANING);
    Counted { left: &left }
        .deserialize(serde_yaml_ng::Deserializer::from_str(text))
        .map_err(|error| error.to_string())
}

/// Builds a value, and counts it.
#[derive(Clone, Copy)]
struct Counted<'a> {
    left: &'a Cell<usize>,
}

impl Counted<'_> {
    fn take<E: Error>(self, text_bytes: usize) -> Result<(), E> {
        match self.left.get().checked_sub(PER_VALUE.saturating_add(text_bytes)) {
            Some(left) => {
                self.left.set(left);
                Ok(())
            }
            None => Err(E::custom(
                "it means more than 4 MiB once its aliases are written out: write it without them",
            )),
        }
    }

    fn scalar<E: Error>(self, value: impl Into<Value>) -> Result<Value, E> {
        self.take(0)?;
        Ok(value.into())
    }
}

impl<'de> DeserializeSeed<'de> for Counted<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Counted<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any YAML value")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        self.scalar(value)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        self.scalar(value)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        self.scalar(value)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        self.scalar(value)
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        self.take(value.len())?;
        Ok(Value::String(value.to_owned()))
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        self.scalar(Value::Null)
    }

    fn visit_none<E: Error>(self) -> Result<Value, E> {
        self.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        self.take(0)?;
        let mut items = Vec::new();
        while let Some(item) = access.next_element_seed(self)? {
            items.push(item);
        }
        Ok(Value::Sequence(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        self.take(0)?;
        let mut map = Mapping::new();
        while let Some(key) = access.next_key_seed(self)? {
            if map.contains_key(&key) {
                let name = key.as_str().unwrap_or("?");
                return Err(A::Error::custom(format_args!("the key `{name}` stands twice")));
            }
            let value = access.next_value_seed(self)?;
            map.insert(key, value);
        }
        Ok(Value::Mapping(map))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, access: A) -> Result<Value, A::Error> {
        let (tag, content) = access.variant_seed(TagName)?;
        self.take(tag.len())?;
        let value = content.newtype_variant_seed(self)?;
        Ok(Value::Tagged(Box::new(TaggedValue {
            tag: Tag::new(tag),
            value,
        })))
    }
}

struct TagName;

impl<'de> DeserializeSeed<'de> for TagName {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        let tag = String::deserialize(deserializer)?;
        if tag.is_empty() {
            return Err(D::Error::custom("a tag has no name"));
        }
        Ok(tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_what_serde_yaml_reads() {
        for text in [
            "a: 1\nb: [x, -2, 2.5, true, ~, 'y']\nc: {d: |\n    text\n    more\n  }\n",
            "f: !function utils.f\ng: !x {a: 1}\nh: !y [1]\n",
            "a: &a [1, 2]\nb: *a\n",
            "18446744073709551615: {? [1] : 2}\n",
            "",
        ] {
            assert_eq!(parse(text).ok(), serde_yaml_ng::from_str(text).ok(), "{text}");
        }
        for bad in ["a: [", "a: 1\na: 2\n", "a: *b\n", "a: 1\n---\nb: 1\n", "\u{0}"] {
            assert!(
                parse(bad).is_err() && serde_yaml_ng::from_str::<Value>(bad).is_err(),
                "{bad:?}"
            );
        }
    }
}
