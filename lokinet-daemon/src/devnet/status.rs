//! `devnet status`, and the table `up` ends with: who is there, alive, reachable, and by which paths.

use std::path::Path;

use serde::Serialize;

use super::init::{Request, Vital};
use super::plan::{Node, Plan, Role};
use super::screen::Screen;
use super::switch::Tally;
use super::{life, probe};
use crate::trouble::{OrTrouble, Outcome};

#[derive(Serialize)]
struct NodeLine {
    name: String,
    role: Role,
    address: String,
    address6: Option<String>,
    loki: Option<String>,
    pid: Option<u32>,
    state: String,
    socket: String,
    log: String,
    /// What the wire does to its frames.
    net: Option<String>,
    /// What they came to.
    wire: Option<Tally>,
    paths: Vec<probe::Route>,
}

/// Prints the network in `dir`.
pub async fn show(dir: &Path, json: bool, screen: &Screen) -> Outcome<u8> {
    let plan = life::running(dir)?;
    let vitals = life::ask(&plan, &Request::Status).await?.nodes;
    let mut lines = Vec::new();
    for node in &plan.nodes {
        let vital = vitals.iter().find(|vital| vital.name == node.name);
        lines.push(line(&plan, node, vital).await);
    }
    if json {
        let text = serde_json::to_string_pretty(&lines).or_trouble(|| "cannot write JSON".into())?;
        screen.say(text);
        return Ok(0);
    }
    screen.headline(format_args!("{:<11} {:<12} {:>7}  {:<24} .LOKI ADDRESS", "NODE", "ADDRESS", "PID", "STATE"));
    for line in &lines {
        let pid = line.pid.map_or("-".into(), |pid| pid.to_string());
        let loki = line.loki.as_deref().unwrap_or("-");
        screen.say(format_args!("{:<11} {:<12} {pid:>7}  {:<24} {loki}", line.name, line.address, line.state));
    }
    for line in &lines {
        for path in &line.paths {
            let latency = path.latency_ms.map_or(String::new(), |latency| format!("   {latency:.1} ms"));
            screen.say(format_args!("{} path: {}{latency}", line.name, path.hops.join(" -> ")));
        }
    }
    if let Some(net) = &plan.net {
        let tallies: Vec<Tally> = lines.iter().filter_map(|line| line.wire).collect();
        let sum = |count: fn(&Tally) -> u64| tallies.iter().map(count).sum::<u64>();
        let (sent, lost) = (sum(|tally| tally.sent), sum(|tally| tally.lost));
        let (full, cut) = (sum(|tally| tally.full), sum(|tally| tally.cut));
        screen.say(format_args!(
            "the wire: {net}; {sent} frames sent, {lost} lost, {full} dropped from full queues, {cut} at pulled cables"
        ));
    }
    screen.aside(format_args!("logs: {}/nodes/NODE/log", plan.dir.display()));
    Ok(0)
}

async fn line(plan: &Plan, node: &Node, vital: Option<&Vital>) -> NodeLine {
    let inside = vital.and_then(|vital| vital.pid);
    let asked = inside.is_some() && node.role.has_daemon();
    let status = if asked { probe::probe(&node.socket()).await } else { None };
    let mut state = match (vital, &status) {
        (Some(Vital { pid: None, end, .. }), _) => format!("ended, {}", end.as_deref().unwrap_or("not started")),
        (Some(Vital { end: Some(end), .. }), _) => end.clone(),
        (_, Some(status)) if status.suffices(node.role) => "ready".into(),
        (_, None) if !node.role.has_daemon() => "ready".into(),
        (_, Some(_)) => "not ready".into(),
        (_, None) => "silent".into(),
    };
    if vital.is_some_and(|vital| vital.partitioned) {
        state.push_str(", cut off");
    }
    let visits = node.role.has_tun() && status.is_some();
    NodeLine {
        name: node.name.clone(),
        role: node.role,
        address: node.v4.to_string(),
        address6: node.v6.map(|v6| v6.to_string()),
        loki: status.and_then(|status| status.loki).or_else(|| node.loki.clone()),
        pid: inside.and_then(|pid| life::host_pid(plan, pid)),
        state,
        socket: node.socket().display().to_string(),
        log: node.log().display().to_string(),
        net: plan.net.map(|net| net.to_string()),
        wire: vital.and_then(|vital| vital.wire),
        paths: if visits { probe::paths(plan, &node.socket(), "").await } else { Vec::new() },
    }
}

/// Names and addresses, and what to do next.
pub fn table(plan: &Plan, screen: &Screen) {
    screen.headline(format_args!("{:<11} {:<12} .LOKI ADDRESS", "NODE", "ADDRESS"));
    for node in &plan.nodes {
        screen.say(format_args!(
            "{:<11} {:<12} {}",
            node.name,
            node.v4.to_string(),
            node.loki.as_deref().unwrap_or("-")
        ));
    }
    if let Some(net) = &plan.net {
        screen.say(format_args!("the wire: {net}"));
    }
    if let Some(visitor) = plan.nodes.iter().find(|node| node.role == Role::Client) {
        screen.aside(format_args!(
            "next: lokinet devnet exec {} -- COMMAND, lokinet devnet status, lokinet devnet down",
            visitor.name
        ));
    }
}
