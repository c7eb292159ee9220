//! Labs: real daemons on real TUN devices and real sockets, in the namespaces of `lokinet devnet`. A lab's test program plays
//! every part by executing itself again (`part`), so that nothing has to be installed or found. Neighbours: `capture` reads
//! what passed on the wires, `mumble` speaks to a voice server, `storm` does harm; the steps stand in `tests/lab.rs` and
//! `tests/storm.rs`.

pub mod capture;
pub mod mumble;
pub mod storm;
pub mod stranger;

use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Output, Stdio};

/// How long one command may take, in seconds.
const PATIENCE: &str = "60";

/// Plays the part this process was executed for: devnet, a node's daemon, or a helper inside a node; `None` when it is the
/// lab itself. Call it first in `main`.
pub fn part() -> Option<ExitCode> {
    let words: Vec<String> = std::env::args().collect();
    let first = words.get(1).map(String::as_str);
    if first == Some("mumble-ping") {
        return Some(mumble::ping(words.get(2).map_or("", String::as_str)));
    }
    if first == Some("storm") {
        return Some(storm::rage(words.get(2..).unwrap_or_default()));
    }
    let daemon = words.last().is_some_and(|word| word.ends_with(".ini"));
    let verbs = ["devnet", "status", "paths", "check"];
    (daemon || first.is_some_and(|word| verbs.contains(&word))).then(lokinet_daemon::cli::main)
}

/// Whether a program is installed here.
pub fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(more).any(|dir| dir.join(program).is_file())
}

/// A network, taken down when dropped.
pub struct Lab {
    /// Its state.
    pub dir: PathBuf,
}

impl Lab {
    /// A place for a network; nothing runs yet.
    pub fn new(name: &str) -> Lab {
        Lab { dir: std::env::temp_dir().join(format!("lokinet-lab-{name}-{}", std::process::id())) }
    }

    fn own() -> PathBuf {
        std::env::current_exe().unwrap_or_else(|_| "/proc/self/exe".into())
    }

    /// `lokinet devnet` with these words.
    pub fn devnet(&self, words: &[&str]) -> Command {
        let mut command = Command::new(Lab::own());
        command.args(["devnet", "--dir"]).arg(&self.dir).args(words).stdin(Stdio::null());
        command
    }

    /// Runs a devnet verb that must succeed; its standard output.
    pub fn verb(&self, words: &[&str]) -> String {
        succeed(&format!("devnet {}", words.join(" ")), &mut self.devnet(words))
    }

    /// A command inside a node.
    pub fn inside(&self, node: &str, words: &[&str]) -> Command {
        let mut all = vec!["exec", node, "--", "timeout", PATIENCE];
        all.extend(words);
        self.devnet(&all)
    }

    /// Runs a command inside a node that must succeed; its standard output.
    pub fn run(&self, node: &str, words: &[&str]) -> String {
        succeed(&format!("{node}$ {}", words.join(" ")), &mut self.inside(node, words))
    }

    /// Runs this program inside a node.
    pub fn own_run(&self, node: &str, words: &[&str]) -> Output {
        let own = Lab::own();
        let mut all = vec![own.to_str().unwrap_or_default()];
        all.extend(words);
        self.inside(node, &all).output().expect("this program starts")
    }

    /// Starts a command inside a node and waits for a line that contains `sign`, on either of its outputs.
    pub fn start(&self, node: &str, words: &[&str], sign: &str) -> Running {
        let mut all = vec!["exec", node, "--"];
        all.extend(words);
        let mut child =
            self.devnet(&all).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("this program starts");
        let (sender, lines) = std::sync::mpsc::sync_channel(256);
        let outputs: [Option<Box<dyn std::io::Read + Send>>; 2] =
            [child.stdout.take().map(|out| Box::new(out) as _), child.stderr.take().map(|out| Box::new(out) as _)];
        for output in outputs.into_iter().flatten() {
            let sender = sender.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    let _ = sender.try_send(line);
                }
            });
        }
        drop(sender);
        let running = Running(child);
        let mut said = Vec::new();
        loop {
            match lines.recv_timeout(std::time::Duration::from_secs(30)) {
                Ok(line) if line.contains(sign) => return running,
                Ok(line) => said.push(line),
                Err(_) => panic!("{node}$ {}: never said {sign:?}, but {said:?}", words.join(" ")),
            }
        }
    }

    /// Starts devnet's small HTTP server in a node.
    pub fn serve(&self, node: &str, address: &str, bytes: u64) -> Running {
        let own = Lab::own();
        let own = own.to_str().unwrap_or_default();
        self.start(node, &[own, "devnet", "__serve", address, "--bytes", &bytes.to_string()], "listening")
    }

    /// What a node says of itself.
    pub fn status(&self, node: &str) -> Value {
        let all: Value = serde_json::from_str(&self.verb(&["status", "--json"])).expect("status prints JSON");
        let of = all.as_array().and_then(|all| all.iter().find(|line| line["name"] == node));
        of.cloned().unwrap_or_else(|| panic!("no node {node} in {all}"))
    }

    /// A node's `.loki` address.
    pub fn loki(&self, node: &str) -> String {
        self.status(node)["loki"].as_str().unwrap_or_else(|| panic!("{node} has no address")).to_owned()
    }

    /// The address of a node's TUN device, of either family.
    pub fn tun(&self, node: &str, v6: bool) -> IpAddr {
        let kind = if v6 { "AAAA" } else { "A" };
        let answer = self.run(node, &["dig", "@127.3.2.1", "+short", "-t", kind, "localhost.loki"]);
        let last = answer.lines().last().unwrap_or_default();
        last.parse().unwrap_or_else(|_| panic!("localhost.loki {kind} at {node}: {answer:?}"))
    }

    /// A node's folder.
    pub fn folder(&self, node: &str) -> PathBuf {
        self.dir.join("nodes").join(node)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // A failed assertion leaves nothing running either; its logs are shown, since they go with the network.
        if std::thread::panicking() {
            show_logs(&self.dir);
        }
        let _ = self.devnet(&["down"]).output();
    }
}

#[allow(clippy::print_stdout, reason = "a lab speaks to who runs it")]
fn show_logs(dir: &Path) {
    for entry in std::fs::read_dir(dir.join("nodes")).into_iter().flatten().flatten() {
        let text = std::fs::read_to_string(entry.path().join("log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        println!("---- {}", entry.path().display());
        for line in lines.iter().skip(lines.len().saturating_sub(20)) {
            println!("{line}");
        }
    }
}

/// A command that runs until dropped.
pub struct Running(Child);

impl Running {
    /// Ends it politely, and waits.
    pub fn end(mut self) {
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn succeed(what: &str, command: &mut Command) -> String {
    let output = command.output().expect("this program starts");
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{what}: {}\n{out}{errors}", output.status);
    out
}
