//! Session in a lab: ten storage nodes as real processes beside relays, and what clients do with them, over HTTPS, over QUIC
//! and through the network. It plays every part by executing itself again: inside a node's namespace it is a client. Where
//! namespaces or TUN are refused, and where the nodes' program is not built, it says what it skips and why.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a lab fails by panicking, and speaks to who runs it")]
#![allow(clippy::disallowed_methods, reason = "a lab lives in real time")]

#[path = "session/client.rs"]
mod client;

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use lokinet_tests::lab::capture::{self, Seen};
use lokinet_tests::lab::{self, Lab, installed};

type Step = fn(&Lab);

/// Storage nodes.
const NODES: usize = 10;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().collect();
    if words.get(1).is_some_and(|word| word == "inside") {
        client::play(&words[2..]);
        return ExitCode::SUCCESS;
    }
    if let Some(code) = lab::part() {
        return code;
    }
    if words.iter().any(|word| word == "--list") {
        return ExitCode::SUCCESS; // Test runners ask; there is one lab and no list.
    }
    let own = std::env::current_exe().unwrap();
    let programs: PathBuf = own.parent().and_then(|deps| deps.parent()).unwrap().to_owned();
    if !programs.join("session-node").exists() || !programs.join("session-registry").exists() {
        println!("skipped: session-node is not in {} (cargo build -p session-stream --bins)", programs.display());
        return ExitCode::SUCCESS;
    }
    let lab = Lab::new("session");
    let count = NODES.to_string();
    let up = ["up", "--relays", "10", "--clients", "1", "--services", "0", "--session-nodes", &count];
    let up = lab.devnet(&up).arg("--session-programs").arg(&programs).output().unwrap();
    let complaint = String::from_utf8_lossy(&up.stderr);
    if complaint.contains("user namespaces are missing") || complaint.contains("/dev/net/tun") {
        println!("skipped: {}", complaint.lines().last().unwrap_or_default());
        return ExitCode::SUCCESS;
    }
    assert!(up.status.success(), "{complaint}");
    let steps: [(&str, Step); 6] = [
        ("calls over HTTPS", |lab| inside(lab, &["calls", "https"])),
        ("calls over QUIC", |lab| inside(lab, &["calls", "quic"])),
        ("watching", |lab| inside(lab, &["watch"])),
        ("a node is lost and returns", a_node_is_lost),
        ("a swarm divides and is one again", |lab| inside(lab, &["divide"])),
        ("through the network", through_the_network),
    ];
    for (name, step) in steps {
        let began = Instant::now();
        step(&lab);
        println!("lab: {name}: ok, {:.1} s", began.elapsed().as_secs_f64());
    }
    lab.verb(&["down"]);
    assert!(!lab.dir.exists(), "{} is left behind", lab.dir.display());
    ExitCode::SUCCESS
}

/// Plays a part inside the client's namespace; what it says is shown.
fn inside(lab: &Lab, words: &[&str]) {
    let own = std::env::current_exe().unwrap();
    let mut all = vec!["exec", "client1", "--", "timeout", "200", own.to_str().unwrap(), "inside"];
    all.extend(words);
    let output = lab.devnet(&all).output().unwrap();
    let (out, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    out.lines().for_each(|line| println!("lab:   {line}"));
    assert!(output.status.success(), "{words:?}: {}\n{errors}", output.status);
}

fn a_node_is_lost(lab: &Lab) {
    inside(lab, &["before-the-loss"]);
    lab.verb(&["kill", "session3"]);
    inside(lab, &["during-the-loss"]);
    lab.verb(&["start", "session3"]);
    inside(lab, &["after-the-loss"]);
}

/// A node is reached by its name, over at least three hops, and never sees who comes.
fn through_the_network(lab: &Lab) {
    let watching = installed("tcpdump").then(|| {
        let file = lab.folder("session1").join("wire.pcap");
        let path = file.to_str().unwrap();
        // At once: what waits for a full buffer is lost when it is ended.
        let words = ["tcpdump", "--immediate-mode", "-Z", "root", "-i", "eth0", "-s", "0", "-U", "-w", path];
        (lab.start("session1", &words, "listening on"), file)
    });
    let loki = lab.loki("session1");
    inside(lab, &["router", &loki]);
    let client = lab.status("client1");
    let paths = client["paths"].as_array().unwrap();
    assert!(!paths.is_empty() && paths.iter().all(|path| path["hops"].as_array().unwrap().len() >= 3), "{paths:?}");
    let Some((running, file)) = watching else {
        println!("lab:   what the node sees: skipped, tcpdump is not installed");
        return;
    };
    running.end();
    let address = |name: &str| client[name].as_str().and_then(|text| text.parse::<IpAddr>().ok());
    let whom = [address("address"), address("address6")];
    let seen = capture::read(&file);
    let client = |at: &IpAddr| whom.contains(&Some(*at));
    assert!(!seen.is_empty());
    let met = seen.iter().filter(|frame| matches!(frame, Seen::Udp { from, to, .. } if client(from) || client(to)));
    assert_eq!(met.count(), 0, "the node has seen the client");
    println!("lab:   the node saw {} frames, none from or to the client", seen.len());
}
