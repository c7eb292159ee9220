//! The daemon's configuration: `lokinet.ini` and the files that override it, read into typed [`Settings`] or into every
//! complaint there is about them. `ini` knows the grammar, `options` what exists, `given` holds one against the other;
//! `bind`, `router`, `network` and `services` build the parts; `generate` writes a fresh file. Neighbours: `keyfile`
//! reads the keys that are named here, `lokinet_core::node::Config` is made from the result.

mod bind;
mod complaint;
mod desk;
#[doc(hidden)]
pub mod fuzzing;
pub mod generate;
mod given;
mod home;
mod ini;
mod interface;
mod nearest;
mod network;
pub mod options;
mod router;
mod services;
mod value;
pub(crate) mod whole;

use std::fs::{self, File};
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use lokinet_core::flow::dns::SrvRecord;
use lokinet_core::wire::contact::NetId;
use lokinet_core::wire::id::RelayId;

pub use complaint::{Complaint, Complaints, Place};
pub use home::default_data_dir;

use desk::Desk;
use given::Given;
use ini::Ini;

/// What the daemon is to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Its own user's.
    Client,
    /// Carries others' traffic (`lokinet --router`).
    Relay,
}

/// A configuration that can be used.
#[derive(Clone, PartialEq, Debug)]
pub struct Settings {
    /// Client or relay.
    pub role: Role,
    /// `[router]`.
    pub router: Router,
    /// `[network]`.
    pub network: Network,
    /// `[dns]`.
    pub dns: Dns,
    /// `[bind]`.
    pub bind: Bind,
    /// `[api]`.
    pub api: Api,
    /// `[registry]`.
    pub registry: Registry,
    /// Files with signed contacts; all are there.
    pub bootstrap: Vec<PathBuf>,
    /// `[logging]`.
    pub logging: Logging,
}

/// The node, its files, and how a relay is reached.
#[derive(Clone, PartialEq, Debug)]
pub struct Router {
    /// The network, as the wire names it.
    pub netid: NetId,
    /// The network, as people name it.
    pub netid_text: String,
    /// Exists.
    pub data_dir: PathBuf,
    /// A relay's addresses as others see them, at least one, the first of each family to be published; a client has none.
    pub public: Vec<SocketAddr>,
    /// Whether private and reserved addresses are refused.
    pub block_bogons: bool,
    /// A relay's keyfile.
    pub identity_key: PathBuf,
    /// Threads for a relay's cells; 0 to have the number chosen.
    pub workers: usize,
}

/// A client in the network.
#[derive(Clone, PartialEq, Debug)]
pub struct Network {
    /// Whether there is an interface.
    pub tun: bool,
    /// The `.loki` keyfile; without one the address is new at every start.
    pub keyfile: Option<PathBuf>,
    /// Whether to be reachable.
    pub reachable: bool,
    /// Relays of a path, the pivot included; 1 to 4.
    pub hops: usize,
    /// Paths kept; 2 to 8.
    pub paths: usize,
    /// A path's life.
    pub lifetime: Duration,
    /// The only first hops; empty or at least two, all different.
    pub strict: Vec<RelayId>,
    /// The interface's name; `None` takes a free one.
    pub ifname: Option<String>,
    /// The interface's address and prefix, within a private range; `None` takes a free one.
    pub ifaddr: Option<(Ipv4Addr, u8)>,
    /// What IPv6 twins are made over, its last 32 bits zero; `None` is no IPv6.
    pub ip6_base: Option<Ipv6Addr>,
    /// Whether the interface may hand over super-packets.
    pub offload: bool,
    /// Fixed addresses of services, within `ifaddr` where that is set; no key and no address twice.
    pub mapaddr: Vec<([u8; 32], Ipv4Addr)>,
    /// Service records.
    pub srv: Vec<SrvRecord>,
}

/// The resolver.
#[derive(Clone, PartialEq, Debug)]
pub struct Dns {
    /// Where programs ask; at least one, all different.
    pub bind: Vec<SocketAddr>,
    /// Who is asked for other names; empty refuses them.
    pub upstream: Vec<SocketAddr>,
    /// The local address of those questions.
    pub query_bind: Option<SocketAddr>,
    /// Whether the host's own resolver is to be told of this one.
    pub resolvconf: bool,
}

/// The sockets towards other nodes.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Bind {
    /// Where a relay listens, at least one; a client has none.
    pub inbound: Vec<SocketAddr>,
    /// The local addresses of links to others; empty lets the system choose, port 0 any port.
    pub outbound: Vec<SocketAddr>,
}

/// The control socket.
#[derive(Clone, PartialEq, Debug)]
pub struct Api {
    /// Whether there is one.
    pub enabled: bool,
    /// Where.
    pub socket: PathBuf,
}

/// Who says who is a relay.
#[derive(Clone, PartialEq, Debug)]
pub struct Registry {
    /// The signed list; it is there.
    pub file: PathBuf,
    /// Whose signatures count; at least one, all different.
    pub authorities: Vec<[u8; 32]>,
    /// How many of them; at least 1.
    pub threshold: usize,
}

/// The log.
#[derive(Clone, PartialEq, Debug)]
pub struct Logging {
    /// Where.
    pub kind: LogKind,
    /// How much.
    pub level: LogLevel,
}

/// Where the log goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LogKind {
    /// Standard output.
    Print,
    /// A file.
    File(PathBuf),
}

/// How much is logged: each level includes those before it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[allow(missing_docs)]
pub enum LogLevel {
    Off,
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// Reads the configuration in `path` and the `conf.d` of its data directory; with it come the warnings.
///
/// The data directory is made when it is the default one and not there yet.
///
/// # Errors
/// Every complaint about it, in the order of the files' lines.
pub fn load(path: &Path, role: Role) -> Result<(Settings, Vec<Complaint>), Complaints> {
    let mut complaints = Complaints::default();
    let main = Place::whole(path);
    let text = match contents(path) {
        Ok(text) => text,
        Err(error) => {
            let remedy =
                format!("write a fresh one with lokinet --generate {}, or name the right file", path.display());
            complaints.error(&main, format!("cannot be read: {error}"), remedy);
            return Err(complaints);
        }
    };
    let ini = ini::parse(path, &text);
    let data_dir = home::data_dir(&ini, &main, &mut complaints);
    let mut files = vec![ini];
    files.extend(overrides(&data_dir, &mut complaints));
    settle(files, role, &data_dir, main, complaints, &interface::addresses)
}

/// A file's content, or as much of it as shows that it is too long.
fn contents(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    File::open(path)?.take(ini::FILE_MAX as u64 + 1).read_to_end(&mut text)?;
    Ok(text)
}

/// The files in `conf.d`, in the order of their names.
fn overrides(data_dir: &Path, complaints: &mut Complaints) -> Vec<Ini> {
    let dir = data_dir.join("conf.d");
    let entries = match fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(error) => {
            // A data directory that is none has its complaint already.
            if error.kind() != io::ErrorKind::NotFound && data_dir.is_dir() {
                let remedy = "let the daemon's user read this directory, or remove it";
                complaints.error(&Place::whole(&dir), format!("cannot be read: {error}"), remedy);
            }
            return Vec::new();
        }
    };
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.retain(|path| path.extension().is_some_and(|end| end == "ini"));
    paths.sort_unstable();
    let mut files = Vec::new();
    for path in paths {
        match contents(&path) {
            Ok(text) => files.push(ini::parse(&path, &text)),
            Err(error) => {
                let what = format!("cannot be read: {error}");
                complaints.error(&Place::whole(&path), what, "let the daemon's user read it, or remove it");
            }
        }
    }
    for ini in &files {
        for entry in ini.entries.iter().filter(|entry| (entry.section.as_str(), entry.name.as_str()) == home::DATA_DIR)
        {
            let what = "[router] data-dir: a file that lies in the data directory cannot say where that is";
            complaints.error(&entry.place, what, "set it in the main file");
        }
    }
    files
}

/// The addresses of a network interface, `None` when there is no such interface.
type Interfaces<'a> = &'a dyn Fn(&str) -> Option<Vec<IpAddr>>;

/// Builds the settings from files that have been read, in the order in which they override each other.
fn settle(
    files: Vec<Ini>,
    role: Role,
    data_dir: &Path,
    main: Place,
    mut complaints: Complaints,
    interfaces: Interfaces<'_>,
) -> Result<(Settings, Vec<Complaint>), Complaints> {
    let given = Given::sort(files, role, &mut complaints);
    let mut desk = Desk { given: &given, role, data_dir, main, complaints };
    let (netid, netid_text) = router::netid(&mut desk);
    let block_bogons = router::block_bogons(&mut desk, &netid_text);
    let (bind, public) = bind::bind(&mut desk, block_bogons, interfaces);
    let identity_key = desk.one("router", "ident-privkey", value::path);
    let identity_key = desk.resolve(&identity_key);
    let workers = router::workers(&mut desk);
    let data_dir = data_dir.to_owned();
    let settings = Settings {
        role,
        router: Router { netid, netid_text, data_dir, public, block_bogons, identity_key, workers },
        network: network::network(&mut desk),
        dns: services::dns(&mut desk),
        bind,
        api: services::api(&mut desk),
        registry: router::registry(&mut desk),
        bootstrap: router::bootstrap(&mut desk),
        logging: services::logging(&mut desk),
    };
    let complaints = desk.complaints.sorted();
    if complaints.errors.is_empty() { Ok((settings, complaints.warnings)) } else { Err(complaints) }
}

#[cfg(test)]
mod tests;
