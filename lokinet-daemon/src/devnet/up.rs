//! Raising a network: files, the init with its namespaces and daemons, and the wait until every node is ready. `up`
//! keeps what comes of it, `demo` uses it and lets it go.

use std::fs::{self, File};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{ChildStdin, Command};

use super::impair::Impairment;
use super::init::{KEEP, Request, STARTED};
use super::plan::{Node, Plan, Role};
use super::screen::{Screen, Wait, seconds};
use super::session::{self, Programs};
use super::{Size, files, life, probe};
use crate::trouble::{OrTrouble, Outcome, Trouble};

/// How long a node may take to be ready.
const READY_WITHIN: Duration = Duration::from_secs(120);
/// Between two rounds of asking.
const ROUND: Duration = Duration::from_millis(150);
/// How much of a log is shown.
const LOG_LINES: usize = 8;

/// A running network that ends with this value, unless kept.
pub struct Raised {
    /// Its plan, with the `.loki` addresses.
    pub plan: Plan,
    leash: ChildStdin,
}

impl Raised {
    /// Lets it outlive this process.
    pub async fn keep(mut self) -> Outcome<Plan> {
        self.leash.write_all(KEEP).await.or_trouble(|| "the network has ended".into())?;
        Ok(self.plan)
    }
}

/// Says no to what cannot be had yet, before anything is written.
pub fn check(size: &Size) -> Outcome<()> {
    if size.exits > 0 {
        return Err(Trouble::refusal("--exits: not yet. devnet has no exit nodes so far; leave it out"));
    }
    if let Some(hops) = size.hops.iter().find(|hops| **hops > size.relays || size.relays < 2) {
        let what = format!("--hops {hops}: {} relays are too few for it; give more --relays", size.relays);
        return Err(Trouble::refusal(what));
    }
    Ok(())
}

/// Raises a network in `dir` (locked by the caller).
pub async fn raise(dir: &Path, size: &Size, screen: &Screen) -> Outcome<Raised> {
    if Plan::load(dir)?.is_some_and(|plan| life::is_up(&plan)) {
        let place = dir.display();
        return Err(Trouble::new(format!(
            "a network is up in {place}: `lokinet devnet down` first, or use another --dir"
        )));
    }
    let daemon = match &size.daemon {
        Some(path) => path.clone(),
        None => std::env::current_exe().or_trouble(|| "cannot find this program's own file".into())?,
    };
    let daemon = fs::canonicalize(&daemon).or_trouble(|| format!("the program {} is not there", daemon.display()))?;
    let beside = size.session_programs.as_deref().or_else(|| daemon.parent());
    let programs = (size.session_nodes > 0).then(|| Programs::find(beside)).transpose()?;
    let plan = Plan::new(dir, daemon, size.relays, size.clients, size.services)?;
    let mut plan = plan.with_session_nodes(size.session_nodes, programs)?.with_hops(&size.hops);
    plan.net = size.net.wanted.map(with_seed).transpose()?;
    life::clear(dir)?;
    files::write(&mut plan)?;
    plan.save()?;
    screen.progress(format_args!("files of {} nodes written to {}", plan.nodes.len(), dir.display()));
    let leash = match start(&plan).await {
        Ok(leash) => leash,
        Err(trouble) => {
            // No daemon has run, so that no log is worth keeping, unless the init itself has said something.
            if fs::metadata(plan.init_log()).is_ok_and(|log| log.len() == 0) {
                life::clear(dir)?;
            }
            return Err(trouble);
        }
    };
    let mut plan = Plan::load(dir)?.ok_or_else(|| Trouble::new("the state has vanished"))?;
    screen.progress("namespaces made, wire laid, every daemon started");
    wait_ready(&mut plan, screen).await?;
    plan.save()?;
    Ok(Raised { plan, leash })
}

/// A seed that `status` shows, for who wants the same losses again.
fn with_seed(mut net: Impairment) -> Outcome<Impairment> {
    if net.seed.is_none() {
        let seed = getrandom::u32().or_trouble(|| "the system gives no random bytes".into())?;
        net.seed = Some(seed.into());
    }
    Ok(net)
}

/// Starts the init, and hears from it that all is made or why not.
async fn start(plan: &Plan) -> Outcome<ChildStdin> {
    let log = File::create(plan.init_log()).or_trouble(|| format!("cannot write {}", plan.init_log().display()))?;
    let mut init = Command::new("/proc/self/exe");
    init.arg0("lokinet-devnet").args(["devnet", "--dir"]).arg(&plan.dir).arg("__init");
    init.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
    let mut init = init.spawn().or_trouble(|| "cannot start this program again".into())?;
    let (Some(leash), Some(words)) = (init.stdin.take(), init.stdout.take()) else {
        return Err(Trouble::new("the init cannot be heard"));
    };
    let mut line = String::new();
    BufReader::new(words).read_line(&mut line).await.or_trouble(|| "the init cannot be heard".into())?;
    let _ = init.wait().await;
    match line.trim() {
        STARTED => Ok(leash),
        "" => Err(Trouble::new(format!("the init has ended without a word; see {}", plan.init_log().display()))),
        complaint => Err(Trouble::new(complaint)),
    }
}

async fn wait_ready(plan: &mut Plan, screen: &Screen) -> Outcome<()> {
    let mut wait = Wait::new();
    let mut waiting: Vec<usize> = (0..plan.nodes.len()).collect();
    let session_nodes = plan.nodes.iter().filter(|node| node.role == Role::Session).count();
    loop {
        let mut still = Vec::new();
        for at in waiting.clone() {
            let Some(node) = plan.nodes.get_mut(at) else { continue };
            if !session::suffices(node, session_nodes) {
                still.push(at);
                continue;
            }
            match probe::probe(&node.socket()).await {
                Some(status) if status.suffices(node.role) => node.loki = status.loki,
                _ if !node.role.has_daemon() => {}
                _ => still.push(at),
            }
        }
        for role in [Role::Relay, Role::Client, Role::Service, Role::Registry, Role::Session] {
            let of_role = |list: &[usize]| list.iter().filter(|at| plan.nodes[**at].role == role).count();
            if of_role(&waiting) > 0 && of_role(&still) == 0 {
                let all = plan.nodes.iter().filter(|node| node.role == role).count();
                let plural = if all == 1 { "" } else { "s" };
                let what = if role == Role::Session { "session node" } else { role.word() };
                screen.progress(format_args!("{all} {what}{plural} ready"));
            }
        }
        waiting = still;
        if waiting.is_empty() {
            return Ok(());
        }
        see_no_dead(plan, &waiting).await?;
        let names: Vec<&str> = waiting.iter().map(|at| plan.nodes[*at].name.as_str()).collect();
        if wait.elapsed() > READY_WITHIN {
            let node = plan.node(names.first().copied().unwrap_or_default())?;
            return Err(not_ready(node, &format!("is not ready after {}", seconds(wait.elapsed()))));
        }
        if wait.speaks() {
            screen.progress(format_args!("waiting for {}", names.join(", ")));
        }
        tokio::time::sleep(ROUND).await;
    }
}

async fn see_no_dead(plan: &Plan, waiting: &[usize]) -> Outcome<()> {
    let reply = life::ask(plan, &Request::Status).await?;
    for node in waiting.iter().filter_map(|at| plan.nodes.get(*at)) {
        let end = reply.nodes.iter().find(|vital| vital.name == node.name).and_then(|vital| vital.end.clone());
        if let Some(end) = end {
            return Err(not_ready(node, &format!("has ended ({end}) before it was ready")));
        }
    }
    Ok(())
}

fn not_ready(node: &Node, what: &str) -> Trouble {
    let log = node.log();
    let text = fs::read(&log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let last = lines.get(lines.len().saturating_sub(LOG_LINES)..).unwrap_or_default().join("\n    ");
    let last = if last.is_empty() { "(it said nothing)".into() } else { last };
    Trouble::new(format!("{} {what}. Its last words:\n    {last}\n  all of them: {}", node.name, log.display()))
}
