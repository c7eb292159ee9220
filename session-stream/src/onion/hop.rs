//! One hop: an onion is read, one layer comes off, and what is under it says where it goes: on to another node, to a
//! server, or no further. Neighbours: `cipher` (the layer), `node` (does what [`Layer`] says), `wrap` (the other way).

use bytes::Bytes;
use data_encoding::{BASE64, HEXLOWER, HEXLOWER_PERMISSIVE};
use rand_core::Rng;
use serde_json::Value as Json;
use x25519_dalek::StaticSecret;

use super::cipher::{Cipher, Shared};
use super::{ONION_MAX, join, split};
use crate::bt;
use crate::value::Value;

/// Highest hop number: an onion that has come further is going in circles.
pub const HOP_MAX: i64 = 15;
/// Longest JSON beside a ciphertext, in bytes; it holds a few names and keys.
const JSON_MAX: usize = 64 << 10;

/// Why an onion is not carried on: an HTTP status, and a sentence for who sent it.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub struct Refusal {
    pub status: u16,
    pub words: String,
}

/// An onion, its outer layer still on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Onion {
    /// The outer layer.
    pub sealed: Bytes,
    /// What it is sealed with.
    pub cipher: Cipher,
    /// The key made for it, X25519.
    pub ephemeral: [u8; 32],
    /// How many nodes it has passed, as its sender counts.
    pub hop: i64,
}

/// What is under a layer.
#[derive(Debug)]
pub enum Layer {
    /// Another onion, for this node, an Ed25519 key.
    Next {
        /// Whom it is for.
        node: [u8; 32],
        /// What it gets.
        onion: Onion,
    },
    /// A call for ourselves: JSON with `method` and `params`.
    Here {
        /// The call.
        request: Bytes,
        /// How its answer goes back.
        reply: ReplyTo,
    },
    /// A request to a server: post the body there, and give back what it says.
    Server {
        /// Checked: `http` or `https`, a plain host, a port, a target onion requests may go to.
        url: String,
        /// The whole layer; the server opens what is in it.
        body: Bytes,
    },
}

/// How a call's answer goes back: sealed for who asked, in the form he wants.
pub struct ReplyTo {
    shared: Shared,
    json: bool,
    base64: bool,
}

impl Onion {
    /// Reads an onion as clients send it: `N ‖ ciphertext ‖ JSON`.
    ///
    /// # Errors
    /// It is not one.
    pub fn from_client(blob: &Bytes) -> Result<Onion, Refusal> {
        let (sealed, json) = parts(blob)?;
        let hop = match json.get("hop_no") {
            None | Some(Json::Null) => 0,
            Some(hop) => hop.as_i64().filter(|hop| *hop >= 0).ok_or_else(|| refuse("Invalid json: hop_no"))?,
        };
        Ok(Onion { sealed: blob.slice_ref(sealed), cipher: cipher(&json)?, ephemeral: ephemeral(&json)?, hop })
    }

    /// Reads an onion as nodes send it: a bt dictionary.
    ///
    /// # Errors
    /// It is not one.
    pub fn from_node(body: &[u8]) -> Result<Onion, Refusal> {
        let dict = bt::read(body).map_err(|_| refuse("Invalid request: expected a dictionary"))?;
        let bytes = |name: &str| match dict.field(name) {
            Some(Value::Bytes(bytes)) => Ok(bytes),
            _ => Err(refuse(&format!("Invalid request: {name}"))),
        };
        let cipher = str::from_utf8(bytes("enc_type")?).ok().and_then(Cipher::named);
        let hop = match dict.field("hop_no") {
            Some(Value::Int(hop)) => i64::try_from(*hop).ok().filter(|hop| *hop >= 0),
            None => Some(0),
            Some(_) => None,
        };
        Ok(Onion {
            sealed: Bytes::copy_from_slice(bytes("data")?),
            cipher: cipher.ok_or_else(|| refuse("Invalid request: enc_type"))?,
            ephemeral: bytes("ephemeral_key")?[..].try_into().map_err(|_| refuse("Invalid request: ephemeral_key"))?,
            hop: hop.ok_or_else(|| refuse("Invalid request: hop_no"))?,
        })
    }

    /// The onion as nodes send it.
    pub fn for_node(&self) -> Bytes {
        let entries = [
            ("data", Value::Bytes(self.sealed.to_vec())),
            ("enc_type", self.cipher.name().into()),
            ("ephemeral_key", Value::Bytes(self.ephemeral.to_vec())),
            ("hop_no", self.hop.into()),
        ];
        bt::write(&Value::dict(entries)).into()
    }
}

/// Takes the outer layer off.
///
/// # Errors
/// It does not come off with this key, or what is under it makes no sense, or it has come too far.
pub fn peel(onion: &Onion, secret: &StaticSecret) -> Result<Layer, Refusal> {
    if onion.hop > HOP_MAX {
        return Err(refuse("onion request max path length exceeded"));
    }
    let shared = Shared::at_node(onion.cipher, secret, &onion.ephemeral).ok_or_else(unreadable)?;
    let plain = Bytes::from(shared.open(&onion.sealed).ok_or_else(unreadable)?);
    let (blob, json) = parts(&plain)?;
    let blob = plain.slice_ref(blob);
    if json.get("headers").is_some() {
        let flag = |name: &str, otherwise| json.get(name).and_then(Json::as_bool).unwrap_or(otherwise);
        let reply = ReplyTo { shared, json: flag("json", false), base64: flag("base64", true) };
        return Ok(Layer::Here { request: blob, reply });
    }
    if json.get("host").is_some() {
        return Ok(Layer::Server { url: url(&json)?, body: plain });
    }
    let node = key(&json, "destination")?;
    let onion = Onion { sealed: blob, cipher: cipher(&json)?, ephemeral: ephemeral(&json)?, hop: onion.hop + 1 };
    Ok(Layer::Next { node, onion })
}

/// Splits a layer into its ciphertext and the JSON beside it.
fn parts(bytes: &[u8]) -> Result<(&[u8], Json), Refusal> {
    if bytes.len() > ONION_MAX {
        return Err(Refusal { status: 413, words: "Request too large".into() });
    }
    let (blob, json) = split(bytes).ok_or_else(unreadable)?;
    let json = Some(json).filter(|json| json.len() <= JSON_MAX).and_then(|json| serde_json::from_slice(json).ok());
    json.filter(Json::is_object).map(|json| (blob, json)).ok_or_else(|| refuse("Invalid json"))
}

fn cipher(json: &Json) -> Result<Cipher, Refusal> {
    match json.get("enc_type") {
        None | Some(Json::Null) => Ok(Cipher::AesGcm),
        Some(name) => name.as_str().and_then(Cipher::named).ok_or_else(|| refuse("Invalid json: enc_type")),
    }
}

fn ephemeral(json: &Json) -> Result<[u8; 32], Refusal> {
    key(json, "ephemeral_key")
}

fn key(json: &Json, name: &str) -> Result<[u8; 32], Refusal> {
    let bytes = json.get(name).and_then(Json::as_str).and_then(|hex| HEXLOWER_PERMISSIVE.decode(hex.as_bytes()).ok());
    bytes.and_then(|bytes| bytes.try_into().ok()).ok_or_else(|| refuse(&format!("Invalid json: {name}")))
}

/// Where a server's layer goes. Nodes post to servers made for it only, never to any address a stranger names.
fn url(json: &Json) -> Result<String, Refusal> {
    let bad = || refuse("Invalid url");
    let text = |name: &str| json.get(name).and_then(Json::as_str);
    let host = text("host").filter(|host| plain(host)).ok_or_else(bad)?;
    let protocol = match json.get("protocol") {
        None => "https",
        Some(name) => name.as_str().filter(|name| ["http", "https"].contains(name)).ok_or_else(bad)?,
    };
    let port = match json.get("port") {
        None => 443,
        Some(port) => {
            port.as_u64().and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0).ok_or_else(bad)?
        }
    };
    let target = text("target").filter(|target| {
        let ours = target.starts_with("/loki/") || target.starts_with("/oxen/");
        ours && target.ends_with("/lsrpc") && target.len() <= 1024 && target.bytes().all(visible)
    });
    Ok(format!("{protocol}://{host}:{port}{}", target.ok_or_else(bad)?))
}

/// A name or an address, and nothing that could be read as another part of a URL.
fn plain(host: &str) -> bool {
    let named = host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte));
    let v6 = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let address = v6.is_some_and(|host| host.parse::<std::net::Ipv6Addr>().is_ok());
    !host.is_empty() && host.len() <= 253 && (named || address)
}

/// What a target may hold: no query, no fragment, no space.
fn visible(byte: u8) -> bool {
    byte.is_ascii_graphic() && !b"?#\\".contains(&byte)
}

fn refuse(words: &str) -> Refusal {
    Refusal { status: 400, words: words.into() }
}

fn unreadable() -> Refusal {
    refuse("Invalid ciphertext")
}

impl ReplyTo {
    /// The answer as it travels back: `{"status", "body"}`, sealed. The body stands in it as text, or as JSON if that was
    /// asked for and it is JSON; bytes that are no text stand in it as base64.
    pub fn seal(&self, status: u16, body: &[u8], chance: &mut impl Rng) -> Option<Bytes> {
        let said = match str::from_utf8(body) {
            Ok(text) if self.json => serde_json::from_str(text).unwrap_or_else(|_| Json::from(text)),
            Ok(text) => Json::from(text),
            Err(_) => Json::from(BASE64.encode(body)),
        };
        let plain = serde_json::json!({ "status": status, "body": said }).to_string();
        let sealed = self.shared.seal(plain.as_bytes(), chance)?;
        Some(if self.base64 { BASE64.encode(&sealed).into() } else { sealed.into() })
    }
}

impl std::fmt::Debug for ReplyTo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReplyTo").field("json", &self.json).field("base64", &self.base64).finish_non_exhaustive()
    }
}

/// A layer as [`peel`] reads it: for the node before this one, which is told whom the ciphertext is for.
pub(super) fn next(node: &[u8; 32], cipher: Cipher, ephemeral: &[u8; 32], sealed: &[u8]) -> Vec<u8> {
    let json = serde_json::json!({
        "destination": HEXLOWER.encode(node),
        "ephemeral_key": HEXLOWER.encode(ephemeral),
        "enc_type": cipher.name(),
    });
    join(sealed, json.to_string().as_bytes())
}

#[cfg(test)]
mod tests;
