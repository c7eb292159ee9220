//! The process that holds a network: first in its PID namespace, so that its end is the end of all. It makes the namespaces
//! (`namespace`), lays the wire (`wire`, `switch`), starts each node's daemon, reaps, and takes requests at a socket
//! from the verbs. It runs from a re-execution of the program, in two steps, before any thread exists.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::files::ETC;
use super::namespace;
use super::plan::{Node, Plan, Role};
use super::switch::{Switch, Tally};
use super::wire::{self, Wire};
use crate::trouble::{OrTrouble, Outcome, Trouble};

/// What the init says on its standard output once every daemon is started.
pub const STARTED: &str = "started";
/// What it is told on its standard input to outlive its parent.
pub const KEEP: &[u8] = b"keep\n";
/// How long a caller may take to say what it wants.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the verbs ask of the init.
#[derive(Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "lowercase")]
pub enum Request {
    /// How is everyone?
    Status,
    /// Start the daemon of a node again.
    Start { node: String },
    /// End the daemon of a node, without a warning.
    Kill { node: String },
    /// Pull a node's cable.
    Partition { node: String },
    /// Plug it in again.
    Heal { node: String },
}

/// What it answers.
#[derive(Default, Serialize, Deserialize)]
pub struct Reply {
    /// Why it was not done.
    pub error: Option<String>,
    /// Every node, in the plan's order.
    pub nodes: Vec<Vital>,
}

/// Whether a node's daemon lives.
#[derive(Clone, Serialize, Deserialize)]
pub struct Vital {
    /// The node.
    pub name: String,
    /// The daemon's number inside the PID namespace.
    pub pid: Option<u32>,
    /// That of the program beside it, at a Session node.
    #[serde(default)]
    pub beside: Option<u32>,
    /// How it ended.
    pub end: Option<String>,
    /// Whether its cable is pulled.
    pub partitioned: bool,
    /// What its frames came to, where the wire is impaired.
    pub wire: Option<Tally>,
}

impl Vital {
    /// Whether anything of it lives.
    fn runs(&self) -> bool {
        self.pid.is_some() || self.beside.is_some()
    }
}

/// The first step: new namespaces, and in them the second step.
pub fn outer(dir: &Path) -> Outcome<()> {
    let as_root = namespace::uid() == 0 && namespace::unshare_world().is_ok();
    if !as_root {
        namespace::enter_user_namespace().map_err(|error| Trouble::new(no_user_namespace(&error)))?;
        namespace::unshare_world().map_err(|error| Trouble::new(no_user_namespace(&error)))?;
    }
    let mut inner = Command::new("/proc/self/exe");
    inner.arg0("lokinet-devnet").args(["devnet", "--dir"]).arg(dir).args(["__init", "--inner"]);
    namespace::start_session(&mut inner);
    inner.spawn().or_trouble(|| "cannot start the first process of the namespace".into())?;
    Ok(())
}

fn no_user_namespace(error: &std::io::Error) -> String {
    let mut remedy = String::from("run it as root");
    let on = |path: &str, value: &str| fs::read_to_string(path).is_ok_and(|text| text.trim() == value);
    if on("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1") {
        remedy.push_str(", or: sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0");
    } else if on("/proc/sys/kernel/unprivileged_userns_clone", "0") {
        remedy.push_str(", or: sudo sysctl kernel.unprivileged_userns_clone=1");
    } else if on("/proc/sys/user/max_user_namespaces", "0") {
        remedy.push_str(", or: sudo sysctl user.max_user_namespaces=15000");
    } else if Path::new("/.dockerenv").exists() {
        remedy = "give the container more rights (docker run --privileged)".into();
    }
    format!("user namespaces are missing here: the kernel refuses one with its networks and mounts ({error}); {remedy}")
}

/// The second step: the init itself. Its parent hears `STARTED` or one line of complaint.
pub fn inner(dir: &Path) -> Outcome<()> {
    let mut plan = Plan::load(dir)?.ok_or_else(|| Trouble::new("no plan to start from"))?;
    // /proc is still the host's, and so shows who we are outside.
    let own = fs::read_link("/proc/self").or_trouble(|| "cannot read /proc/self".into())?;
    let pid: u32 = own.to_string_lossy().parse().or_trouble(|| "cannot read /proc/self".into())?;
    plan.init = super::life::look(pid);
    plan.save()?;
    namespace::keep_mounts_private().or_trouble(|| "cannot make the mounts private".into())?;
    if let Err(error) = namespace::mount_proc() {
        eprintln!("nodes see the host's /proc: a new one cannot be mounted ({error})");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.or_trouble(|| "cannot start the runtime".into())?.block_on(hold(plan))
}

/// A node as the init knows it.
struct Place {
    node: Node,
    net: File,
    mounts: File,
    vital: Vital,
}

struct Hold {
    plan: Plan,
    wire: Wire,
    switch: Option<Switch>,
    places: Vec<Place>,
    ended: Signal,
}

async fn hold(mut plan: Plan) -> Outcome<()> {
    let ended = signal(SignalKind::child()).or_trouble(|| "cannot listen to the children".into())?;
    let wire = Wire::lay(plan.net.is_none()).await?;
    let (mut places, mut taps) = (Vec::new(), Vec::new());
    let mut tun_tried = false;
    for node in &mut plan.nodes {
        let (net, tap) = wire.attach(node).await?;
        taps.extend(tap);
        if node.role.has_tun() && !tun_tried {
            wire.visit(&net, wire::try_tun)??;
            tun_tried = true;
        }
        let mounts = make_mounts(node)?;
        (node.net, node.mounts) = (Some(net.as_raw_fd()), Some(mounts.as_raw_fd()));
        let name = node.name.clone();
        let vital = Vital { name, pid: None, beside: None, end: None, partitioned: false, wire: None };
        places.push(Place { node: node.clone(), net, mounts, vital });
    }
    plan.save()?;
    // Not before the last namespace is made: a process with threads makes none.
    let switch = plan.net.map(|net| Switch::start(taps, net)).transpose()?;
    let socket = plan.init_socket();
    let _ = fs::remove_file(&socket);
    let door = UnixListener::bind(&socket).or_trouble(|| format!("cannot listen at {}", socket.display()))?;
    let mut hold = Hold { plan, wire, switch, places, ended };
    for at in 0..hold.places.len() {
        hold.start(at)?;
    }
    let mut out = std::io::stdout();
    let _ = writeln!(out, "{STARTED}").and_then(|()| out.flush());
    hold.serve(door).await
}

/// A mount namespace in which the node has its own `/run` (and so no system bus) and its own resolver.
fn make_mounts(node: &Node) -> Outcome<File> {
    let home = File::open("/proc/self/ns/mnt").or_trouble(|| "cannot open /proc/self/ns/mnt".into())?;
    namespace::unshare_mounts().or_trouble(|| format!("cannot make {}'s mount namespace", node.name))?;
    for run in ["/run", "/var/run"].map(Path::new) {
        if run.is_dir() && !run.is_symlink() {
            namespace::mount_memory(run)
                .or_trouble(|| format!("cannot give {} its own {}", node.name, run.display()))?;
            let _ = fs::set_permissions(run, fs::Permissions::from_mode(0o755));
        }
    }
    for name in ETC {
        let at = follow(&Path::new("/etc").join(name));
        if !at.exists() && at.starts_with("/run") {
            let _ = at.parent().map(fs::create_dir_all);
            let _ = File::create(&at);
        }
        if let Err(error) = namespace::mount_over(&node.dir.join("etc").join(name), &at) {
            eprintln!("{} keeps the host's {}: {error}", node.name, at.display());
        }
    }
    let door = File::open("/proc/self/ns/mnt").or_trouble(|| "cannot open /proc/self/ns/mnt".into());
    namespace::walk_into(&home).or_trouble(|| "cannot go back to the first mount namespace".into())?;
    door
}

/// Where a file really lies, even if nothing is there: `/etc/resolv.conf` often is a link into the `/run` just covered.
fn follow(path: &Path) -> PathBuf {
    let mut path = path.to_path_buf();
    for _ in 0..8 {
        let Ok(target) = fs::read_link(&path) else { break };
        let joined = path.parent().unwrap_or(Path::new("/")).join(target);
        path = PathBuf::new();
        for part in joined.components() {
            match part {
                Component::ParentDir => drop(path.pop()),
                Component::CurDir => {}
                part => path.push(part),
            }
        }
    }
    path
}

impl Hold {
    fn start(&mut self, at: usize) -> Outcome<()> {
        let Some(place) = self.places.get(at) else { return Ok(()) };
        let mut daemon = Command::new(&self.plan.daemon);
        if place.node.role == Role::Relay {
            daemon.arg("-r");
        }
        daemon.arg(place.node.ini());
        let (first, second) = match (&self.plan.session, place.node.role) {
            (Some(programs), Role::Registry) => (programs.registry(&place.node), None),
            (Some(programs), Role::Session) => (daemon, Some(programs.node(&self.plan, &place.node)?)),
            _ => (daemon, None),
        };
        let _ = fs::remove_file(place.node.socket());
        let pid = self.launch(at, first)?;
        let beside = second.map(|second| self.launch(at, second)).transpose()?;
        if let Some(place) = self.places.get_mut(at) {
            (place.vital.pid, place.vital.beside, place.vital.end) = (Some(pid), beside, None);
        }
        Ok(())
    }

    /// Runs a program inside a node; its number.
    fn launch(&self, at: usize, mut program: Command) -> Outcome<u32> {
        let place = self.places.get(at).ok_or_else(|| Trouble::new("there is no such node"))?;
        let (node, name) = (&place.node, &place.node.name);
        let log = File::options().create(true).append(true).open(node.log());
        let log = log.or_trouble(|| format!("cannot write {}", node.log().display()))?;
        let errors = log.try_clone().or_trouble(|| format!("cannot write {}", node.log().display()))?;
        program.env("HOME", &node.dir).stdin(Stdio::null()).stdout(log).stderr(errors);
        for outside in ["DBUS_SYSTEM_BUS_ADDRESS", "DBUS_SESSION_BUS_ADDRESS", "XDG_RUNTIME_DIR", "NOTIFY_SOCKET"] {
            program.env_remove(outside);
        }
        let within = namespace::start_within(&mut program, place.net.as_fd(), place.mounts.as_fd(), &node.dir);
        within.or_trouble(|| format!("cannot enter {name}"))?;
        let child = program.spawn();
        let child = child.or_trouble(|| format!("cannot start {} for {name}", program.get_program().display()))?;
        Ok(child.id())
    }

    async fn serve(mut self, door: UnixListener) -> Outcome<()> {
        let mut parent = Some(parent_pipe()?);
        let mut word = [0; KEEP.len()];
        loop {
            let told = async {
                match &mut parent {
                    Some(pipe) => pipe.read_exact(&mut word).await.is_ok(),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                kept = told => {
                    if !kept {
                        return Ok(()); // The parent is gone before it was content: so are we, and everyone.
                    }
                    parent = None;
                }
                _ = self.ended.recv() => self.reap(),
                Ok((caller, _)) = door.accept() => {
                    let _ = self.answer(caller).await;
                }
            }
        }
    }

    /// Notes who ended. Orphans of `exec` come to us as well, and only leave.
    fn reap(&mut self) {
        let mut ends = BTreeMap::new();
        while let Some((pid, end)) = namespace::reap() {
            ends.insert(pid, end);
        }
        for place in &mut self.places {
            if let Some(end) = place.vital.pid.and_then(|pid| ends.get(&pid)) {
                place.vital.end = Some(end.to_string());
                place.vital.pid = None;
            }
            if let Some(end) = place.vital.beside.and_then(|pid| ends.get(&pid)) {
                place.vital.end = Some(format!("session-node ended, {end}"));
                place.vital.beside = None;
            }
        }
    }

    async fn answer(&mut self, mut caller: UnixStream) -> std::io::Result<()> {
        let mut line = String::new();
        let mut words = BufReader::new((&mut caller).take(4096));
        let asked = tokio::time::timeout(PATIENCE, words.read_line(&mut line)).await;
        let result = match (asked, serde_json::from_str(&line)) {
            (Ok(Ok(_)), Ok(request)) => self.obey(request).await,
            _ => Err(Trouble::new("not a request")),
        };
        let nodes = (0..self.places.len()).filter_map(|at| self.vital(at)).collect();
        let reply = Reply { error: result.err().map(|trouble| trouble.what), nodes };
        let mut line = serde_json::to_vec(&reply)?;
        line.push(b'\n');
        tokio::time::timeout(PATIENCE, caller.write_all(&line)).await?
    }

    fn vital(&self, at: usize) -> Option<Vital> {
        let wire = self.switch.as_ref().and_then(|switch| switch.tally(at));
        self.places.get(at).map(|place| Vital { wire, ..place.vital.clone() })
    }

    async fn obey(&mut self, request: Request) -> Outcome<()> {
        let (Request::Start { node } | Request::Kill { node } | Request::Partition { node } | Request::Heal { node }) =
            &request
        else {
            return Ok(());
        };
        let at = self.places.iter().position(|place| place.vital.name == *node);
        let at = at.ok_or_else(|| Trouble::new(format!("there is no node {node:?}")))?;
        let runs = |places: &[Place]| places.get(at).is_some_and(|place| place.vital.runs());
        match (&request, runs(&self.places)) {
            (Request::Start { .. }, true) => Err(Trouble::new(format!("{node} is running"))),
            (Request::Start { .. }, false) => self.start(at),
            (Request::Kill { .. }, false) => Err(Trouble::new(format!("{node} is not running"))),
            (Request::Kill { .. }, true) => {
                let vital = self.places.get(at).map(|place| (place.vital.pid, place.vital.beside));
                for pid in vital.into_iter().flat_map(|(pid, beside)| pid.into_iter().chain(beside)) {
                    namespace::kill_child(pid).or_trouble(|| format!("cannot kill {node}"))?;
                }
                while runs(&self.places) {
                    self.ended.recv().await;
                    self.reap();
                }
                Ok(())
            }
            (Request::Partition { .. }, _) => self.plug(at, node, false).await,
            _ => self.plug(at, node, true).await,
        }
    }

    async fn plug(&mut self, at: usize, node: &str, plugged: bool) -> Outcome<()> {
        match &self.switch {
            Some(switch) => switch.plug(at, plugged),
            None => self.wire.plug(node, plugged).await?,
        }
        if let Some(place) = self.places.get_mut(at) {
            place.vital.partitioned = !plugged;
        }
        Ok(())
    }
}

fn parent_pipe() -> Outcome<tokio::net::unix::pipe::Receiver> {
    let input = std::io::stdin().as_fd().try_clone_to_owned();
    let input = input.and_then(tokio::net::unix::pipe::Receiver::from_owned_fd);
    input.or_trouble(|| "the init must be started by devnet".into())
}
