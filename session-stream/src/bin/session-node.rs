//! `session-node`: a storage node for Session's clients. Reads the command line, starts what the library calls a server,
//! tells systemd, and stops it when it is told to.

use std::io::IsTerminal;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use sd_notify::NotifyState;
use session_stream::account::Network;
use session_stream::serve::list::Source;
use session_stream::serve::reach::EVERY;
use session_stream::serve::{self, Server, Settings, Trouble};
use session_stream::store::Damaged;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// How often systemd hears how we are.
const STATUS_EVERY: Duration = Duration::from_secs(10);

/// Keeps messages for Session's clients, together with the other nodes of its swarm, and pushes them to who subscribed.
///
/// It needs to know all nodes: from a registry (oxend, or anything else that answers get_service_nodes), or, on a private
/// network, from a file with the same content.
#[derive(Parser)]
#[command(name = "session-node", version, after_help = EXAMPLES)]
struct Options {
    /// Directory for the messages, the key and the certificate; made if it is not there
    #[arg(long, value_name = "DIR", default_value = "/var/lib/session-node")]
    data_dir: PathBuf,

    /// Address to listen at
    #[arg(long, value_name = "IP", default_value = "0.0.0.0")]
    bind: IpAddr,

    /// TCP port for HTTPS
    #[arg(long, value_name = "PORT", default_value_t = 22021)]
    https_port: u16,

    /// UDP port for QUIC: clients and other nodes
    #[arg(long, value_name = "PORT", default_value_t = 22020)]
    quic_port: u16,

    /// The registry's JSON-RPC over HTTP, for example http://127.0.0.1:22023
    #[arg(long, value_name = "URL", required_unless_present = "list", conflicts_with = "list")]
    registry: Option<String>,

    /// File with the list of nodes, as get_service_nodes answers it; read again when it changes, or on SIGHUP
    #[arg(long, value_name = "FILE")]
    list: Option<PathBuf>,

    /// The node's Ed25519 key, as oxend's key_ed25519, made if it is not there [default: key_ed25519 in the data directory]
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,

    /// Room for messages, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 3584)]
    store_size: u64,

    /// If the message store is damaged, rename it and begin a new one, which the swarm's other members fill
    #[arg(long)]
    move_damaged_store_aside: bool,

    /// QUIC connections from one address
    #[arg(long, value_name = "NUMBER", default_value_t = 256)]
    connections_per_address: usize,

    /// Keep accounts of the test network
    #[arg(long)]
    testnet: bool,

    /// This is a private network: onion requests may go to servers on private addresses
    #[arg(long)]
    private: bool,

    /// Do not test whether other nodes can be reached
    #[arg(long)]
    no_tests: bool,

    /// error, warn, info, debug or trace; or one per part, as in "info,session_stream::serve=debug"
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log_level: String,
}

const EXAMPLES: &str = "\
Examples:
  session-node --registry http://127.0.0.1:22023 --key /var/lib/oxen/key_ed25519
  session-node --data-dir /tmp/node1 --list /tmp/nodes.json --bind 127.0.0.1 --private

Exit status: 0 when it was told to stop (SIGTERM, SIGINT), 1 when it could not start or had to stop, 2 when the command
line makes no sense.";

impl Options {
    fn settings(self) -> Result<Settings, Trouble> {
        let source = match (self.list, self.registry) {
            (Some(file), _) => Source::File(file),
            (None, Some(url)) if url.starts_with("http://") || url.starts_with("https://") => Source::Registry(url),
            (None, url) => {
                let url = url.unwrap_or_default();
                return Err(Trouble::new(format!("--registry {url}: no URL; write it as http://127.0.0.1:22023")));
            }
        };
        if self.store_size == 0 || self.connections_per_address == 0 {
            return Err(Trouble::new("--store-size and --connections-per-address must be above 0".into()));
        }
        Ok(Settings {
            key: self.key.unwrap_or_else(|| self.data_dir.join("key_ed25519")),
            data_dir: self.data_dir,
            bind: self.bind,
            https_port: self.https_port,
            quic_port: self.quic_port,
            source,
            network: if self.testnet { Network::Test } else { Network::Main },
            store_max: self.store_size.saturating_mul(1 << 20),
            damaged: if self.move_damaged_store_aside { Damaged::MoveAside } else { Damaged::Refuse },
            quic_each_max: self.connections_per_address,
            private: self.private,
            tests: (!self.no_tests).then_some(EVERY),
        })
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    match log(&options.log_level).and_then(|()| options.settings()).and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(trouble) => {
            eprintln!("session-node: {trouble}");
            ExitCode::FAILURE
        }
    }
}

fn log(level: &str) -> Result<(), Trouble> {
    let filter = EnvFilter::try_new(level)
        .map_err(|_| Trouble::new(format!("--log-level {level}: write error, warn, info, debug or trace")))?;
    let colours = std::io::stderr().is_terminal();
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_target(false).with_ansi(colours);
    lines.with_writer(std::io::stderr).init();
    Ok(())
}

fn run(settings: Settings) -> Result<(), Trouble> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Trouble::new(format!("cannot start the runtime: {error}")))?;
    runtime.block_on(live(settings))
}

async fn live(settings: Settings) -> Result<(), Trouble> {
    let listen = |kind| signal(kind).map_err(|error| Trouble::new(format!("cannot listen for signals: {error}")));
    let (mut terminate, mut interrupt, mut hangup) =
        (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?, listen(SignalKind::hangup())?);
    let server = serve::start(settings).await?;
    tracing::info!("node {:?} serves HTTPS at {} and QUIC at {}", server.key(), server.https(), server.quic());
    tell(&[NotifyState::Ready]);
    let watchdog = sd_notify::watchdog_enabled();
    let mut every = tokio::time::interval(watchdog.map_or(STATUS_EVERY, |within| (within / 2).min(STATUS_EVERY)));
    let died = loop {
        tokio::select! {
            _ = terminate.recv() => break false,
            _ = interrupt.recv() => break false,
            _ = hangup.recv() => server.reread(),
            _ = every.tick() => {
                if !alive(&server).await {
                    break true;
                }
                tell(&[NotifyState::Status(&server.line()), NotifyState::Watchdog]);
            }
        }
    };
    tell(&[NotifyState::Stopping]);
    tracing::info!("stopping: what was accepted is on disk");
    tokio::select! {
        () = server.stop() => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    if died {
        Err(Trouble::new("the machine's thread has ended by itself; its message is above".into()))
    } else {
        Ok(())
    }
}

/// Whether the machine still takes what comes; one that hangs is left to systemd's watchdog.
async fn alive(server: &Server) -> bool {
    server.actor().alive().await
}

fn tell(state: &[NotifyState<'_>]) {
    // Nobody listens, or not any more: no reason to do anything else than we do.
    let _ = sd_notify::notify(state);
}
