//! A raw BT request stream: connect to a node by key and application protocol, ask any endpoint with any bytes, and answer
//! what it asks back. Neighbours: `session_stream::quic` (the connection), `lib` (errors and waiting).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use quinn::ClientConfig;
use session_stream::quic::stream::{Budget, Command, RequestError, RequestStream};
use session_stream::quic::tls::{self, Identity};
use session_stream::quic::{self, CLIENT_IDLE};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::{Refused, SessionError, Unreachable, hex, patience, runtime, seed, wait};

/// How often we show that we are there.
const KEEP_ALIVE: std::time::Duration = std::time::Duration::from_secs(10);
/// Commands of the node that may wait for their handlers.
const COMMANDS: usize = 64;
/// Bytes a node may send before they are looked at.
const ROOM: usize = 32 << 20;

type Handlers = Arc<Mutex<HashMap<String, Py<PyAny>>>>;

/// A connection with one BT request stream.
#[pyclass(frozen)]
pub struct Connection {
    connection: quinn::Connection,
    /// Lives as long as the connection does.
    _endpoint: quinn::Endpoint,
    stream: RequestStream,
    handlers: Handlers,
}

/// Connects to the node with this Ed25519 key (hexadecimal). `seed` is our own key's; without it we show one that is
/// forgotten afterwards.
#[pyfunction]
#[pyo3(signature = (host, port, key, alpn = "oxenstorage", seed = None, timeout = 5.0))]
pub fn connect(
    py: Python<'_>,
    host: &str,
    port: u16,
    key: &str,
    alpn: &str,
    seed: Option<&[u8]>,
    timeout: f64,
) -> PyResult<Connection> {
    let expected = hex("key", key)?;
    let identity = match seed {
        Some(bytes) => Identity::from_seed(&*self::seed(bytes)?),
        None => Identity::throwaway(),
    };
    let identity = identity.map_err(|error| SessionError::new_err(error.to_string()))?;
    let config = tls::client(Some(&identity), expected, alpn.as_bytes());
    let mut config = ClientConfig::new(config.map_err(|error| SessionError::new_err(error.to_string()))?);
    config.transport_config(Arc::new(quic::transport(CLIENT_IDLE, Some(KEEP_ALIVE))));
    let within = patience(timeout)?;
    let handlers = Handlers::default();
    let connecting = open(host, port, config, handlers);
    match wait(py, async { tokio::time::timeout(within, connecting).await })? {
        Ok(connected) => connected.map_err(|why| Unreachable::new_err(format!("{host}:{port}: {why}"))),
        Err(_) => Err(Unreachable::new_err(format!("{host}:{port}: no answer"))),
    }
}

async fn open(host: &str, port: u16, config: ClientConfig, handlers: Handlers) -> Result<Connection, String> {
    let mut addrs = tokio::net::lookup_host((host, port)).await.map_err(|error| error.to_string())?;
    let addr = addrs.next().ok_or("no address for that name")?;
    let bind = if addr.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let endpoint = quic::endpoint(bind, None).map_err(|error| error.to_string())?;
    let connecting = endpoint.connect_with(config, addr, tls::SERVER_NAME).map_err(|error| error.to_string())?;
    let connection = connecting.await.map_err(|error| error.to_string())?;
    let (sender, commands) = mpsc::channel(COMMANDS);
    let stream = RequestStream::open(&connection, sender, &Budget::new(ROOM)).await;
    let stream = stream.map_err(|error| error.to_string())?;
    tokio::spawn(answer(commands, handlers.clone()));
    Ok(Connection { connection, _endpoint: endpoint, stream, handlers })
}

#[pymethods]
impl Connection {
    /// Asks, and waits for the answer: bytes. Raises `Refused` with the node's own words when it says no.
    #[pyo3(signature = (endpoint, body = None, timeout = 10.0))]
    fn request<'py>(
        &self,
        py: Python<'py>,
        endpoint: &str,
        body: Option<&[u8]>,
        timeout: f64,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let body = Bytes::copy_from_slice(body.unwrap_or_default());
        match wait(py, self.stream.request(endpoint, body, patience(timeout)?))? {
            Ok(answer) => Ok(PyBytes::new(py, &answer)),
            Err(RequestError::Refused(words)) => {
                let words = String::from_utf8_lossy(&words).into_owned();
                let status: u16 = words.split(' ').next().and_then(|status| status.parse().ok()).unwrap_or(400);
                Err(Refused::new_err((status, words, None::<String>)))
            }
            Err(error @ RequestError::TooLong) => Err(SessionError::new_err(error.to_string())),
            Err(error) => Err(Unreachable::new_err(error.to_string())),
        }
    }

    /// Has `handler(body: bytes)` called when the node asks this endpoint, on a thread of ours; the bytes it returns are the
    /// answer, None is no answer, and an exception is told as an error.
    fn register_handler(&self, endpoint: String, handler: Py<PyAny>) {
        self.handlers.lock().unwrap_or_else(PoisonError::into_inner).insert(endpoint, handler);
    }

    /// Whether it still stands.
    #[getter]
    fn lives(&self) -> bool {
        self.connection.close_reason().is_none()
    }

    /// Ends it.
    fn close(&self) {
        self.connection.close(quic::code::GOODBYE, b"");
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.close();
        if let Ok(runtime) = runtime() {
            // The goodbye is sent by a task that needs a moment and the runtime.
            let endpoint = self._endpoint.clone();
            runtime.spawn(async move {
                let _ = timeout(std::time::Duration::from_secs(1), endpoint.wait_idle()).await;
            });
        }
    }
}

/// Answers what the node asks, one after the other and so in its order.
async fn answer(mut commands: mpsc::Receiver<Box<Command>>, handlers: Handlers) {
    while let Some(command) = commands.recv().await {
        let Command { endpoint, body, answer } = *command;
        let handlers = handlers.clone();
        // Python may take its time: not on a thread that moves packets.
        let answered = tokio::task::spawn_blocking(move || Python::attach(|py| ask(py, &handlers, &endpoint, &body)));
        match answered.await {
            Ok(Some(said)) => answer.give(said).await,
            Ok(None) => {}
            Err(_) => return,
        }
    }
}

/// What a handler says: an answer, an error, or nothing.
fn ask(py: Python<'_>, handlers: &Handlers, endpoint: &str, body: &[u8]) -> Option<Result<Bytes, Bytes>> {
    let handler = handlers.lock().unwrap_or_else(PoisonError::into_inner).get(endpoint).map(|one| one.clone_ref(py));
    let Some(handler) = handler else { return Some(Err(format!("Invalid endpoint '{endpoint}'").into())) };
    let said = handler.bind(py).call1((PyBytes::new(py, body),));
    let bytes = said.and_then(|said| if said.is_none() { Ok(None) } else { said.extract::<Vec<u8>>().map(Some) });
    match bytes {
        Ok(bytes) => bytes.map(|bytes| Ok(bytes.into())),
        Err(error) => {
            error.write_unraisable(py, None);
            Some(Err("An error occurred while processing the request".into()))
        }
    }
}
