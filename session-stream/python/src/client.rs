//! `Client`, `Owner`, `Message` and `Watch`: the calls of `session_stream::client`, one for one. Neighbours: `lib`
//! (errors and waiting), `stream` (everything below the calls).

use std::sync::{Arc, Mutex, PoisonError};

use data_encoding::HEXLOWER;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use session_stream::client::{self, Recipient, Route, Target};
use tokio::time::timeout;

use crate::{SessionError, failed, hex, patience, runtime, seed, wait};

/// An account and its secret.
#[pyclass(frozen)]
pub struct Owner(Arc<client::Owner>);

#[pymethods]
impl Owner {
    /// The Session id (05…) of a 32-byte seed.
    #[staticmethod]
    #[pyo3(name = "session")]
    fn of_session(bytes: &[u8]) -> PyResult<Owner> {
        Ok(Owner(Arc::new(client::Owner::session(&*seed(bytes)?))))
    }

    /// The group (03…) of a 32-byte seed.
    #[staticmethod]
    #[pyo3(name = "group")]
    fn of_group(bytes: &[u8]) -> PyResult<Owner> {
        Ok(Owner(Arc::new(client::Owner::group(&*seed(bytes)?))))
    }

    /// 66 hexadecimal digits.
    #[getter]
    fn account(&self) -> String {
        self.0.account().hex()
    }

    /// The Ed25519 key behind a Session id, in hexadecimal; None for a group, whose account says it.
    #[getter]
    fn ed25519(&self) -> Option<String> {
        self.0.ed25519().map(|key| HEXLOWER.encode(&key))
    }

    /// Signs a text: 64 bytes.
    fn sign<'py>(&self, py: Python<'py>, text: &str) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.sign(text))
    }

    fn __repr__(&self) -> String {
        format!("Owner({})", self.account())
    }
}

/// A message in a mailbox.
#[pyclass(frozen, get_all)]
pub struct Message {
    /// Where.
    namespace: i16,
    /// Its name.
    hash: String,
    /// When it was sent, as its sender says: milliseconds since 1970.
    timestamp: u64,
    /// When it is thrown away.
    expiry: u64,
    data: Py<PyBytes>,
}

#[pymethods]
impl Message {
    fn __repr__(&self, py: Python<'_>) -> String {
        let bytes = self.data.bind(py).as_bytes().len();
        format!("Message({} in {}, {bytes} bytes)", self.hash, self.namespace)
    }
}

fn message(py: Python<'_>, message: client::Message) -> Message {
    let client::Message { namespace, hash, timestamp, expiry, data } = message;
    Message { namespace, hash, timestamp, expiry, data: PyBytes::new(py, &data).unbind() }
}

/// A client of the storage network.
#[pyclass(frozen)]
pub struct Client(client::Client);

#[pymethods]
impl Client {
    /// `seeds` are nodes to begin with: (Ed25519 key in hexadecimal, host, UDP port). With `router`, the members of swarms
    /// are reached by their `.snode` names, through the router of this host.
    #[new]
    #[pyo3(signature = (seeds, router = false))]
    fn new(seeds: Vec<(String, String, u16)>, router: bool) -> PyResult<Client> {
        let target =
            |(key, host, port): (String, String, u16)| Ok(Target { key: hex("seed's key", &key)?, host, port });
        let seeds = seeds.into_iter().map(target).collect::<PyResult<_>>()?;
        let route = if router { Route::Router } else { Route::Address };
        let _in_runtime = runtime()?.enter();
        Ok(Client(client::Client::new(seeds, route)?))
    }

    /// Stores a message in an owner's mailbox, signed, or in the public inbox of an account given as 66 hexadecimal digits.
    /// Returns the message's hash and how many members of the swarm have it.
    #[pyo3(signature = (to, data, namespace = 0, ttl = 86_400.0))]
    fn store(
        &self,
        py: Python<'_>,
        to: &Bound<'_, PyAny>,
        data: &[u8],
        namespace: i16,
        ttl: f64,
    ) -> PyResult<(String, usize)> {
        let owner = to.cast::<Owner>().ok().map(|owner| owner.get().0.clone());
        let recipient = match &owner {
            Some(owner) => Recipient::Owner(owner),
            None => Recipient::Anybody(hex("account", &to.extract::<String>()?)?),
        };
        let stored = wait(py, self.0.store(&recipient, namespace, data, patience(ttl)?))?.map_err(failed)?;
        Ok((stored.hash, stored.members))
    }

    /// A page of a mailbox behind the message named `after`, and whether there is more behind it.
    #[pyo3(signature = (owner, namespace = 0, after = None))]
    fn retrieve(
        &self,
        py: Python<'_>,
        owner: &Owner,
        namespace: i16,
        after: Option<&str>,
    ) -> PyResult<(Vec<Message>, bool)> {
        let page = wait(py, self.0.retrieve(&owner.0, namespace, after))?.map_err(failed)?;
        Ok((page.messages.into_iter().map(|one| message(py, one)).collect(), page.more))
    }

    /// Everything behind the message named `after`.
    #[pyo3(signature = (owner, namespace = 0, after = None))]
    fn retrieve_all(
        &self,
        py: Python<'_>,
        owner: &Owner,
        namespace: i16,
        after: Option<&str>,
    ) -> PyResult<Vec<Message>> {
        let all = wait(py, self.0.retrieve_all(&owner.0, namespace, after))?.map_err(failed)?;
        Ok(all.into_iter().map(|one| message(py, one)).collect())
    }

    /// Calls any method of the storage RPC at a member of the account's swarm. Parameters and answer are JSON text: what
    /// must be signed, sign with `Owner.sign`.
    fn call(&self, py: Python<'_>, account: &str, method: &str, params: &str) -> PyResult<String> {
        let params = serde_json::from_str(params)
            .map_err(|error| pyo3::exceptions::PyValueError::new_err(format!("params: {error}")))?;
        let answer = wait(py, self.0.ask(&hex("account", account)?, method, &params))?.map_err(failed)?;
        Ok(answer.to_string())
    }

    /// Subscribes to an owner's namespaces at every member of the swarm: what comes is told once, and what came while no
    /// member could be heard is fetched.
    fn watch(&self, owner: &Owner, namespaces: Vec<i16>) -> PyResult<Watch> {
        let _in_runtime = runtime()?.enter();
        Ok(Watch(Mutex::new(Some(self.0.watch(&owner.0, &namespaces)))))
    }
}

/// A running subscription: `for message in watch`, or `watch.next(timeout)`.
#[pyclass(frozen)]
pub struct Watch(Mutex<Option<client::Watch>>);

#[pymethods]
impl Watch {
    /// The next message; None when none came in `timeout` seconds. Without one, waits for as long as it takes.
    #[pyo3(signature = (timeout = None))]
    fn next(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Option<Message>> {
        Ok(self.event(py, timeout, false)?.flatten())
    }

    /// Waits until the first member of the swarm has taken the subscription; False when none has in `timeout` seconds.
    #[pyo3(signature = (timeout = 10.0))]
    fn subscribed(&self, py: Python<'_>, timeout: f64) -> PyResult<bool> {
        Ok(self.event(py, Some(timeout), true)?.is_some())
    }

    /// Ends it.
    fn close(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    fn __iter__(this: Py<Self>) -> Py<Self> {
        this
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<Message>> {
        self.next(py, None)
    }
}

impl Watch {
    /// The next message, or with `subscription` the next word of a member that it has subscribed us (then there is none).
    /// Waits in short turns, so that Ctrl-C is heard.
    fn event(
        &self,
        py: Python<'_>,
        patience_for: Option<f64>,
        subscription: bool,
    ) -> PyResult<Option<Option<Message>>> {
        let until = patience_for.map(patience).transpose()?.map(|patience| tokio::time::Instant::now() + patience);
        let runtime = runtime()?;
        loop {
            let turn = tokio::time::Instant::now() + std::time::Duration::from_millis(200);
            let turn = until.map_or(turn, |until| turn.min(until));
            // Two Python threads may ask the same watch: one waits for the other, without the interpreter's lock.
            let event = py.detach(|| {
                let mut watch = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                let watch = watch.as_mut()?;
                let left = turn.saturating_duration_since(tokio::time::Instant::now());
                Some(runtime.block_on(async { timeout(left, watch.event()).await }))
            });
            match event {
                None | Some(Ok(None)) => return Ok(None),
                Some(Ok(Some(client::watch::Event::Subscribed))) if subscription => return Ok(Some(None)),
                Some(Ok(Some(client::watch::Event::Subscribed))) => {}
                Some(Ok(Some(client::watch::Event::Message(one)))) => return Ok(Some(Some(message(py, one)))),
                Some(Ok(Some(client::watch::Event::Refused(words)))) => {
                    return Err(SessionError::new_err(format!("the subscription was refused: {words}")));
                }
                Some(Err(_)) => {
                    py.check_signals()?;
                    if until.is_some_and(|until| tokio::time::Instant::now() >= until) {
                        return Ok(None);
                    }
                }
            }
        }
    }
}
