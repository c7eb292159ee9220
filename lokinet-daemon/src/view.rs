//! `lokinet status` and `lokinet paths`: a running router as its owner sees it, in words or in JSON. Neighbours:
//! `control/ask` brings the answers, `control/answer` has made them.

use crate::control::ask::ask;
use crate::trouble::{OrTrouble, Outcome, Trouble};
use serde_json::Value;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::Path;

/// Prints how the router is.
///
/// # Errors
/// When none answers.
pub fn status(socket: &Path, json: bool) -> Outcome<()> {
    show(socket, "llarp.status", json, status_text)
}

/// Prints the router's paths.
///
/// # Errors
/// When none answers.
pub fn paths(socket: &Path, json: bool) -> Outcome<()> {
    show(socket, "lokinet.paths", json, |paths| {
        let text = paths_text(paths);
        if text.is_empty() { "no path yet\n".into() } else { text }
    })
}

fn show(socket: &Path, method: &str, json: bool, text: impl Fn(&Value) -> String) -> Outcome<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let asked = runtime.or_trouble(|| "cannot start the runtime".into())?.block_on(ask(socket, method));
    let answer = asked.map_err(|error| no_answer(socket, &error))?;
    let out = if json {
        serde_json::to_string_pretty(&answer).or_trouble(|| "cannot write JSON".into())? + "\n"
    } else {
        text(&answer)
    };
    // A reader that closed the pipe has what it wanted.
    let _ = io::stdout().write_all(out.as_bytes());
    Ok(())
}

fn no_answer(socket: &Path, error: &io::Error) -> Trouble {
    let place = socket.display();
    Trouble::new(match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            format!("no lokinet runs here (nobody answers at {place}); start it, or name its socket with --socket")
        }
        io::ErrorKind::PermissionDenied => {
            format!("{place} is not for you: run this as root, or join the socket's group")
        }
        _ => format!("{place}: {error}"),
    })
}

fn status_text(status: &Value) -> String {
    let mut text = String::new();
    let number = |name: &str| status[name].as_u64().unwrap_or(0);
    let relay = status["role"] == "relay";
    let address = status[if relay { "snodeAddress" } else { "lokiAddress" }].as_str().unwrap_or("-");
    let yes = |name: &str| status[name].as_bool().unwrap_or(false);
    let state = match (yes("ready"), relay, yes("published")) {
        (false, ..) => "not ready: no path yet",
        (true, true, _) => "ready",
        (true, false, true) => "ready, and others can find it",
        (true, false, false) => "ready",
    };
    let uptime = number("uptime") / 1000;
    let (role, version) = (status["role"].as_str().unwrap_or("?"), status["version"].as_str().unwrap_or("?"));
    let _ = writeln!(text, "lokinet {version}, {role}, up {}", clock(uptime));
    let _ = writeln!(text, "  state          {state}");
    let _ = writeln!(text, "  address        {address}");
    let (known, registered) = (number("numRoutersKnown"), number("numRoutersRegistered"));
    let _ = writeln!(text, "  relays         {known} known of {registered} registered");
    let _ = writeln!(text, "  links          {}", number("numPeersConnected"));
    if relay {
        let _ = writeln!(text, "  transit paths  {}", number("transitPaths"));
    } else {
        let _ = writeln!(text, "  paths          {} live", number("numPathsBuilt"));
        let sessions = status["remoteSessions"].as_array().map(Vec::as_slice).unwrap_or_default();
        let _ = writeln!(text, "  conversations  {}", sessions.len());
        for session in sessions {
            let arrow = if session["inbound"].as_bool().unwrap_or(false) { "<-" } else { "->" };
            let word = |name: &str| session[name].as_str().unwrap_or("-").to_owned();
            let remote = session["remote"].as_str().unwrap_or("(anonymous)");
            let _ = writeln!(text, "    {arrow} {remote}  {}  {}", word("ip"), word("state"));
        }
    }
    text
}

fn paths_text(paths: &Value) -> String {
    let mut text = String::new();
    for path in paths.as_array().map(Vec::as_slice).unwrap_or_default() {
        let hops = path["hops"].as_array().map(Vec::as_slice).unwrap_or_default();
        let short = |hop: &Value| {
            let router = hop["router"].as_str().unwrap_or("?");
            let place = hop["ip"].as_str().map_or(String::new(), |ip| format!(" ({ip})"));
            format!("{}{place}", router.get(..8).unwrap_or(router))
        };
        let hops: Vec<String> = hops.iter().map(short).collect();
        let purpose = path["purpose"].as_str().unwrap_or("?");
        let state = match path["latencyMs"].as_f64() {
            Some(latency) => format!("{latency:.1} ms"),
            None => path["status"].as_str().unwrap_or("?").to_owned(),
        };
        let _ = write!(text, "{purpose:<10}  {state:>9}  us -> {}", hops.join(" -> "));
        match path["target"].as_str() {
            Some(target) => drop(writeln!(text, " -> {target}")),
            None => text.push('\n'),
        }
    }
    text
}

fn clock(seconds: u64) -> String {
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours} h {minutes} min") } else { format!("{minutes} min {seconds} s") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_path_reads_from_us_to_them() {
        let path = json!([{ "hops": [{ "router": "abcdefghijk.snode", "ip": "10.1.0.1" }, { "router": "zyx" }],
            "purpose": "rendezvous", "status": "live", "latencyMs": 3.25, "target": "y.loki" }]);
        assert_eq!(paths_text(&path), "rendezvous     3.2 ms  us -> abcdefgh (10.1.0.1) -> zyx -> y.loki\n");
    }

    #[test]
    fn a_status_without_a_path_says_so() {
        let text = status_text(&json!({ "role": "client", "version": "1", "ready": false, "lokiAddress": "y.loki" }));
        assert!(text.contains("not ready: no path yet") && text.contains("y.loki"), "{text}");
    }
}
