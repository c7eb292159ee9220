//! The one tree in which a call's parameters and its answer stand, whatever the caller writes: JSON or [`bt`].
//! The two differ in what they can say, and [`Value`] keeps the difference where it matters: JSON has text only, so bytes
//! travel as base64 there; bt has bytes only, and neither booleans nor nothing. Neighbours: `bt` (the other notation),
//! `rpc` (reads and answers).

use std::collections::BTreeMap;

use data_encoding::BASE64;
use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde_json::Number;

use crate::bt;

/// Deepest nesting of lists and dictionaries we read, in either notation.
pub const DEPTH_MAX: usize = 32;

/// Most values that one value is made of. A tree takes much more room than what it is read from: two bytes of `le` are
/// thirty of it.
pub const ELEMENTS_MAX: usize = 1 << 16;

/// What a dictionary costs, in values: it sets room aside for some entries.
const DICT: usize = 8;

/// The values that may still be read.
pub(crate) struct Budget(pub usize);

impl Budget {
    /// Pays for one value.
    pub fn spend(&mut self, dict: bool) -> Result<(), Malformed> {
        self.0 = self.0.checked_sub(if dict { DICT } else { 1 }).ok_or(Malformed)?;
        Ok(())
    }
}

/// How the caller writes, and so how it is answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// `{"method": …}`.
    Json,
    /// `d6:method…e`.
    Bt,
}

/// A parameter or an answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Value {
    /// JSON's `null`; left out in bt dictionaries.
    Null,
    /// JSON's `true` and `false`; bt's 1 and 0.
    Bool(bool),
    /// A whole number: i64 and u64 both fit, nothing beyond them is read.
    Int(i128),
    /// What both notations write as it stands: names, hashes, hexadecimal. Never read from bt.
    Text(String),
    /// Bytes: base64 in JSON, themselves in bt. Never read from JSON.
    Bytes(Vec<u8>),
    /// In order.
    List(Vec<Value>),
    /// Sorted by the bytes of its keys, as bt demands.
    Dict(BTreeMap<String, Value>),
}

/// The bytes are not what they should be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Malformed;

impl Value {
    /// Reads one value in either notation.
    ///
    /// # Errors
    /// Not that notation, or deeper than [`DEPTH_MAX`], or of more than [`ELEMENTS_MAX`] values, or a number that is not
    /// whole.
    pub fn read(form: Form, bytes: &[u8]) -> Result<Value, Malformed> {
        match form {
            Form::Bt => bt::read(bytes),
            Form::Json => {
                let mut json = serde_json::Deserializer::from_slice(bytes);
                let mut budget = Budget(ELEMENTS_MAX);
                let value = Json { depth: DEPTH_MAX, budget: &mut budget }.deserialize(&mut json);
                value.and_then(|value| json.end().map(|()| value)).map_err(|_| Malformed)
            }
        }
    }

    /// Writes the value in either notation.
    pub fn write(&self, form: Form) -> Vec<u8> {
        match form {
            Form::Bt => bt::write(self),
            Form::Json => self.to_json().to_string().into_bytes(),
        }
    }

    /// The value in JSON.
    pub fn to_json(&self) -> serde_json::Value {
        use serde_json::Value as Json;
        match self {
            Value::Null => Json::Null,
            Value::Bool(yes) => Json::Bool(*yes),
            Value::Int(number) => Json::Number(Number::from_i128(*number).unwrap_or_else(|| Number::from(0))),
            Value::Text(text) => Json::String(text.clone()),
            Value::Bytes(bytes) => Json::String(BASE64.encode(bytes)),
            Value::List(list) => Json::Array(list.iter().map(Value::to_json).collect()),
            Value::Dict(dict) => Json::Object(dict.iter().map(|(key, value)| (key.clone(), value.to_json())).collect()),
        }
    }

    /// A dictionary of these entries; those that are [`Value::Null`] are left out.
    pub fn dict<K: Into<String>>(entries: impl IntoIterator<Item = (K, Value)>) -> Value {
        let said = entries.into_iter().filter(|(_, value)| *value != Value::Null);
        Value::Dict(said.map(|(key, value)| (key.into(), value)).collect())
    }

    /// The entry of a dictionary; nothing when it has none, or holds `null`, or this is no dictionary.
    pub fn field(&self, key: &str) -> Option<&Value> {
        let Value::Dict(dict) = self else { return None };
        dict.get(key).filter(|value| **value != Value::Null)
    }
}

/// Reads JSON straight into a [`Value`], as deep and as much as it may be.
struct Json<'a> {
    depth: usize,
    budget: &'a mut Budget,
}

impl<'de> DeserializeSeed<'de> for Json<'_> {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, json: D) -> Result<Value, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Json<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JSON with whole numbers, neither too deep nor too much")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Value, E> {
        self.paid(Value::Null)
    }

    fn visit_bool<E: serde::de::Error>(self, yes: bool) -> Result<Value, E> {
        self.paid(Value::Bool(yes))
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Value, E> {
        self.paid(Value::Int(number.into()))
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Value, E> {
        self.paid(Value::Int(number.into()))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Value, E> {
        self.paid(Value::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let Json { depth, budget } = self;
        let depth = descend::<A::Error>(depth, budget, false)?;
        let mut values = Vec::new();
        while let Some(value) = list.next_element_seed(Json { depth, budget })? {
            values.push(value);
        }
        Ok(Value::List(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let Json { depth, budget } = self;
        let depth = descend::<A::Error>(depth, budget, true)?;
        let mut values = BTreeMap::new();
        while let Some(key) = map.next_key::<String>()? {
            values.insert(key, map.next_value_seed(Json { depth, budget })?);
        }
        Ok(Value::Dict(values))
    }
}

impl Json<'_> {
    fn paid<E: serde::de::Error>(self, value: Value) -> Result<Value, E> {
        self.budget.spend(false).map_err(|_| E::custom("too much"))?;
        Ok(value)
    }
}

/// One level down.
fn descend<E: serde::de::Error>(depth: usize, budget: &mut Budget, dict: bool) -> Result<usize, E> {
    budget.spend(dict).map_err(|_| E::custom("too much"))?;
    depth.checked_sub(1).ok_or_else(|| E::custom("too deep"))
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Value {
        Value::Text(text)
    }
}

impl From<bool> for Value {
    fn from(yes: bool) -> Value {
        Value::Bool(yes)
    }
}

macro_rules! numbers {
    ($($number:ty),*) => {
        $(impl From<$number> for Value {
            fn from(number: $number) -> Value {
                Value::Int(i128::from(number))
            }
        })*
    };
}
numbers!(i16, u16, i32, u32, i64, u64);

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_base64_in_json_and_themselves_in_bt() {
        let value = Value::dict([("data", Value::Bytes(b"\xff\x00".to_vec())), ("ok", true.into())]);
        assert_eq!(value.write(Form::Json), br#"{"data":"/wA=","ok":true}"#);
        assert_eq!(value.write(Form::Bt), b"d4:data2:\xff\x002:oki1ee");
    }

    #[test]
    fn what_is_nothing_is_left_out() {
        let value = Value::dict([("a", Value::Null), ("b", 7u64.into())]);
        assert_eq!(value.write(Form::Json), br#"{"b":7}"#);
        assert_eq!(Value::read(Form::Json, br#"{"a":null}"#).unwrap().field("a"), None);
    }

    #[test]
    fn json_numbers_are_whole_and_keep_all_their_bits() {
        let value = Value::read(Form::Json, b"[18446744073709551615,-9223372036854775808]").unwrap();
        assert_eq!(value, Value::List(vec![Value::Int(u64::MAX.into()), Value::Int(i64::MIN.into())]));
        assert_eq!(value.write(Form::Json), b"[18446744073709551615,-9223372036854775808]");
        assert_eq!(Value::read(Form::Json, b"[1.5]"), Err(Malformed));
        assert_eq!(Value::read(Form::Json, b"[18446744073709551616]"), Err(Malformed));
    }

    #[test]
    fn nesting_has_an_end() {
        let nested = |levels: usize| [vec![b'['; levels], vec![b']'; levels]].concat();
        assert!(Value::read(Form::Json, &nested(DEPTH_MAX)).is_ok());
        assert_eq!(Value::read(Form::Json, &nested(DEPTH_MAX + 1)), Err(Malformed));
    }

    #[test]
    fn a_tree_of_too_many_values_is_not_grown() {
        let list = |elements: usize| format!("[{}]", vec!["[]"; elements].join(","));
        assert!(Value::read(Form::Json, list(ELEMENTS_MAX - 1).as_bytes()).is_ok());
        assert_eq!(Value::read(Form::Json, list(ELEMENTS_MAX).as_bytes()), Err(Malformed));
        let dicts = format!("[{}]", vec![r#"{"a":1}"#; ELEMENTS_MAX / 8].join(","));
        assert_eq!(Value::read(Form::Json, dicts.as_bytes()), Err(Malformed));
    }

    #[test]
    fn nothing_stands_behind_json() {
        assert_eq!(Value::read(Form::Json, b"{} {}"), Err(Malformed));
        assert_eq!(Value::read(Form::Json, br#"{"a":1,"a":2}"#).unwrap().field("a"), Some(&Value::Int(2)));
    }
}
