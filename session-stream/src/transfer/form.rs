//! How members write to each other what they compare: an offer of marks, the answer that says which messages are wanted,
//! and the messages. All bt, all bounded. Neighbours: `transfer` (says it), `store::replica` (what it is about).

use std::collections::BTreeMap;

use crate::account::{Account, Namespace, Token, hash};
use crate::bt;
use crate::rpc::store::DATA_MAX;
use crate::store::Message;
use crate::store::replica::{Entry, Mark, VERSION_MAX};
use crate::store::revocations::Revocation;
use crate::value::{Malformed, Value};

/// Most entries of one offer.
pub const OFFER_MAX: usize = 2000;

/// Most bytes of the messages that are carried at a time.
pub const BATCH_BYTES_MAX: usize = 9_000_000;

/// What a message takes beside its data, at most.
pub const OVERHEAD: usize = 256;

/// What somebody has: its entries, in the order they changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Offer {
    /// Who offers, by the file it keeps: another one than last time knows nothing of last time.
    pub epoch: [u8; 16],
    /// What.
    pub entries: Vec<Entry>,
}

/// What is said to an offer or a batch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// Who answers, as [`Offer::epoch`].
    pub epoch: [u8; 16],
    /// Which entries' messages are wanted; nothing is said of the others when the answer is "not now".
    pub wanted: Option<Vec<usize>>,
}

impl Offer {
    /// Writes it.
    pub fn write(&self) -> Vec<u8> {
        let entries = self.entries.iter().map(entry).collect();
        bt::write(&Value::dict([("@", Value::Bytes(self.epoch.to_vec())), ("e", Value::List(entries))]))
    }

    /// Reads it.
    ///
    /// # Errors
    /// It is none, or longer than [`OFFER_MAX`].
    pub fn read(bytes: &[u8]) -> Result<Offer, Malformed> {
        let Value::Dict(mut dict) = bt::read_of(bytes, bt::PEER_ELEMENTS_MAX)? else { return Err(Malformed) };
        let epoch = epoch(&mut dict)?;
        let Some(Value::List(entries)) = dict.remove("e") else { return Err(Malformed) };
        if entries.len() > OFFER_MAX {
            return Err(Malformed);
        }
        Ok(Offer { epoch, entries: entries.into_iter().map(read_entry).collect::<Result<_, _>>()? })
    }
}

impl Answer {
    /// Writes it.
    pub fn write(&self) -> Vec<u8> {
        let wanted = self.wanted.as_ref().map_or(Value::Null, |wanted| {
            Value::List(wanted.iter().filter_map(|at| u64::try_from(*at).ok()).map(Value::from).collect())
        });
        bt::write(&Value::dict([("@", Value::Bytes(self.epoch.to_vec())), ("w", wanted)]))
    }

    /// Reads it.
    ///
    /// # Errors
    /// It is none.
    pub fn read(bytes: &[u8]) -> Result<Answer, Malformed> {
        let Value::Dict(mut dict) = bt::read_of(bytes, bt::PEER_ELEMENTS_MAX)? else { return Err(Malformed) };
        let wanted = match dict.remove("w") {
            None => None,
            Some(Value::List(wanted)) => Some(wanted.into_iter().map(number).collect::<Result<_, _>>()?),
            Some(_) => return Err(Malformed),
        };
        Ok(Answer { epoch: epoch(&mut dict)?, wanted })
    }
}

/// Writes messages, each at its state.
pub fn write_batch(messages: &[(Mark, Message)]) -> Vec<u8> {
    let one = |(mark, message): &(Mark, Message)| {
        let Value::List(mut parts) = entry(&Entry::Message(mark.clone())) else { return Value::Null };
        parts.extend([message.timestamp.into(), Value::Bytes(message.data.clone())]);
        Value::List(parts)
    };
    bt::write(&Value::List(messages.iter().map(one).collect()))
}

/// Reads messages. Each is what its hash says, but whether it belongs here is not looked at.
///
/// # Errors
/// They are none.
pub fn read_batch(bytes: &[u8]) -> Result<Vec<(Mark, Message)>, Malformed> {
    let Value::List(messages) = bt::read_of(bytes, bt::PEER_ELEMENTS_MAX)? else { return Err(Malformed) };
    let one = |value: Value| {
        let Value::List(mut parts) = value else { return Err(Malformed) };
        let (Some(Value::Bytes(data)), Some(timestamp)) = (parts.pop(), parts.pop()) else { return Err(Malformed) };
        let Entry::Message(mark) = read_entry(Value::List(parts))? else { return Err(Malformed) };
        if data.len() > DATA_MAX || mark.is_gone() || mark.hash != hash::of(&mark.account, mark.namespace, &data) {
            return Err(Malformed);
        }
        let message = Message {
            account: mark.account,
            namespace: mark.namespace,
            hash: mark.hash.clone(),
            timestamp: number(timestamp)?,
            expiry: mark.expiry,
            data,
        };
        Ok((mark, message))
    };
    messages.into_iter().map(one).collect()
}

/// A message's state in six parts, a revocation in four.
fn entry(entry: &Entry) -> Value {
    Value::List(match entry {
        Entry::Message(Mark { account, namespace, hash, version, expiry, until }) => vec![
            Value::Bytes(account.0.to_vec()),
            namespace.0.into(),
            hash.as_str().into(),
            (*version).into(),
            (*expiry).into(),
            (*until).into(),
        ],
        Entry::Revocation(Revocation { account, token, version, at }) => {
            vec![Value::Bytes(account.0.to_vec()), Value::Bytes(token.0.to_vec()), (*version).into(), (*at).into()]
        }
    })
}

fn read_entry(value: Value) -> Result<Entry, Malformed> {
    let Value::List(parts) = value else { return Err(Malformed) };
    let mut parts = parts.into_iter();
    let count = parts.len();
    let mut next = || parts.next().ok_or(Malformed);
    let account = Account(bytes(next()?)?);
    match count {
        4 => Ok(Entry::Revocation(Revocation {
            account,
            token: Token(bytes(next()?)?),
            version: version(next()?)?,
            at: number(next()?)?,
        })),
        6 => {
            let namespace = Namespace(number(next()?)?);
            let Value::Bytes(name) = next()? else { return Err(Malformed) };
            let name = String::from_utf8(name).ok().filter(|name| hash::is_one(name.as_bytes())).ok_or(Malformed)?;
            let (version, expiry, until) = (version(next()?)?, number(next()?)?, number(next()?)?);
            Ok(Entry::Message(Mark { account, namespace, hash: name, version, expiry, until }))
        }
        _ => Err(Malformed),
    }
}

fn epoch(dict: &mut BTreeMap<String, Value>) -> Result<[u8; 16], Malformed> {
    bytes(dict.remove("@").ok_or(Malformed)?)
}

fn bytes<const N: usize>(value: Value) -> Result<[u8; N], Malformed> {
    match value {
        Value::Bytes(bytes) => bytes.try_into().map_err(|_| Malformed),
        _ => Err(Malformed),
    }
}

fn version(value: Value) -> Result<i64, Malformed> {
    number(value).ok().filter(|version| (1..=VERSION_MAX).contains(version)).ok_or(Malformed)
}

/// A number of its kind; the store keeps none beyond i64.
fn number<T: TryFrom<i64>>(value: Value) -> Result<T, Malformed> {
    match value {
        Value::Int(number) => i64::try_from(number).ok().and_then(|number| number.try_into().ok()).ok_or(Malformed),
        _ => Err(Malformed),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn mark(data: &[u8]) -> Mark {
        let (account, namespace) = (Account([5; 33]), Namespace(-11));
        let hash = hash::of(&account, namespace, data);
        Mark { account, namespace, hash, version: 3 << 32, expiry: 7, until: 9 }
    }

    fn message(data: &[u8]) -> Message {
        let Mark { account, namespace, hash, expiry, .. } = mark(data);
        Message { account, namespace, hash, timestamp: 1, expiry, data: data.to_vec() }
    }

    #[test]
    fn offers_answers_and_batches_survive_the_journey() {
        let revocation = Revocation { account: Account([3; 33]), token: Token([1; 36]), version: 2, at: 4 };
        let entries = vec![Entry::Message(mark(b"x")), Entry::Revocation(revocation)];
        let offer = Offer { epoch: [1; 16], entries };
        assert_eq!(Offer::read(&offer.write()), Ok(offer));
        for wanted in [None, Some(vec![]), Some(vec![0, 7])] {
            let answer = Answer { epoch: [2; 16], wanted };
            assert_eq!(Answer::read(&answer.write()), Ok(answer));
        }
        let batch = vec![(mark(b"x"), message(b"x")), (mark(b""), message(b""))];
        assert_eq!(read_batch(&write_batch(&batch)), Ok(batch));
    }

    #[test]
    fn a_message_that_its_hash_does_not_name_is_none() {
        let forged = vec![(mark(b"x"), message(b"y"))];
        assert_eq!(read_batch(&write_batch(&forged)), Err(Malformed));
    }

    #[test]
    fn what_is_out_of_bounds_is_no_offer() {
        let offer = |entries| Offer { epoch: [1; 16], entries }.write();
        let entry = Entry::Message(mark(b"x"));
        assert!(Offer::read(&offer(vec![entry.clone(); OFFER_MAX])).is_ok());
        assert_eq!(Offer::read(&offer(vec![entry; OFFER_MAX + 1])), Err(Malformed));
        for version in [i64::MIN, -1, 0, VERSION_MAX + 1] {
            let entry = Entry::Message(Mark { version, ..mark(b"x") });
            assert_eq!(Offer::read(&offer(vec![entry])), Err(Malformed), "{version}");
        }
    }
}
