//! Parameters, read strictly and the same from both notations; what is wrong with one is said in the words clients know.
//! Neighbours: `value` (the tree), every method (reads its own here).

use std::collections::BTreeMap;

use data_encoding::{BASE64_NOPAD, Encoding, HEXLOWER_PERMISSIVE, Specification};
use std::sync::LazyLock;

use crate::account::{Account, Namespace, Network, Proof, Scope, Token, hash};
use crate::value::{Form, Value};

/// Times below this are seconds that somebody took for milliseconds.
const MILLISECONDS_MIN: u64 = 1_000_000_000;

/// What is wrong with the parameters, to be said behind `invalid request: `.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bad(pub String);

impl Bad {
    fn missing(name: &str) -> Bad {
        Bad(format!("Required field '{name}' missing"))
    }

    fn expected(name: &str, what: &str) -> Bad {
        Bad(format!("Invalid value given for '{name}': expected {what}"))
    }
}

impl From<&str> for Bad {
    fn from(text: &str) -> Bad {
        Bad(text.to_owned())
    }
}

/// A value, or what is wrong with it.
pub type Read<T> = Result<T, Bad>;

/// base64 without padding, forgiving about the bits behind the last byte, as clients' libraries are.
static LENIENT: LazyLock<Encoding> = LazyLock::new(|| {
    let mut specification: Specification = BASE64_NOPAD.specification();
    specification.check_trailing_bits = false;
    specification.encoding().unwrap_or(BASE64_NOPAD)
});

/// Reads base64, padded or not.
pub fn base64(text: &[u8]) -> Option<Vec<u8>> {
    let bare = match text {
        [bare @ .., b'=', b'='] | [bare @ .., b'='] if text.len().is_multiple_of(4) => bare,
        text => text,
    };
    LENIENT.decode(bare).ok()
}

/// A call's parameters.
#[derive(Clone, Copy)]
pub struct Fields<'a> {
    dict: &'a BTreeMap<String, Value>,
    /// How they were written.
    pub form: Form,
    /// Whose accounts they name.
    pub network: Network,
}

impl<'a> Fields<'a> {
    /// The fields of a dictionary; nothing when it is none.
    pub fn new(params: &'a Value, form: Form, network: Network) -> Option<Fields<'a>> {
        let Value::Dict(dict) = params else { return None };
        Some(Fields { dict, form, network })
    }

    /// The fields of another dictionary of the same call.
    pub fn within(&self, params: &'a Value) -> Option<Fields<'a>> {
        Fields::new(params, self.form, self.network)
    }

    /// A field as it stands.
    pub fn value(&self, name: &str) -> Option<&'a Value> {
        self.dict.get(name).filter(|value| **value != Value::Null)
    }

    /// The bytes of a string.
    pub fn raw(&self, name: &str) -> Read<Option<&'a [u8]>> {
        self.value(name).map(|value| string(value).ok_or_else(|| Bad::expected(name, "string"))).transpose()
    }

    /// A string of characters.
    pub fn text(&self, name: &str) -> Read<Option<&'a str>> {
        let text = |raw| str::from_utf8(raw).map_err(|_| Bad::expected(name, "string"));
        self.raw(name)?.map(text).transpose()
    }

    /// Strings: a list of them, or one.
    pub fn strings(&self, name: &str) -> Read<Option<Vec<&'a [u8]>>> {
        let several = |value: &'a Value| match value {
            Value::List(list) => list.iter().map(string).collect(),
            one => string(one).map(|one| vec![one]),
        };
        self.value(name).map(|value| several(value).ok_or_else(|| Bad::expected(name, "string array"))).transpose()
    }

    /// Yes or no, no when it is not said.
    pub fn flag(&self, name: &str) -> Read<bool> {
        match (self.value(name), self.form) {
            (None, _) => Ok(false),
            (Some(Value::Bool(yes)), Form::Json) => Ok(*yes),
            (Some(Value::Int(number @ (0 | 1))), Form::Bt) => Ok(*number == 1),
            _ => Err(Bad::expected(name, "boolean")),
        }
    }

    /// A whole number.
    pub fn integer(&self, name: &str) -> Read<Option<i64>> {
        let Some(value) = self.value(name) else { return Ok(None) };
        let Value::Int(number) = value else { return Err(Bad::expected(name, "integer")) };
        i64::try_from(*number).map(Some).map_err(|_| Bad::expected(name, "integer"))
    }

    /// Whole numbers: a list of them, or one.
    pub fn integers(&self, name: &str) -> Read<Option<Vec<i64>>> {
        let number = |value: &Value| match value {
            Value::Int(number) => i64::try_from(*number).ok(),
            _ => None,
        };
        let several = |value: &Value| match value {
            Value::List(list) => list.iter().map(number).collect(),
            one => number(one).map(|one| vec![one]),
        };
        self.value(name).map(|value| several(value).ok_or_else(|| Bad::expected(name, "integer array"))).transpose()
    }

    /// A time, in milliseconds since 1970.
    pub fn time(&self, name: &str) -> Read<Option<u64>> {
        let Some(value) = self.value(name) else { return Ok(None) };
        let time = milliseconds(value).ok_or_else(|| Bad::expected(name, "integer timestamp (in milliseconds)"))?;
        if self.form == Form::Json && time < MILLISECONDS_MIN {
            return Err(Bad(format!("Invalid timestamp for '{name}': timestamp must be in milliseconds")));
        }
        Ok(Some(time))
    }

    /// Times: a list of them, or one.
    pub fn times(&self, name: &str) -> Read<Option<Vec<u64>>> {
        let several = |value: &Value| match value {
            Value::List(list) => list.iter().map(milliseconds).collect(),
            one => milliseconds(one).map(|one| vec![one]),
        };
        self.value(name).map(|value| several(value).ok_or_else(|| Bad::expected(name, "timestamp array"))).transpose()
    }

    /// Milliseconds that old clients write as a string in JSON.
    pub fn loose(&self, name: &str, what: &str) -> Read<Option<u64>> {
        match self.value(name) {
            None => Ok(None),
            Some(Value::Text(text)) => {
                let number = text.parse().ok().filter(|number| i64::try_from(*number).is_ok());
                let bad = || Bad(format!("Invalid value given for '{name}': {}", serde_json::json!(text)));
                number.map(Some).ok_or_else(bad)
            }
            Some(value) => milliseconds(value).map(Some).ok_or_else(|| Bad::expected(name, what)),
        }
    }

    /// A box.
    pub fn namespace(&self, name: &str) -> Read<Option<Namespace>> {
        match self.value(name) {
            None => Ok(None),
            Some(Value::Int(number)) => match i16::try_from(*number) {
                Ok(number) => Ok(Some(Namespace(number))),
                Err(_) => Err(Bad(format!("Invalid value given for '{name}': value out of range"))),
            },
            Some(_) => Err(Bad::expected(name, "16-bit integer")),
        }
    }

    /// A box, or all; the default box when it is not said.
    pub fn scope(&self, name: &str) -> Read<Scope> {
        match self.value(name).map(|value| (value, string(value))) {
            Some((_, Some(b"all"))) => Ok(Scope::All),
            None | Some((Value::Int(_), _)) => Ok(Scope::One(self.namespace(name)?.unwrap_or_default())),
            Some(_) => Err(Bad::expected(name, "integer or \"all\"")),
        }
    }

    /// `messages`: at least one hash.
    pub fn hashes(&self) -> Read<Vec<String>> {
        let hashes = self.strings("messages")?.ok_or_else(|| Bad::missing("messages"))?;
        if hashes.is_empty() {
            return Err("messages does not contain any message hashes".into());
        }
        let one = |raw: &[u8]| match str::from_utf8(raw) {
            Ok(text) if hash::is_one(raw) => Ok(text.to_owned()),
            _ => Err(Bad(format!("invalid message hash: {}", String::from_utf8_lossy(raw)))),
        };
        hashes.into_iter().map(one).collect()
    }

    /// `pubkey`.
    pub fn account(&self) -> Read<Account> {
        self.account_of(self.raw("pubkey")?, "Pubkey must be 66 hex digits (33 bytes) long")
    }

    /// `pubkey`, which old clients write `pubKey`.
    pub fn account_or_old(&self, otherwise: &str) -> Read<Account> {
        let (new, old) = (self.raw("pubkey")?, self.raw("pubKey")?);
        if new.is_some() && old.is_some() {
            return Err("Cannot specify both 'pubkey' and 'pubKey'".into());
        }
        self.account_of(new.or(old), otherwise)
    }

    fn account_of(&self, raw: Option<&[u8]>, otherwise: &str) -> Read<Account> {
        let raw = raw.ok_or_else(|| Bad::missing("pubkey"))?;
        Account::read(raw, self.network).ok_or_else(|| otherwise.into())
    }

    /// `signature` and what goes with it: the owner's.
    pub fn owners_proof(&self, account: &Account) -> Read<Proof> {
        let signature = self.raw("signature")?.ok_or_else(|| Bad::missing("signature"))?;
        let ed25519 = self.raw("pubkey_ed25519")?.map(|raw| self.ed25519(account, raw)).transpose()?;
        let signature = self.signature(signature).ok_or(match self.form {
            Form::Json => "invalid signature: expected base64 encoded Ed25519 signature",
            Form::Bt => "invalid signature: expected 64-byte Ed25519 signature",
        })?;
        Ok(Proof { ed25519, signature, token: None })
    }

    /// `signature` and what goes with it: the owner's, or that of whom it gave a token.
    pub fn proof(&self, account: &Account) -> Read<Proof> {
        Ok(Proof { token: self.signed_token()?, ..self.owners_proof(account)? })
    }

    fn ed25519(&self, account: &Account, raw: &[u8]) -> Read<[u8; 32]> {
        if account.prefix() != Account::SESSION {
            return Err("pubkey_ed25519 is only permitted for 05[...] pubkeys".into());
        }
        let bytes = match raw.len() {
            64 => HEXLOWER_PERMISSIVE.decode(raw).map_err(|_| "invalid pubkey_ed25519: value is not hex")?,
            _ => raw.to_vec(),
        };
        bytes.try_into().map_err(|_| "Invalid pubkey_ed25519: expected 64 hex char or 32 byte pubkey".into())
    }

    fn signed_token(&self) -> Read<Option<(Token, [u8; 64])>> {
        let Some(token) = self.raw("subaccount")?.filter(|raw| !raw.is_empty()) else { return Ok(None) };
        let signature = self
            .raw("subaccount_sig")?
            .ok_or("invalid subaccount: subaccount_sig is required when using subaccount")?;
        let token = self.token(token).ok_or(match self.form {
            Form::Json => "invalid subaccount: expected base64 or hex-encoded subaccount token",
            Form::Bt => "invalid subaccount token: invalid token length",
        })?;
        let signature = self.signature(signature).ok_or(match self.form {
            Form::Json => "invalid subaccount signature: expected base64 encoded Ed25519 signature",
            Form::Bt => "invalid signature: expected 64-byte Ed25519 signature",
        })?;
        Ok(Some((token, signature)))
    }

    /// A token: in JSON 48 characters of base64 or 72 of hexadecimal.
    pub fn token(&self, raw: &[u8]) -> Option<Token> {
        let bytes = match (self.form, raw.len()) {
            (Form::Json, 48) => base64(raw)?,
            (Form::Json, 72) => HEXLOWER_PERMISSIVE.decode(raw).ok()?,
            (Form::Json, _) => return None,
            (Form::Bt, _) => raw.to_vec(),
        };
        bytes.try_into().ok().map(Token)
    }

    fn signature(&self, raw: &[u8]) -> Option<[u8; 64]> {
        self.bytes(raw)?.try_into().ok()
    }

    /// Bytes as this notation writes them.
    pub fn bytes(&self, raw: &[u8]) -> Option<Vec<u8>> {
        match self.form {
            Form::Json => base64(raw),
            Form::Bt => Some(raw.to_vec()),
        }
    }
}

/// The field, which must be there.
pub fn required<T>(name: &str, field: Option<T>) -> Read<T> {
    field.ok_or_else(|| Bad::missing(name))
}

fn string(value: &Value) -> Option<&[u8]> {
    match value {
        Value::Text(text) => Some(text.as_bytes()),
        Value::Bytes(bytes) => Some(bytes),
        _ => None,
    }
}

/// A time that fits where times are kept.
fn milliseconds(value: &Value) -> Option<u64> {
    let Value::Int(number) = value else { return None };
    i64::try_from(*number).ok().and_then(|number| u64::try_from(number).ok())
}

/// What every signed call carries on: whose, and the proof as it came.
pub fn carried_proof(account: &Account, proof: Option<&Proof>) -> Vec<(&'static str, Value)> {
    let mut carried = vec![("pubkey", Value::Bytes(account.0.to_vec()))];
    if let Some(Proof { ed25519, signature, token }) = proof {
        carried.push(("signature", Value::Bytes(signature.to_vec())));
        carried.extend(ed25519.map(|key| ("pubkey_ed25519", Value::Bytes(key.to_vec()))));
        if let Some((token, signature)) = token {
            carried.push(("subaccount", Value::Bytes(token.0.to_vec())));
            carried.push(("subaccount_sig", Value::Bytes(signature.to_vec())));
        }
    }
    carried
}

/// Whether this is base64, padded or not.
pub fn is_base64(text: &[u8]) -> bool {
    base64(text).is_some()
}
