//! The daemon's life, from configuration to goodbye. Wiring only: what is put up here is taken down by its own `Drop`, or by
//! the kernel when we are killed (the TUN device with its addresses and routes goes with the process). Neighbours:
//! everything in this crate except devnet.

use crate::assemble::{self, Assembled, assemble};
use crate::config::{self, Role, Settings};
use crate::trouble::{OrTrouble, Outcome, Trouble};
use crate::{control, dns, log, notify, tun};
use lokinet_core::driver::{self, Handle, Setup, Tun};
use lokinet_core::flow::lease::Range;
use lokinet_core::node::io::Event;
use lokinet_core::node::worker::WORKERS_MAX;
use lokinet_core::wire::contact::NetId;
use std::fs::File;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;
use tokio::sync::broadcast::error::RecvError;

/// The address a client without a TUN device gives itself; nobody sees it.
const NOWHERE: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 1);

/// How often the registry's file is read again.
const REGISTRY_EVERY: Duration = Duration::from_secs(3600);

/// Runs the daemon of this configuration until it is told to stop.
///
/// # Errors
/// When it cannot start; what was put up until then is down again.
pub fn run(file: &Path, role: Role) -> Outcome<()> {
    let (settings, warnings) = config::load(file, role).map_err(|complaints| Trouble::new(complaints.to_string()))?;
    log::start(&settings.logging)?;
    for warning in &warnings {
        tracing::warn!("{warning}");
    }
    no_core_dumps();
    let _lock = lock(&settings.router.data_dir)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.or_trouble(|| "cannot start the runtime".into())?.block_on(live(settings))
}

async fn live(settings: Settings) -> Outcome<()> {
    let (mut signals, hangup) = Signals::listen()?;
    notify::status("reading keys and contacts");
    let door = settings.api.enabled.then(|| control::Door::open(&settings.api.socket)).transpose()?;
    let device = raise(&settings).await?;
    let range = device.as_ref().map(|raised| raised.range);
    let anywhere = Range::new(NOWHERE, 16, None).ok_or_else(|| Trouble::new("a /16 is no range"))?;
    let Assembled { node, identity } = assemble(&settings, range.unwrap_or(anywhere), driver::now())?;
    // Relays serve nobody's programs: they resolve nothing.
    let resolver = match settings.role {
        Role::Client => Some(dns::bind(&settings.dns.bind).await.map_err(|error| Trouble::new(error.to_string()))?),
        Role::Relay => None,
    };
    let setup = Setup {
        node,
        identity,
        bind: bind(&settings),
        data_dir: Some(settings.router.data_dir.clone()),
        tun: device.map(|raised| Box::new(raised.device) as Box<dyn Tun>),
        workers: workers(&settings),
    };
    let (handle, node) = driver::start(setup).await.map_err(|error| Trouble::new(error.to_string()))?;
    let events = handle.events();
    let halt = Arc::new(Notify::new());
    if let Some(resolver) = resolver {
        let dns = settings.dns;
        tokio::spawn(resolver.serve(handle.clone(), range, dns.upstream, dns.query_bind));
    }
    let door = door.map(|door| tokio::spawn(door.serve(handle.clone(), halt.clone())));
    tokio::spawn(notify::keep_telling(handle.clone()));
    tokio::spawn(milestones(events, settings.role));
    tokio::spawn(follow_registry(hangup, handle.clone(), settings.registry, settings.router.netid));
    notify::ready();
    let mut node = std::pin::pin!(node);
    let asked = tokio::select! {
        () = &mut node => false,
        () = signals.stop() => true,
        () = halt.notified() => true,
    };
    notify::stopping();
    if asked {
        tracing::info!("stopping: saying goodbye to the network");
        goodbye(handle, node, &mut signals).await;
    }
    if let Some(door) = door {
        door.abort();
        let _ = door.await; // its socket's file is removed when it is dropped
    }
    if asked { Ok(()) } else { Err(Trouble::new("the router's loop has ended by itself; its log says why")) }
}

/// Lets the node say goodbye; a second signal is a person who will not wait.
async fn goodbye(handle: Handle, node: impl Future<Output = ()>, signals: &mut Signals) {
    tokio::select! {
        _ = async { tokio::join!(handle.stop(), node) } => {}
        () = signals.stop() => tracing::warn!("stopped without a goodbye: relays will notice by themselves"),
    }
}

/// The TUN device with its addresses; `None` for relays and where the owner wants none.
async fn raise(settings: &Settings) -> Outcome<Option<tun::Raised>> {
    let network = &settings.network;
    if settings.role == Role::Relay || !network.tun {
        return Ok(None);
    }
    notify::status("raising the TUN device");
    let wish = tun::Wish {
        name: network.ifname.clone(),
        addr: network.ifaddr,
        base6: network.ip6_base,
        offload: network.offload,
    };
    let raised = tun::raise(wish).await.map_err(|error| Trouble::new(error.to_string()))?;
    tracing::info!("{} is up: {}/{}", raised.name, raised.range.own(), raised.range.prefix());
    Ok(Some(raised))
}

/// Where the UDP sockets are: a relay's public place, or any port of each family this host has.
/// How many threads move a relay's cells: unless told otherwise, one for each processor but the one that the rest of
/// the relay and the kernel's own work have.
fn workers(settings: &Settings) -> usize {
    match settings.router.workers {
        0 => std::thread::available_parallelism().map_or(1, |cores| (cores.get() - 1).clamp(1, WORKERS_MAX)),
        number => number,
    }
}

fn bind(settings: &Settings) -> Vec<SocketAddr> {
    let wanted = match settings.role {
        Role::Relay => &settings.bind.inbound,
        Role::Client => &settings.bind.outbound,
    };
    if !wanted.is_empty() {
        return wanted.clone();
    }
    let ipv6 = Path::new("/proc/self/net/if_inet6").exists();
    let v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    std::iter::once(v4).chain(ipv6.then(|| SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)))).collect()
}

/// Tells the log what a person may want to know; none of it is caused by one user's request (law 8).
async fn milestones(mut events: tokio::sync::broadcast::Receiver<Event>, role: Role) {
    loop {
        match events.recv().await {
            Ok(Event::Ready) if role == Role::Relay => tracing::info!("ready: another relay knows us"),
            Ok(Event::Ready) => tracing::info!("ready: the first path is live"),
            Ok(Event::Published) => tracing::info!("published: others can find our address"),
            Ok(Event::RegistryExpired) => tracing::warn!(
                "the registry's time is over: get the present one from those who run the network and put it where \
                 [registry] file says; it is read every hour, and at once on SIGHUP"
            ),
            Ok(Event::RegistryRefused) => tracing::warn!(
                "the registry that [registry] file names is older than the one in use, or another edition of the same \
                 serial, and is not taken: get the present one from those who run the network; if two people have \
                 different ones of one serial, tell them"
            ),
            Ok(Event::ClockSkew(seconds)) => {
                let way = if seconds > 0 { "ahead of" } else { "behind" };
                tracing::warn!(
                    "this machine's clock is {} s {way} a relay's; set it right (timedatectl set-ntp true), \
                     or paths will be refused",
                    seconds.abs()
                );
            }
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
    }
}

/// Reads the registry again every hour and when we are told to (SIGHUP). One that does not count changes nothing.
async fn follow_registry(mut hangup: Signal, handle: Handle, wanted: config::Registry, netid: NetId) {
    loop {
        let asked = tokio::time::timeout(REGISTRY_EVERY, hangup.recv()).await.is_ok();
        match assemble::registry(&wanted, netid, driver::now()) {
            Ok(registry) => {
                if asked {
                    tracing::info!(
                        "the registry was read again (serial {}); other changes need a restart",
                        registry.serial
                    );
                }
                handle.registry(registry).await;
            }
            Err(trouble) => tracing::warn!("{}; until then the node goes on with the registry it has", trouble.what),
        }
    }
}

/// One daemon per data directory: two would overwrite each other's records.
fn lock(data_dir: &Path) -> Outcome<File> {
    let path = data_dir.join("lock");
    let file = File::create(&path).or_trouble(|| format!("[router] data-dir: cannot write {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(_) => Err(Trouble::new(format!(
            "[router] data-dir {} is in use: another lokinet runs with it; stop that one, or give this one its own",
            data_dir.display()
        ))),
    }
}

/// Keys must not land in a core file.
fn no_core_dumps() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    // A sandbox may forbid the call, and is then expected to have done it itself.
    if getrlimit(Resource::Core) != none && setrlimit(Resource::Core, none).is_err() {
        tracing::warn!("core dumps cannot be turned off; set LimitCORE=0 for this process");
    }
}

/// What ends the daemon. A hangup does not: it has the registry read again.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// From the first moment: a hangup that nobody listens to would end us. It is given to who reads the registry.
    fn listen() -> Outcome<(Signals, Signal)> {
        let listen = |kind| signal(kind).or_trouble(|| "cannot listen to signals".into());
        let [interrupt, terminate] = [SignalKind::interrupt(), SignalKind::terminate()];
        let signals = Signals { interrupt: listen(interrupt)?, terminate: listen(terminate)? };
        Ok((signals, listen(SignalKind::hangup())?))
    }

    async fn stop(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
