//! The lab of `lokinet devnet` itself: networks are raised, cut, killed and ended, and nothing may be left. This
//! program plays every part by executing itself again: devnet (`devnet …`), a stand-in for the daemon (`…
//! lokinet.ini`), an echo and who calls to it, and the lab. Its networks are relays only, so that just the bad wire
//! needs a TUN; where namespaces or that are refused it says so and is skipped.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a lab fails by panicking, and speaks to who runs it")]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::UdpSocket;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Output, Stdio};
use std::time::Duration;

use clap::{Parser, Subcommand};
use lokinet_core::driver::now;
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
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [_, "echo", at] => return echo(at),
        [_, "call", to, count] => return call(to, count.parse().unwrap()),
        _ => {}
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

/// Sends back what it hears.
fn echo(at: &str) -> ExitCode {
    let socket = UdpSocket::bind(at).unwrap();
    println!("listening");
    let mut heard = [0; 64];
    loop {
        let (length, from) = socket.recv_from(&mut heard).unwrap();
        let _ = socket.send_to(&heard[..length], from);
    }
}

/// Calls to an echo, each time as the last call has been answered or given up; prints how many were answered, and the least
/// microseconds an answer took.
fn call(to: &str, count: u8) -> ExitCode {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect(to).unwrap();
    socket.set_read_timeout(Some(CALL_PATIENCE)).unwrap();
    let mut least = Duration::MAX;
    let mut answered = 0;
    for number in 0..count {
        let began = now().mono;
        let _ = socket.send(&[number]);
        let mut heard = [0];
        // An answer that was given up may still come: it is not the one to this call.
        while socket.recv(&mut heard).is_ok() {
            if heard == [number] {
                answered += 1;
                least = least.min(now().mono.since(began));
                break;
            }
        }
    }
    println!("{answered} {}", least.as_micros());
    ExitCode::SUCCESS
}

/// How long an answer is waited for.
const CALL_PATIENCE: Duration = Duration::from_millis(300);

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

    fn status(&self, node: &str) -> serde_json::Value {
        let nodes: serde_json::Value = serde_json::from_str(&self.done(&["status", "--json"])).unwrap();
        nodes.as_array().unwrap().iter().find(|line| line["name"] == node).unwrap().clone()
    }

    fn state(&self, node: &str) -> String {
        self.status(node)["state"].as_str().unwrap().to_string()
    }

    /// Starts a part of this program in a node, and waits for its first line.
    fn part(&self, node: &str, words: &[&str]) -> Child {
        let exe = std::env::current_exe().unwrap();
        let mut all = vec!["exec", node, "--", exe.to_str().unwrap()];
        all.extend(words);
        let mut part = self.command(&all).stdout(Stdio::piped()).spawn().unwrap();
        BufReader::new(part.stdout.as_mut().unwrap()).read_line(&mut String::new()).unwrap();
        part
    }

    /// Calls from relay1 to relay2's echo: how many calls were answered, and the least time it took.
    fn call(&self, count: u8) -> (u8, Duration) {
        let exe = std::env::current_exe().unwrap();
        let said =
            self.done(&["exec", "relay1", "--", exe.to_str().unwrap(), "call", "10.2.0.1:7", &count.to_string()]);
        let (answered, least) = said.trim().split_once(' ').unwrap();
        (answered.parse().unwrap(), Duration::from_micros(least.parse().unwrap_or(u64::MAX)))
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
    a_bad_wire(&lab);
    println!("devnet: all scenarios ok");
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
    let mut server = lab.part("relay1", &["devnet", "__serve", "10.1.0.1:80", "--bytes", "100000"]);
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

fn a_bad_wire(lab: &Lab) {
    let raise = |net| lab.devnet(&["up", "--relays", "2", "--clients", "0", "--services", "0", "--net", net]);
    let refused = raise("latency=30");
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused.stderr).contains("latency=30 has no unit that fits; write it like latency=20ms"));

    let up = raise("latency=30ms,jitter=1ms,loss=10%,rate=100mbit,seed=7");
    let complaint = text(&up.stderr);
    if complaint.contains("/dev/net/tun") {
        println!("skipped, the bad wire: {}", complaint.trim());
        return;
    }
    assert!(up.status.success(), "{complaint}");
    let shown = "latency=30ms,jitter=1ms,loss=10%,rate=100mbit,queue=codel,seed=7";
    assert!(text(&up.stdout).contains(shown) && lab.done(&["status"]).contains(shown));
    assert_eq!(lab.status("relay1")["net"], shown);

    let init = lab.init();
    let mut echo = lab.part("relay2", &["echo", "10.2.0.1:7"]);
    let (answered, least) = lab.call(60);
    // A fifth of the calls is lost: one in ten on the way there, one in ten on the way back.
    assert!((20..60).contains(&answered), "{answered} of 60 answered");
    assert!(least >= Duration::from_millis(58), "twice the latency less the jitter: {least:?}");
    let before = lab.status("relay1")["wire"].clone();
    assert!(before["lost"].as_u64() > Some(0) && before["sent"].as_u64() > before["lost"].as_u64(), "{before}");

    lab.done(&["partition", "relay2"]);
    assert_eq!(lab.state("relay2"), "ready, cut off");
    assert_eq!(lab.call(5).0, 0, "no wire, no answer");
    assert!(lab.status("relay1")["wire"]["cut"].as_u64() > Some(0));
    lab.done(&["heal", "relay2"]);
    assert!(lab.call(20).0 > 0);
    lab.done(&["down"]);
    assert!(echo.wait().is_ok());
    lab.nothing_is_left(&init);
}
