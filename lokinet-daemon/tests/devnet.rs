//! The lab of `lokinet devnet` itself: networks are raised, cut, killed and ended, and nothing may be left. This program plays
//! every part by executing itself again: devnet (`devnet …`), a stand-in for the daemon (`… lokinet.ini`), and the lab.
//! It needs no TUN, since its networks are relays only; where namespaces are refused it says so and is skipped.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a lab fails by panicking, and speaks to who runs it")]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output, Stdio};

use clap::{Parser, Subcommand};
use lokinet_daemon::devnet::{DevnetArgs, run};

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Devnet(DevnetArgs),
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().collect();
    if words.get(1).is_some_and(|word| word == "devnet") {
        let Verb::Devnet(args) = Cli::parse().verb;
        return run(args);
    }
    if words.iter().any(|word| word == "--list") {
        return ExitCode::SUCCESS; // Test runners ask; there is one lab and no list.
    }
    match words.last().filter(|word| word.ends_with("/lokinet.ini")) {
        Some(ini) => stand_in(Path::new(ini)),
        None => lab(),
    }
}

/// Says it is ready, unless told to be silent or to die.
fn stand_in(ini: &Path) -> ExitCode {
    println!("the stand-in reads {}", ini.display());
    match std::env::var("STAND_IN").as_deref() {
        Ok("silent") => loop {
            std::thread::park();
        },
        Ok("dies") if ini.ends_with("relay2/lokinet.ini") => return ExitCode::from(3),
        _ => {}
    }
    let text = fs::read_to_string(ini).unwrap();
    let socket = text.lines().find_map(|line| line.strip_prefix("socket=")).unwrap();
    for mut caller in UnixListener::bind(socket).unwrap().incoming().flatten() {
        let _ = BufReader::new(&caller).read_line(&mut String::new());
        let _ = writeln!(caller, r#"{{"jsonrpc":"2.0","id":1,"result":{{"ready":true}}}}"#);
    }
    ExitCode::SUCCESS
}

struct Lab {
    dir: PathBuf,
}

impl Lab {
    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["devnet", "--dir"]).arg(&self.dir).args(words).stdin(Stdio::null());
        command
    }

    fn devnet(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    fn done(&self, words: &[&str]) -> String {
        let output = self.devnet(words);
        assert!(output.status.success(), "{words:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    fn state(&self, node: &str) -> String {
        let nodes: serde_json::Value = serde_json::from_str(&self.done(&["status", "--json"])).unwrap();
        let node = nodes.as_array().unwrap().iter().find(|line| line["name"] == node).unwrap();
        node["state"].as_str().unwrap().to_string()
    }

    /// The init's folder in /proc.
    fn init(&self) -> PathBuf {
        let state: serde_json::Value = serde_json::from_slice(&fs::read(self.dir.join("state.json")).unwrap()).unwrap();
        Path::new("/proc").join(state["init"]["pid"].to_string())
    }

    fn nothing_is_left(&self, init: &Path) {
        assert!(!self.dir.exists(), "{} is left", self.dir.display());
        let command = fs::read(init.join("cmdline")).unwrap_or_default();
        assert!(!text(&command).contains("__init"), "the init is left");
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // A failed assertion leaves nothing running either.
        let _ = self.command(&["down"]).output();
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn lab() -> ExitCode {
    let lab = Lab { dir: std::env::temp_dir().join(format!("devnet-lab-{}", std::process::id())) };
    let up = lab.devnet(&["up", "--relays", "3", "--clients", "0", "--services", "0"]);
    let complaint = text(&up.stderr);
    if complaint.contains("user namespaces are missing") {
        println!("skipped: {}", complaint.trim());
        return ExitCode::SUCCESS;
    }
    assert!(up.status.success(), "{complaint}");
    assert!(text(&up.stdout).contains("relay3"), "up prints the names");
    a_running_network(&lab);
    a_dying_node(&lab);
    a_killed_devnet(&lab);
    println!("devnet: 3 scenarios ok");
    ExitCode::SUCCESS
}

fn a_running_network(lab: &Lab) {
    let init = lab.init();
    // Each node has its own stack, mounts and addresses; the exit code is the command's own.
    let see = "cat /etc/resolv.conf /proc/net/fib_trie; echo run:; ls -A /run; exit 7";
    let inside = lab.devnet(&["exec", "relay2", "--", "sh", "-c", see]);
    assert_eq!(inside.status.code(), Some(7), "{}", text(&inside.stderr));
    let seen = text(&inside.stdout);
    assert!(seen.starts_with("nameserver 127.3.2.1\n") && seen.contains("10.2.0.1") && !seen.contains("10.1.0.1"));
    assert!(seen.ends_with("run:\n"), "its /run is empty: {seen}");

    let exe = std::env::current_exe().unwrap();
    let exe = exe.to_str().unwrap();
    let serve = ["exec", "relay1", "--", exe, "devnet", "__serve", "10.1.0.1:80", "--bytes", "100000"];
    let mut server = lab.command(&serve).stdout(Stdio::piped()).spawn().unwrap();
    BufReader::new(server.stdout.as_mut().unwrap()).read_line(&mut String::new()).unwrap();
    let fetch = ["exec", "relay3", "--", exe, "devnet", "__fetch", "http://10.1.0.1/file"];
    assert_eq!(lab.done(&fetch).len(), 100_000, "relays reach each other over the wire");
    lab.done(&["partition", "relay3"]);
    assert_eq!(lab.state("relay3"), "ready, cut off");
    assert!(!lab.devnet(&fetch).status.success(), "no wire, no bytes");
    lab.done(&["heal", "relay3"]);
    assert_eq!(lab.done(&fetch).len(), 100_000);

    lab.done(&["kill", "relay2"]);
    assert_eq!(lab.state("relay2"), "ended, signal 9");
    lab.done(&["start", "relay2"]);
    assert!(!lab.state("relay2").starts_with("ended"));

    let second = lab.devnet(&["up"]);
    assert!(!second.status.success() && text(&second.stderr).contains("a network is up"));
    lab.done(&["down"]);
    assert!(server.wait().is_ok(), "what exec started ended with the network");
    lab.nothing_is_left(&init);
}

fn a_dying_node(lab: &Lab) {
    let up = ["up", "--relays", "2", "--clients", "0", "--services", "0"];
    let output = lab.command(&up).env("STAND_IN", "dies").output().unwrap();
    let complaint = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        complaint.contains("relay2 has ended (exit code 3)") && complaint.contains("nodes/relay2/log"),
        "{complaint}"
    );
    assert!(complaint.contains("the stand-in reads"), "its last words are shown: {complaint}");
    let init = lab.init();
    lab.done(&["down"]);
    lab.nothing_is_left(&init);
}

fn a_killed_devnet(lab: &Lab) {
    let up = ["up", "--relays", "2", "--clients", "0", "--services", "0"];
    let mut command = lab.command(&up);
    let mut up = command.env("STAND_IN", "silent").stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(up.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("waiting for relay1, relay2")), "a wait says what it waits for");
    let init = lab.init();
    up.kill().unwrap();
    up.wait().unwrap();
    lab.done(&["down"]);
    lab.nothing_is_left(&init);
}
