//! What a server behind an onion's last node reads and writes: the layer it is posted, and inside it a request in the
//! third form (JSON) or the fourth (a bt list of JSON and a raw body). Neighbours: `hop` (posts the layer), `wrap` (makes
//! it), the file server (answers).

use std::collections::BTreeMap;

use bytes::Bytes;
use data_encoding::BASE64;
use serde::{Deserialize, Serialize};
use x25519_dalek::StaticSecret;

use super::cipher::Shared;
use super::hop::{Onion, Refusal};
use crate::bt;
use crate::value::{Malformed, Value};

/// Opens what a node posts: the request, and what seals the answer.
///
/// # Errors
/// It was not sealed for this key.
pub fn open(body: &Bytes, secret: &StaticSecret) -> Result<(Bytes, Shared), Refusal> {
    let onion = Onion::from_client(body)?;
    let unreadable = || Refusal { status: 400, words: "Invalid ciphertext".into() };
    let shared = Shared::at_node(onion.cipher, secret, &onion.ephemeral).ok_or_else(unreadable)?;
    let request = shared.open(&onion.sealed).ok_or_else(unreadable)?;
    Ok((request.into(), shared))
}

/// A request to a server.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Request {
    pub method: String,
    pub endpoint: String,
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    #[serde(skip)]
    pub body: Bytes,
}

/// A server's answer.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Response {
    pub code: u16,
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    #[serde(skip)]
    pub body: Bytes,
}

impl Request {
    /// Reads the third form: one JSON object; a body is text, or base64 in an object's `fileUpload`.
    ///
    /// # Errors
    /// It is not that.
    pub fn read_v3(plain: &[u8]) -> Result<Request, Malformed> {
        let json: serde_json::Value = serde_json::from_slice(plain).map_err(|_| Malformed)?;
        let body = match json.get("body") {
            None | Some(serde_json::Value::Null) => Bytes::new(),
            Some(serde_json::Value::String(text)) => text.clone().into(),
            Some(object) => match object.get("fileUpload").and_then(serde_json::Value::as_str) {
                Some(file) => BASE64.decode(file.as_bytes()).map_err(|_| Malformed)?.into(),
                None => object.to_string().into(),
            },
        };
        let request: Request = serde_json::from_value(json).map_err(|_| Malformed)?;
        let endpoint = format!("/{}", request.endpoint.trim_start_matches('/'));
        Ok(Request { endpoint, body, ..request })
    }

    /// Reads the fourth form: a bt list of JSON and, if there is one, a body.
    ///
    /// # Errors
    /// It is not that.
    pub fn read_v4(plain: &Bytes) -> Result<Request, Malformed> {
        let (head, body) = pair(plain)?;
        let request: Request = serde_json::from_slice(&head).map_err(|_| Malformed)?;
        if !request.endpoint.starts_with('/') {
            return Err(Malformed);
        }
        Ok(Request { body, ..request })
    }

    /// The fourth form.
    pub fn write_v4(&self) -> Vec<u8> {
        let head = serde_json::json!(self).to_string();
        let body = Some(&self.body).filter(|body| !body.is_empty());
        let parts = [Some(Value::from(head)), body.map(|body| Value::Bytes(body.to_vec()))];
        bt::write(&Value::List(parts.into_iter().flatten().collect()))
    }
}

impl Response {
    /// The fourth form: names of headers in lower case, and no length, which the list says already.
    pub fn write_v4(&self) -> Vec<u8> {
        let lower = self.headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone()));
        let headers: BTreeMap<_, _> = lower.filter(|(name, _)| name != "content-length").collect();
        let head = serde_json::json!({ "code": self.code, "headers": headers }).to_string();
        bt::write(&Value::List(vec![head.into(), Value::Bytes(self.body.to_vec())]))
    }

    /// Reads the fourth form.
    ///
    /// # Errors
    /// It is not that.
    pub fn read_v4(plain: &Bytes) -> Result<Response, Malformed> {
        let (head, body) = pair(plain)?;
        let response: Response = serde_json::from_slice(&head).map_err(|_| Malformed)?;
        Ok(Response { body, ..response })
    }
}

/// One or two strings in a list; the second may be absent.
fn pair(plain: &[u8]) -> Result<(Vec<u8>, Bytes), Malformed> {
    let Value::List(mut parts) = bt::read(plain)? else { return Err(Malformed) };
    let body = if parts.len() == 2 { parts.pop() } else { Some(Value::Bytes(Vec::new())) };
    match (parts.pop(), body, parts.is_empty()) {
        (Some(Value::Bytes(head)), Some(Value::Bytes(body)), true) => Ok((head, body.into())),
        _ => Err(Malformed),
    }
}
