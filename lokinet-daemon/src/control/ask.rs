//! Asking a running router at its control socket. Neighbours: `view` prints the answers, devnet waits for them.

use serde_json::{Value, json};
use std::io;
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

/// How long a router may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// The longest answer we read.
const ANSWER_MAX: u64 = 8 << 20;

/// Asks one method and gives back its result.
///
/// # Errors
/// When nobody answers there, or with something else than a result.
pub async fn ask(socket: &Path, method: &str) -> io::Result<Value> {
    let exchange = async {
        let mut stream = UnixStream::connect(socket).await?;
        let line = format!("{}\n", json!({ "jsonrpc": "2.0", "id": 1, "method": method }));
        stream.write_all(line.as_bytes()).await?;
        let mut answer = String::new();
        BufReader::new(stream.take(ANSWER_MAX)).read_line(&mut answer).await?;
        let mut answer: Value = serde_json::from_str(&answer)?;
        match answer.get_mut("result").map(Value::take) {
            Some(result) => Ok(result),
            None => Err(io::Error::other(answer["error"]["message"].as_str().unwrap_or("no result").to_owned())),
        }
    };
    tokio::time::timeout(PATIENCE, exchange).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}
