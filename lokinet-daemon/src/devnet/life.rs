//! A network's life seen from outside: is it there, ask it something, end it. Everything hangs on one process, the
//! init, known by its number and the time it began.

use std::fs::{self, File};
use std::path::Path;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use super::init::{Reply, Request};
use super::namespace::Held;
use super::plan::{Init, Plan};
use super::screen::Screen;
use crate::trouble::{OrTrouble, Outcome, Trouble};

/// How long the kernel may take to end everyone.
const END_MILLIS: i32 = 10_000;

/// The process of this number, as it can be recognised later.
pub fn look(pid: u32) -> Option<Init> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything; the start is the 22nd field, the 20th after it.
    let (_, fields) = stat.rsplit_once(')')?;
    let start_time = fields.split_whitespace().nth(19)?.parse().ok()?;
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim().to_string();
    Some(Init { pid, start_time, boot })
}

/// Takes hold of the init, if it is still the same process.
fn held(plan: &Plan) -> Option<Held> {
    let init = plan.init.as_ref()?;
    let held = Held::new(init.pid)?;
    // Looked at while held: the number cannot have changed hands in between.
    let now = look(init.pid)?;
    (now.start_time == init.start_time && now.boot == init.boot).then_some(held)
}

/// Whether the network runs.
pub fn is_up(plan: &Plan) -> bool {
    held(plan).is_some()
}

/// The running network in `dir`, or a word on how to make one.
pub fn running(dir: &Path) -> Outcome<Plan> {
    match Plan::load(dir)? {
        Some(plan) if is_up(&plan) => Ok(plan),
        Some(_) => Err(Trouble::new(format!(
            "the network in {} is no longer running; clear it with `lokinet devnet down`, or make a new one with \
             `lokinet devnet up`",
            dir.display()
        ))),
        None => {
            Err(Trouble::new(format!("there is no network in {}; make one with `lokinet devnet up`", dir.display())))
        }
    }
}

/// One verb at a time in a folder; held until dropped.
pub fn lock(dir: &Path) -> Outcome<File> {
    let path = dir.join("lock");
    let file = File::create(&path).or_trouble(|| format!("cannot write {}", path.display()))?;
    let busy = || format!("another devnet command is at work in {} (wait for it, or use another --dir)", dir.display());
    file.try_lock().map_err(|_| Trouble::new(busy()))?;
    Ok(file)
}

/// The same, for a verb that rather waits; it says so.
pub fn lock_patiently(dir: &Path, screen: &Screen) -> Outcome<File> {
    if let Ok(file) = lock(dir) {
        return Ok(file);
    }
    screen.progress(format_args!("waiting for the other devnet command in {}", dir.display()));
    let path = dir.join("lock");
    let file = File::create(&path).or_trouble(|| format!("cannot write {}", path.display()))?;
    file.lock().or_trouble(|| format!("cannot lock {}", path.display()))?;
    Ok(file)
}

/// Asks the init.
pub async fn ask(plan: &Plan, request: &Request) -> Outcome<Reply> {
    let exchange = async {
        let mut stream = UnixStream::connect(plan.init_socket()).await?;
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        stream.write_all(&line).await?;
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).await?;
        Ok::<Reply, std::io::Error>(serde_json::from_str(&answer)?)
    };
    let reply =
        exchange.await.or_trouble(|| format!("the network does not answer at {}", plan.init_socket().display()))?;
    match reply.error {
        Some(error) => Err(Trouble::new(error)),
        None => Ok(reply),
    }
}

/// Ends everyone; true when someone was there to end.
pub fn end(plan: &Plan) -> Outcome<bool> {
    let Some(init) = held(plan) else { return Ok(false) };
    let gone = init.end(END_MILLIS).or_trouble(|| "cannot end the network".into())?;
    if gone {
        Ok(true)
    } else {
        Err(Trouble::new("the network is still ending after 10 s; try `lokinet devnet down` again"))
    }
}

/// Removes what devnet has written in `dir`.
pub fn clear(dir: &Path) -> Outcome<()> {
    let nodes = dir.join("nodes");
    if nodes.exists() {
        fs::remove_dir_all(&nodes).or_trouble(|| format!("cannot remove {}", nodes.display()))?;
    }
    for name in ["registry.signed", "authority.key", "devnet.sock", "init.log", "state.json.new", "state.json"] {
        let _ = fs::remove_file(dir.join(name));
    }
    Ok(())
}

/// Removes the last of it, and `dir` itself when nothing of the user's is in it.
pub fn leave(dir: &Path, lock: File) {
    let _ = fs::remove_file(dir.join("lock"));
    let _ = fs::remove_dir(dir);
    drop(lock);
}

/// The daemon's number on the host, found by its number inside: `NSpid` lists both, and the PID namespace is the init's.
pub fn host_pid(plan: &Plan, inside: u32) -> Option<u32> {
    let init = plan.init.as_ref()?;
    let world = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/pid_for_children")).ok();
    let ours = world(init.pid)?;
    let inside = inside.to_string();
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let status = fs::read_to_string(entry.path().join("status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
        (line.split_whitespace().last() == Some(inside.as_str()) && world(pid)? == ours).then_some(pid)
    })
}
