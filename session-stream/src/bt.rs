//! bt, BitTorrent's notation of numbers, bytes, lists and dictionaries (BEP 3), read strictly: keys sorted and unique,
//! numbers and lengths without needless zeros, nothing behind the end. One value has one encoding, so that what was
//! signed is what is read. Neighbours: `value` (the tree), `frame` (lists of it on a stream, by the same pieces).

use std::collections::BTreeMap;
use std::io::Write;

use crate::value::{Budget, DEPTH_MAX, ELEMENTS_MAX, Malformed, Value};

/// Values in what other nodes send: a swarm's biggest mailbox, cleared.
pub const PEER_ELEMENTS_MAX: usize = 1 << 18;

/// Reads exactly one value.
///
/// # Errors
/// Not canonical bt, or deeper than [`DEPTH_MAX`], or of more than [`ELEMENTS_MAX`] values, or bytes behind the value.
pub fn read(bytes: &[u8]) -> Result<Value, Malformed> {
    read_of(bytes, ELEMENTS_MAX)
}

/// Reads exactly one value made of at most so many.
///
/// # Errors
/// As [`read`].
pub fn read_of(bytes: &[u8], elements: usize) -> Result<Value, Malformed> {
    let mut rest = bytes;
    let value = take(&mut rest, DEPTH_MAX, &mut Budget(elements))?;
    if rest.is_empty() { Ok(value) } else { Err(Malformed) }
}

/// Takes one value off the front of `rest`.
fn take(rest: &mut &[u8], depth: usize, budget: &mut Budget) -> Result<Value, Malformed> {
    budget.spend(rest.first() == Some(&b'd'))?;
    match rest.first() {
        Some(b'i') => {
            let digits = upto(rest, b'e')?.strip_prefix(b"i").ok_or(Malformed)?;
            Ok(Value::Int(integer(digits)?))
        }
        Some(b'l') => {
            let deeper = depth.checked_sub(1).ok_or(Malformed)?;
            *rest = &rest[1..];
            let mut list = Vec::new();
            while !ended(rest) {
                list.push(take(rest, deeper, budget)?);
            }
            Ok(Value::List(list))
        }
        Some(b'd') => {
            let deeper = depth.checked_sub(1).ok_or(Malformed)?;
            *rest = &rest[1..];
            let mut dict = BTreeMap::new();
            while !ended(rest) {
                let key = str::from_utf8(string(rest)?).map_err(|_| Malformed)?;
                if dict.last_key_value().is_some_and(|(last, _): (&String, _)| last.as_str() >= key) {
                    return Err(Malformed);
                }
                dict.insert(key.to_owned(), take(rest, deeper, budget)?);
            }
            Ok(Value::Dict(dict))
        }
        _ => Ok(Value::Bytes(string(rest)?.to_vec())),
    }
}

/// Whether the list or dictionary ends here; its `e` is taken.
fn ended(rest: &mut &[u8]) -> bool {
    let end = rest.first() == Some(&b'e');
    if end {
        *rest = &rest[1..];
    }
    end
}

/// Takes `<len>:<bytes>`.
pub(crate) fn string<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], Malformed> {
    let digits = upto(rest, b':')?;
    let len = usize::try_from(natural(digits)?).map_err(|_| Malformed)?;
    let (taken, behind) = rest.split_at_checked(len).ok_or(Malformed)?;
    *rest = behind;
    Ok(taken)
}

/// Takes what stands before `mark`, and the mark. A number has at most 20 digits and a sign, and a mark of its own.
pub(crate) fn upto<'a>(rest: &mut &'a [u8], mark: u8) -> Result<&'a [u8], Malformed> {
    let at = rest.iter().take(23).position(|byte| *byte == mark).ok_or(Malformed)?;
    let (taken, behind) = rest.split_at(at);
    *rest = &behind[1..];
    Ok(taken)
}

pub(crate) fn integer(digits: &[u8]) -> Result<i128, Malformed> {
    let number = match digits.strip_prefix(b"-") {
        Some(b"0") => return Err(Malformed),
        Some(digits) => -natural(digits)?,
        None => natural(digits)?,
    };
    if number < i64::MIN.into() || number > u64::MAX.into() { Err(Malformed) } else { Ok(number) }
}

pub(crate) fn natural(digits: &[u8]) -> Result<i128, Malformed> {
    let canonical = !digits.is_empty() && (digits[0] != b'0' || digits.len() == 1);
    if !canonical || !digits.iter().all(u8::is_ascii_digit) {
        return Err(Malformed);
    }
    str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()).ok_or(Malformed)
}

/// Writes one value: booleans as 1 and 0, text as its bytes; what is nothing is an empty string in a list, and absent in
/// a dictionary.
pub fn write(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out, value);
    out
}

fn put(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => put_string(out, b""),
        Value::Bool(yes) => out.extend_from_slice(if *yes { b"i1e" } else { b"i0e" }),
        Value::Int(number) => put_number(out, *number),
        Value::Text(text) => put_string(out, text.as_bytes()),
        Value::Bytes(bytes) => put_string(out, bytes),
        Value::List(list) => {
            out.push(b'l');
            list.iter().for_each(|value| put(out, value));
            out.push(b'e');
        }
        Value::Dict(dict) => {
            out.push(b'd');
            for (key, value) in dict.iter().filter(|(_, value)| **value != Value::Null) {
                put_string(out, key.as_bytes());
                put(out, value);
            }
            out.push(b'e');
        }
    }
}

fn put_number(out: &mut Vec<u8>, number: i128) {
    // Writing into memory cannot fail.
    let _ = write!(out, "i{number}e");
}

/// `<len>:<bytes>`, also the outer form of a frame.
pub fn put_string(out: &mut Vec<u8>, bytes: &[u8]) {
    let _ = write!(out, "{}:", bytes.len());
    out.extend_from_slice(bytes);
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_has_two_encodings_is_refused() {
        for text in [
            "",
            "i1",
            "i01e",
            "i-0e",
            "i-01e",
            "i e",
            "i+1e",
            "ie",
            "01:a",
            "1:",
            "-1:a",
            "l",
            "d",
            "d1:a",
            "d1:ai1e",
            "i1ei2e",
            "d1:bi1e1:ai1ee",
            "d1:ai1e1:ai1ee",
            "di1ei1ee",
            "i18446744073709551616e",
            "i-9223372036854775809e",
            "5:abc",
            "99999999999999999999999:a",
        ] {
            assert_eq!(read(text.as_bytes()), Err(Malformed), "{text}");
        }
    }

    #[test]
    fn the_facts_examples_are_written_so() {
        assert_eq!(write(&Value::dict([("success", 1u64.into())])), b"d7:successi1ee");
        let command = Value::List(vec!["C".into(), 0u64.into(), "snode_ping".into(), "".into()]);
        assert_eq!(write(&command), b"l1:Ci0e10:snode_ping0:e");
    }

    #[test]
    fn nesting_has_an_end() {
        let nested = |levels: usize| [vec![b'l'; levels], vec![b'e'; levels]].concat();
        assert!(read(&nested(DEPTH_MAX)).is_ok());
        assert_eq!(read(&nested(DEPTH_MAX + 1)), Err(Malformed));
    }

    #[test]
    fn a_tree_of_too_many_values_is_not_grown() {
        let list = |elements: usize| [b"l".to_vec(), b"le".repeat(elements), b"e".to_vec()].concat();
        assert!(read(&list(ELEMENTS_MAX - 1)).is_ok());
        assert_eq!(read(&list(ELEMENTS_MAX)), Err(Malformed));
        assert!(read_of(&list(ELEMENTS_MAX), PEER_ELEMENTS_MAX).is_ok());
        let dicts = [b"l".to_vec(), b"d1:ai1ee".repeat(ELEMENTS_MAX / 8), b"e".to_vec()].concat();
        assert_eq!(read(&dicts), Err(Malformed), "a dictionary weighs more than it is long");
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            (i64::MIN.into()..=i128::from(u64::MAX)).prop_map(Value::Int),
            prop::collection::vec(any::<u8>(), 0..40).prop_map(Value::Bytes),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::List),
                prop::collection::btree_map("[ -~]{0,9}", inner, 0..6).prop_map(Value::Dict),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_value_survives_the_journey(value in values()) {
            prop_assert_eq!(read(&write(&value)), Ok(value));
        }

        #[test]
        fn what_is_read_is_written_the_same(bytes in prop::collection::vec(prop::sample::select(&b"0123456789:ldei-ab"[..]), 0..24)) {
            if let Ok(value) = read(&bytes) {
                prop_assert_eq!(write(&value), bytes);
            }
        }
    }
}
