//! Session's storage network for Python, for test suites and bots: [`client`] stores, retrieves and watches, [`stream`]
//! speaks raw BT request streams with any node. Calls block, without holding the interpreter's lock; what can fail
//! raises `SessionError` or one of its two kinds. Neighbours: `session_stream` does the work, `session_stream.pyi` has
//! the types.

mod client;
mod stream;

use std::future::Future;
use std::sync::OnceLock;

use pyo3::create_exception;
use pyo3::exceptions::{PyException, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use session_stream::client::ClientError;
use tokio::runtime::{Builder, Runtime};

create_exception!(session_stream, SessionError, PyException, "Something of the storage network failed.");
create_exception!(session_stream, Unreachable, SessionError, "No node could be reached, or none answered in time.");
create_exception!(
    session_stream,
    Refused,
    SessionError,
    "A node says no: `args` are its status, its words, and what it says besides, as JSON text or None."
);

/// Threads that move packets, whatever Python's threads do meanwhile.
const THREADS: usize = 2;

/// One runtime for the whole process, made when it is first needed.
fn runtime() -> PyResult<&'static Runtime> {
    static RUNTIME: OnceLock<Result<Runtime, String>> = OnceLock::new();
    let make = || Builder::new_multi_thread().worker_threads(THREADS).enable_all().build().map_err(|e| e.to_string());
    RUNTIME.get_or_init(make).as_ref().map_err(|error| PyRuntimeError::new_err(format!("no threads: {error}")))
}

/// Waits for `work` while other Python threads run. Ctrl-C is heard when it is over.
fn wait<F>(py: Python<'_>, work: F) -> PyResult<F::Output>
where
    F: Future + Send,
    F::Output: Send,
{
    let runtime = runtime()?;
    Ok(py.detach(|| runtime.block_on(work)))
}

/// A client's error as Python's.
fn failed(error: ClientError) -> PyErr {
    match error {
        ClientError::Refused { status, words, body } => {
            Refused::new_err((status, words, (!body.is_null()).then(|| body.to_string())))
        }
        ClientError::Unreachable(_) => Unreachable::new_err(error.to_string()),
        ClientError::Senseless(_) => SessionError::new_err(error.to_string()),
    }
}

/// Bytes of a fixed length from hexadecimal.
fn hex<const N: usize>(what: &str, text: &str) -> PyResult<[u8; N]> {
    let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok());
    bytes.ok_or_else(|| PyValueError::new_err(format!("{what}: {} hexadecimal digits are needed", 2 * N)))
}

/// A seed, as bytes.
fn seed(bytes: &[u8]) -> PyResult<zeroize::Zeroizing<[u8; 32]>> {
    let seed = bytes.try_into().map_err(|_| PyValueError::new_err("seed: 32 bytes are needed"))?;
    Ok(zeroize::Zeroizing::new(seed))
}

/// A patience in seconds.
fn patience(seconds: f64) -> PyResult<std::time::Duration> {
    std::time::Duration::try_from_secs_f64(seconds)
        .map_err(|_| PyValueError::new_err("a time is a number of seconds, not negative and not endless"))
}

#[pymodule]
#[pyo3(name = "session_stream")]
fn define(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    module.add("SessionError", py.get_type::<SessionError>())?;
    module.add("Unreachable", py.get_type::<Unreachable>())?;
    module.add("Refused", py.get_type::<Refused>())?;
    module.add_class::<client::Client>()?;
    module.add_class::<client::Owner>()?;
    module.add_class::<client::Message>()?;
    module.add_class::<client::Watch>()?;
    module.add_class::<stream::Connection>()?;
    module.add_function(wrap_pyfunction!(stream::connect, module)?)
}
