//! The way without a router: calls in onion requests, over HTTPS to a first node and through others to the last. It hides
//! who asks from who answers; it cannot be pushed to. Neighbours: `crate::onion` (the layers), `http` (the first node).

use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};

use data_encoding::HEXLOWER;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use serde_json::{Value as Json, json};
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::ClientError;
use crate::http::{Http, Reach, Trust};
use crate::onion::wrap::{Destination, Hop, Opener, wrap};
use crate::onion::{Cipher, ONION_MAX};

/// How long an answer may take, over all nodes.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);

/// A path of nodes.
pub struct OnionWay {
    http: Http,
    guard: SocketAddr,
    path: Vec<Hop>,
    chance: Mutex<ChaCha20Rng>,
}

impl OnionWay {
    /// Begins at the first node of the path, whose HTTPS is at this address; three nodes are usual.
    ///
    /// # Errors
    /// This host gives no random bytes, or its TLS library does not work.
    pub fn new(guard: (IpAddr, u16), path: Vec<Hop>) -> Result<OnionWay, ClientError> {
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *seed).map_err(|_| ClientError::Unreachable("this host gives no random bytes".into()))?;
        let http = Http::new().map_err(|error| ClientError::Unreachable(error.to_string()))?;
        let chance = Mutex::new(ChaCha20Rng::from_seed(*seed));
        Ok(OnionWay { http, guard: guard.into(), path, chance })
    }

    /// Calls a method at the path's last node.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn call(&self, method: &str, params: &Json) -> Result<Json, ClientError> {
        let request = json!({"method": method, "params": params}).to_string();
        let (status, body) = self.send(&Destination::Node, request.as_bytes()).await.and_then(|(answer, opener)| {
            let plain = opener.open(&answer).ok_or_else(|| refused(&answer))?;
            let answer: Json = serde_json::from_slice(&plain).map_err(|_| ClientError::Senseless("no JSON"))?;
            let status = answer["status"].as_u64().and_then(|status| u16::try_from(status).ok());
            Ok((status.ok_or(ClientError::Senseless("no status"))?, answer["body"].clone()))
        })?;
        let (body, words) = match body {
            Json::String(text) => (serde_json::from_str(&text).unwrap_or_default(), text),
            body => (body, String::new()),
        };
        if (200..300).contains(&status) { Ok(body) } else { Err(ClientError::Refused { status, words, body }) }
    }

    /// Sends a request to a server behind the last node; what the server answered, opened.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn server(&self, server: &Destination<'_>, request: &[u8]) -> Result<Vec<u8>, ClientError> {
        let (answer, opener) = self.send(server, request).await?;
        opener.open(&answer).ok_or_else(|| refused(&answer))
    }

    async fn send(&self, to: &Destination<'_>, request: &[u8]) -> Result<(bytes::Bytes, Opener), ClientError> {
        let wrapped = {
            let mut chance = self.chance.lock().unwrap_or_else(PoisonError::into_inner);
            wrap(&self.path, to, request, Cipher::XChaCha20, &mut *chance)
        };
        let (onion, opener) = wrapped.ok_or(ClientError::Senseless("the path is empty, or one of its keys is none"))?;
        let url = format!("https://{}/onion_req/v2", self.guard);
        let post = Some((onion, "application/octet-stream"));
        // What matters is sealed for each node's own key; the outer TLS only hides that it is an onion.
        let asking = self.http.ask(&url, post, ONION_MAX, Trust::Nobody, Reach::Anywhere);
        let answer =
            timeout(PATIENCE, asking).await.map_err(|_| ClientError::Unreachable("no answer in time".into()))?;
        let answer = answer.map_err(|error| ClientError::Unreachable(error.to_string()))?;
        if answer.status == 200 {
            return Ok((answer.body, opener));
        }
        let words = String::from_utf8_lossy(&answer.body).into_owned();
        Err(ClientError::Refused { status: answer.status, words, body: Json::Null })
    }

    /// The nodes on the way, by name, for who wants to show them.
    pub fn path(&self) -> Vec<String> {
        self.path.iter().map(|hop| HEXLOWER.encode(&hop.ed25519)).collect()
    }
}

/// An answer that is not sealed comes from a node on the way.
fn refused(answer: &[u8]) -> ClientError {
    let words = String::from_utf8_lossy(&answer[..answer.len().min(200)]).into_owned();
    ClientError::Refused { status: 502, words, body: Json::Null }
}
