//! `lokinet devnet`: the laboratory everybody uses. Whole networks of ordinary daemons on one machine, each in namespaces of
//! its own. `plan` and `files` say what there is, `init` holds it over `namespace` and `wire`, `session` are the
//! Session nodes beside the daemons, `switch` is the wire's place where `impair` wants a bad one (`link` for link),
//! `up` raises it, `enter` and `demo` use it, `life` ends it. `run` is called from main before any thread exists, since
//! namespaces want that.

mod demo;
mod enter;
mod files;
mod impair;
mod init;
mod life;
mod link;
mod namespace;
mod plan;
mod probe;
mod screen;
mod session;
mod status;
mod switch;
mod tool;
mod up;
mod wire;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use crate::trouble::{OrTrouble, Outcome, Trouble};
use impair::Impairment;
use init::Request;
use plan::Plan;
use screen::Screen;

/// The exit code of a verb ended by a signal.
const INTERRUPTED: u8 = 130;

/// A network of real daemons on this machine, without touching the host.
#[derive(Args, Debug)]
pub struct DevnetArgs {
    /// Where the network's state lies [default: /tmp/lokinet-devnet-UID]
    #[arg(long, global = true, value_name = "DIR")]
    dir: Option<PathBuf>,
    #[command(subcommand)]
    verb: DevnetCommand,
}

/// What to do with it.
#[derive(Subcommand, Debug)]
pub enum DevnetCommand {
    /// Show the main job: raise a network, visit a .loki site, take all down
    Demo {
        /// How many relays carry the traffic
        #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u8).range(1..=199))]
        relays: u8,
        /// How bad the wire is
        #[command(flatten)]
        net: Net,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
        /// The program each node runs
        #[arg(long, hide = true)]
        daemon: Option<PathBuf>,
    },
    /// Raise a network and leave it running
    Up(Size),
    /// Run anything inside a node (client1, service1, relay3)
    Exec {
        /// The node
        node: String,
        /// The command and its arguments
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
    /// Nodes, roles, addresses, pids, paths
    Status {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Kill the daemons of nodes
    Kill(Nodes),
    /// Start killed daemons again
    Start(Nodes),
    /// Cut nodes off the wire
    Partition(Nodes),
    /// Connect them again
    Heal(Nodes),
    /// End the network and remove what is left of it
    Down,
    /// The process that holds a network
    #[command(name = "__init", hide = true)]
    Init {
        /// The second step, inside the new namespaces
        #[arg(long)]
        inner: bool,
    },
    /// A small HTTP server
    #[command(name = "__serve", hide = true)]
    Serve {
        /// Where it listens
        address: SocketAddr,
        /// The size of its download
        #[arg(long, default_value_t = 0)]
        bytes: u64,
    },
    /// A small resolver
    #[command(name = "__resolve", hide = true)]
    Resolve {
        /// Whom to ask
        server: String,
        /// For what
        name: String,
    },
    /// A small HTTP client
    #[command(name = "__fetch", hide = true)]
    Fetch {
        /// Print size and speed in place of the body
        #[arg(long)]
        measure: bool,
        /// What to fetch
        url: String,
    },
}

/// How large a network is.
#[derive(Args, Debug)]
pub struct Size {
    /// How many relays
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u8).range(1..=199))]
    relays: u8,
    /// How many clients
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=19))]
    clients: u8,
    /// How many .loki sites
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=19))]
    services: u8,
    /// How many exits (not yet)
    #[arg(long, default_value_t = 0)]
    exits: u8,
    /// How many Session nodes, each reachable as a .loki site, and a registry for them
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=14))]
    session_nodes: u8,
    /// How many relays their paths have; several numbers: the first pair of client and service, the second, ... in turn
    #[arg(long, value_name = "N,...", value_delimiter = ',', hide = true, value_parser = clap::value_parser!(u8).range(1..=4))]
    hops: Vec<u8>,
    #[command(flatten)]
    net: Net,
    /// The program each node runs
    #[arg(long, hide = true)]
    daemon: Option<PathBuf>,
    /// Where session-node and session-registry are [default: beside the program each node runs]
    #[arg(long, hide = true, value_name = "DIR")]
    session_programs: Option<PathBuf>,
}

/// How bad the wire is.
#[derive(Args, Debug)]
pub struct Net {
    /// Make the wire bad: latency=20ms,jitter=2ms,loss=0.5%,rate=100mbit
    ///
    /// Each node's link does this to the frames the node sends, so that a ping meets it twice, there and back. Parts that are
    /// left out do nothing.
    ///
    /// latency=TIME: how long a frame is on its way, one way (us, ms, s).
    ///
    /// jitter=TIME: by how much that varies, up and down, evenly; at most the latency. Frames overtake each other within it,
    /// as with netem; where there is a rate they keep their order.
    ///
    /// loss=PERCENT: how many frames are lost, each by itself (%).
    ///
    /// rate=SPEED: how much leaves a node in a second (kbit, mbit, gbit), frames counted with their Ethernet header.
    ///
    /// queue=TIME: how long a frame waits at most for those before it; where it would be longer it is dropped, as in many a
    /// modem. queue=codel keeps the wait short, as Linux does before its own interfaces [default: codel where there is a
    /// rate].
    ///
    /// seed=NUMBER: what losses and jitter are drawn from [default: a random one, shown by `status`].
    #[arg(id = "net", long = "net", value_name = "IMPAIRMENT")]
    wanted: Option<Impairment>,
}

/// Some nodes.
#[derive(Args, Debug)]
pub struct Nodes {
    /// Their names
    #[arg(required = true)]
    nodes: Vec<String>,
}

/// Does what `lokinet devnet` was asked. Call it before any thread exists.
///
/// Exit codes: 0 done; 1 it failed, and standard error says why; 2 it cannot be asked; 130 interrupted; `exec` returns its
/// command's own.
pub fn run(args: DevnetArgs) -> ExitCode {
    let screen = Screen::new();
    let dir = args.dir.clone();
    let default = |suffix: &str| dir.clone().unwrap_or_else(|| plan::default_dir(suffix));
    let result = match args.verb {
        DevnetCommand::Init { inner } => return run_init(&default(""), inner),
        DevnetCommand::Serve { address, bytes } => tool::serve(address, bytes, &screen).map(|()| 0),
        DevnetCommand::Resolve { server, name } => tool::resolve(&server, &name, &screen).map(|()| 0),
        DevnetCommand::Fetch { measure, url } => tool::fetch(&url, measure).map(|()| 0),
        DevnetCommand::Exec { node, command } => {
            life::running(&default("")).and_then(|plan| enter::exec(&plan, &node, &command))
        }
        DevnetCommand::Demo { relays, net, json, daemon } => {
            let (clients, services, exits, session_nodes, hops, session_programs) = (1, 1, 0, 0, Vec::new(), None);
            let size = Size { relays, clients, services, exits, session_nodes, net, hops, daemon, session_programs };
            within(raise_and(&default("-demo"), &size, &screen, Some(json)))
        }
        DevnetCommand::Up(size) => within(raise_and(&default(""), &size, &screen, None)),
        DevnetCommand::Status { json } => within(status::show(&default(""), json, &screen)),
        DevnetCommand::Kill(nodes) => within(each(&default(""), nodes, |node| Request::Kill { node })),
        DevnetCommand::Start(nodes) => within(each(&default(""), nodes, |node| Request::Start { node })),
        DevnetCommand::Partition(nodes) => within(each(&default(""), nodes, |node| Request::Partition { node })),
        DevnetCommand::Heal(nodes) => within(each(&default(""), nodes, |node| Request::Heal { node })),
        DevnetCommand::Down => down(&default(""), &screen).map(|()| 0),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(trouble) => {
            screen.complain(&trouble.what);
            ExitCode::from(trouble.code)
        }
    }
}

/// The init's complaint goes to its parent, as the first line it says.
fn run_init(dir: &Path, inner: bool) -> ExitCode {
    let result = if inner { init::inner(dir) } else { init::outer(dir) };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(trouble) => {
            Screen::new().say(trouble.what.replace('\n', " "));
            ExitCode::FAILURE
        }
    }
}

fn within(work: impl Future<Output = Outcome<u8>>) -> Outcome<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.or_trouble(|| "cannot start the runtime".into())?.block_on(work)
}

async fn interrupted() {
    let listen = |kind| signal(kind).ok();
    let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
    let [Some(mut interrupt), Some(mut terminate), Some(mut hangup)] = kinds.map(listen) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
}

/// `up`, and `demo` when `demo` says whether in JSON. Whatever stops it, nothing runs on by accident.
async fn raise_and(dir: &Path, size: &Size, screen: &Screen, demo: Option<bool>) -> Outcome<u8> {
    up::check(size)?;
    let dir = plan::make_dir(dir)?;
    let lock = life::lock(&dir)?;
    if Plan::load(&dir)?.is_some_and(|plan| life::is_up(&plan)) {
        let place = dir.display();
        return Err(Trouble::new(format!(
            "a network is up in {place}: `lokinet devnet down` first, or use another --dir"
        )));
    }
    let work = async {
        match demo {
            Some(json) => demo::run(&dir, size, json, screen).await.map(|()| None),
            None => up::raise(&dir, size, screen).await?.keep().await.map(Some),
        }
    };
    let result = tokio::select! {
        result = work => result,
        () = interrupted() => {
            screen.progress("interrupted: taking everything down");
            end_all(&dir)?;
            life::clear(&dir)?;
            life::leave(&dir, lock);
            return Ok(INTERRUPTED);
        }
    };
    match result {
        Ok(Some(plan)) => {
            screen.progress("every node is ready");
            status::table(&plan, screen);
            Ok(0)
        }
        Ok(None) => {
            life::clear(&dir)?;
            life::leave(&dir, lock);
            Ok(0)
        }
        // The logs stay, the processes do not.
        Err(trouble) => {
            end_all(&dir)?;
            if !plan::state_path(&dir).exists() {
                life::leave(&dir, lock);
            }
            Err(trouble)
        }
    }
}

fn end_all(dir: &Path) -> Outcome<bool> {
    Plan::load(dir)?.map_or(Ok(false), |plan| life::end(&plan))
}

async fn each(dir: &Path, nodes: Nodes, request: impl Fn(String) -> Request) -> Outcome<u8> {
    let plan = life::running(dir)?;
    for node in &nodes.nodes {
        plan.node(node)?;
    }
    for node in nodes.nodes {
        life::ask(&plan, &request(node)).await?;
    }
    Ok(0)
}

fn down(dir: &Path, screen: &Screen) -> Outcome<()> {
    if !dir.exists() {
        screen.say(format_args!("there is no network in {}", dir.display()));
        return Ok(());
    }
    let dir = plan::make_dir(dir)?;
    // Before the lock, which whoever raises it may hold; and after it, for what that may have raised since.
    let before = end_all(&dir)?;
    let lock = life::lock_patiently(&dir, screen)?;
    let ended = end_all(&dir)? || before;
    life::clear(&dir)?;
    life::leave(&dir, lock);
    if ended {
        screen.say(format_args!("the network in {} is down, nothing is left", dir.display()));
    } else {
        screen.say(format_args!("no network was running in {}; its files are removed", dir.display()));
    }
    Ok(())
}
