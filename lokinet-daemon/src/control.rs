//! The control socket: JSON-RPC 2.0 over a Unix domain socket, a line each way. Who may connect is the socket's mode (0660:
//! owner and group); what changes the router is for root and the daemon's own user. There is no TCP listener, so no web page
//! can reach it. Neighbours: `control/answer` says what the calls return, `control/ask` is the other end.

pub mod answer;
pub mod ask;

use crate::trouble::{OrTrouble, Outcome, Trouble};
use lokinet_core::driver::Handle;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

/// Where the socket is unless `[api] socket` says otherwise.
pub const SOCKET: &str = "/run/lokinet/control.sock";
/// Most callers at once; more wait at the door.
const CALLERS_MAX: usize = 32;
/// Longest request line, in bytes.
const LINE_MAX: u64 = 64 << 10;
/// How long a caller may be silent, and how long an answer may take to be taken.
const PATIENCE: Duration = Duration::from_secs(60);
/// Pause after the system had no descriptor left for a caller.
const FULL_PAUSE: Duration = Duration::from_millis(200);

/// The listening socket; its file goes with it.
pub struct Door {
    listener: UnixListener,
    path: PathBuf,
    inode: u64,
}

impl Door {
    /// Listens at `path`; a socket left by a daemon that was killed is replaced.
    ///
    /// # Errors
    /// When another daemon answers there, or the place cannot be used.
    pub fn open(path: &Path) -> Outcome<Door> {
        if let Some(dir) = path.parent().filter(|dir| !dir.exists()) {
            fs::create_dir_all(dir).map_err(|error| cannot(dir, "cannot make the folder", &error))?;
        }
        if fs::symlink_metadata(path).is_ok_and(|facts| facts.file_type().is_socket()) {
            if std::os::unix::net::UnixStream::connect(path).is_ok() {
                return Err(Trouble::new(format!(
                    "[api] socket {} is in use: another lokinet runs here; stop it, or give this one its own socket",
                    path.display()
                )));
            }
            fs::remove_file(path).map_err(|error| cannot(path, "cannot replace the old socket", &error))?;
        }
        let listener = UnixListener::bind(path).map_err(|error| cannot(path, "cannot listen", &error))?;
        let mode = fs::Permissions::from_mode(0o660);
        fs::set_permissions(path, mode).map_err(|error| cannot(path, "cannot set the mode", &error))?;
        let inode = fs::metadata(path).or_trouble(|| format!("[api] socket {}", path.display()))?.ino();
        Ok(Door { listener, path: path.to_path_buf(), inode })
    }

    /// Answers callers until dropped. `halt` is rung when one who may asks the daemon to stop.
    pub async fn serve(self, node: Handle, halt: Arc<Notify>) {
        let desk = Arc::new(Desk { node, halt, began: Instant::now() });
        let room = Arc::new(Semaphore::new(CALLERS_MAX));
        while let Ok(seat) = room.clone().acquire_owned().await {
            match self.listener.accept().await {
                Ok((caller, _)) => {
                    let desk = desk.clone();
                    tokio::spawn(async move {
                        let _ = converse(caller, &desk).await;
                        drop(seat);
                    });
                }
                Err(_) => tokio::time::sleep(FULL_PAUSE).await,
            }
        }
    }
}

fn cannot(path: &Path, what: &str, error: &std::io::Error) -> Trouble {
    Trouble::new(format!(
        "[api] socket {}: {what} ({error}); choose another place, or set [api] enabled=false",
        path.display()
    ))
}

impl Drop for Door {
    fn drop(&mut self) {
        // Only our own: a daemon started since may have put its socket here.
        if fs::symlink_metadata(&self.path).is_ok_and(|facts| facts.ino() == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

struct Desk {
    node: Handle,
    halt: Arc<Notify>,
    began: Instant,
}

async fn converse(mut caller: UnixStream, desk: &Desk) -> std::io::Result<()> {
    let peer = caller.peer_cred()?.uid();
    let trusted = peer == 0 || peer == rustix::process::geteuid().as_raw();
    let (read, mut write) = caller.split();
    let mut read = BufReader::new(read);
    loop {
        let mut line = Vec::new();
        let mut limited = (&mut read).take(LINE_MAX);
        let taken = tokio::time::timeout(PATIENCE, limited.read_until(b'\n', &mut line)).await??;
        if taken == 0 {
            return Ok(());
        }
        let whole = line.ends_with(b"\n") || taken < LINE_MAX as usize;
        let mut answer = serde_json::to_vec(&reply(&line, trusted, desk).await)?;
        answer.push(b'\n');
        tokio::time::timeout(PATIENCE, write.write_all(&answer)).await??;
        if !whole {
            return Ok(()); // What follows is the rest of a line we did not read.
        }
    }
}

/// The reply to one line (JSON-RPC 2.0, chapters 4 and 5; no batches, no notifications).
async fn reply(line: &[u8], trusted: bool, desk: &Desk) -> Value {
    let Ok(request) = serde_json::from_slice::<Value>(line) else {
        return failed(&Value::Null, -32700, "not JSON, or a line longer than 64 KiB");
    };
    let id = request.get("id").cloned().unwrap_or(Value::Null);
    let Some(method) = request.get("method").and_then(Value::as_str) else {
        return failed(&id, -32600, "no method");
    };
    let Some(report) = desk.node.report().await else {
        return failed(&id, -32000, "the router is stopping");
    };
    let result = match method {
        "llarp.version" => answer::version(desk.began.elapsed()),
        "llarp.get_status" => answer::short_status(&report, desk.began.elapsed()),
        "llarp.status" => answer::status(&report, desk.began.elapsed()),
        "lokinet.paths" => answer::paths(&report),
        "llarp.halt" if trusted => {
            desk.halt.notify_one();
            json!("OK")
        }
        "llarp.halt" => return failed(&id, -32001, "only root and the daemon's own user may do that"),
        _ => {
            return failed(
                &id,
                -32601,
                "no such method; there are llarp.version, llarp.get_status, llarp.status, lokinet.paths, llarp.halt",
            );
        }
    };
    json!({ "jsonrpc": "2.0", "id": id, "result": result })
}

fn failed(id: &Value, code: i32, message: &str) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "error": { "code": code, "message": message } })
}
