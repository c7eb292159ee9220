//! A connection to one node. Neighbours: `quic` (how it is spoken), `client` (keeps a few), `watch` (listens on one).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quinn::{ClientConfig, Connection, Endpoint};
use serde_json::Value as Json;
use tokio::sync::{Mutex, mpsc};
use tokio::time::timeout;

use super::{ClientError, PATIENCE, Target};
use crate::quic::stream::{Budget, Command, RequestError, RequestStream};
use crate::quic::tls::{self, Identity};
use crate::quic::{CLIENT_IDLE, CLIENTS, code, transport};

/// How long a connection may take to come about.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
/// How often we show that we are there, so that pushes find us.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// Pushes that may wait to be looked at; behind them, flow control makes the node wait.
const PUSHES: usize = 64;
/// Bytes a node may send us before we look at them.
const ROOM: usize = 32 << 20;

/// A live connection; closed when dropped.
pub struct Link {
    connection: Connection,
    stream: RequestStream,
    pushes: Mutex<mpsc::Receiver<Box<Command>>>,
}

impl Link {
    /// Connects to a node, which must prove its key.
    ///
    /// # Errors
    /// It is not there, or not who it should be.
    pub async fn connect(endpoint: &Endpoint, target: &Target) -> Result<Link, ClientError> {
        let at = format!("{}:{}", target.host, target.port);
        let failed = |why: String| ClientError::Unreachable(format!("{at}: {why}"));
        let connecting = async {
            let found = tokio::net::lookup_host((&target.host[..], target.port)).await;
            let addr = found.map_err(|e| failed(e.to_string()))?.find(|addr| addr.is_ipv4());
            let addr = addr.ok_or_else(|| failed("no address for that name".into()))?;
            // Older nodes insist on a key, whoever's it is: one that is forgotten tells nobody anything.
            let identity = Identity::throwaway().map_err(|e| failed(e.to_string()))?;
            let config = tls::client(Some(&identity), target.key, CLIENTS).map_err(|e| failed(e.to_string()))?;
            let mut config = ClientConfig::new(config);
            config.transport_config(Arc::new(transport(CLIENT_IDLE, Some(KEEP_ALIVE))));
            let connecting =
                endpoint.connect_with(config, addr, tls::SERVER_NAME).map_err(|e| failed(e.to_string()))?;
            connecting.await.map_err(|e| failed(e.to_string()))
        };
        let connection = timeout(CONNECT_PATIENCE, connecting).await.map_err(|_| failed("no answer".into()))??;
        let (commands, pushes) = mpsc::channel(PUSHES);
        let stream = RequestStream::open(&connection, commands, &Budget::new(ROOM)).await;
        let stream = stream.map_err(|e| failed(e.to_string()))?;
        Ok(Link { connection, stream, pushes: Mutex::new(pushes) })
    }

    /// Calls a method with JSON parameters.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn call(&self, method: &str, params: &Json) -> Result<Json, ClientError> {
        let answer = self.request(method, params.to_string().into()).await?;
        let json: Json = serde_json::from_slice(&answer).map_err(|_| ClientError::Senseless("no JSON"))?;
        match json {
            Json::Array(parts) => parts.into_iter().nth(1).ok_or(ClientError::Senseless("a list without an answer")),
            json => Ok(json),
        }
    }

    /// Calls any endpoint with any body, and takes the answer as it comes.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn request(&self, endpoint: &str, body: Bytes) -> Result<Bytes, ClientError> {
        self.stream.request(endpoint, body, PATIENCE).await.map_err(|error| match error {
            RequestError::Refused(words) => refused(&words),
            error => ClientError::Unreachable(error.to_string()),
        })
    }

    /// The next command the node sends; nothing when the connection has ended.
    pub async fn pushed(&self) -> Option<Box<Command>> {
        let mut pushes = self.pushes.lock().await;
        tokio::select! {
            biased;
            push = pushes.recv() => push,
            _ = self.connection.closed() => None,
        }
    }

    /// Whether it still stands.
    pub fn lives(&self) -> bool {
        self.connection.close_reason().is_none()
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.connection.close(code::GOODBYE, b"");
    }
}

/// Reads `<status> <reason>\n\n<body>`, the body being a sentence or `[status, {…}]`.
fn refused(words: &[u8]) -> ClientError {
    let words = String::from_utf8_lossy(words);
    let (head, said) = words.split_once("\n\n").unwrap_or((&words, &words));
    let Some(status) = head.split(' ').next().and_then(|status| status.parse().ok()) else {
        return ClientError::Refused { status: 400, words: words.into_owned(), body: Json::Null };
    };
    let body = match serde_json::from_str(said) {
        Ok(Json::Array(parts)) => parts.into_iter().nth(1).unwrap_or_default(),
        _ => Json::Null,
    };
    ClientError::Refused { status, words: if body.is_null() { said.to_owned() } else { head.to_owned() }, body }
}
