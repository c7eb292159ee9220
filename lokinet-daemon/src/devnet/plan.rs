//! What a devnet consists of, and the file that remembers it: nodes with their addresses and folders, and the init that holds
//! them. `files` writes what the plan says, `init` fills in the namespaces, every verb reads it.

use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::impair::Impairment;
use super::namespace;
use super::session::Programs;
use crate::trouble::{OrTrouble, Outcome, Trouble};

/// The UDP port every relay listens on.
pub const RELAY_PORT: u16 = 1090;
/// Where each node's resolver listens.
pub const RESOLVER: &str = "127.3.2.1";
/// A Unix socket's path, with its final NUL, must fit in this.
const SOCKET_PATH_MAX: usize = 108;
/// All the IPv6 addresses are on the wire: 3fff::/20 is documentation space, with a /32 for each relay.
pub const V6_PREFIX: u8 = 20;
/// All the IPv4 addresses are on the wire.
pub const V4_PREFIX: u8 = 8;

/// What a node is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Carries others' traffic.
    Relay,
    /// Someone who visits.
    Client,
    /// A `.loki` site.
    Service,
    /// Tells the Session nodes of each other; it runs no daemon of ours.
    Registry,
    /// A Session node, which is a `.loki` site too.
    Session,
}

impl Role {
    /// The word that names it, and begins its nodes' names.
    pub fn word(self) -> &'static str {
        match self {
            Self::Relay => "relay",
            Self::Client => "client",
            Self::Service => "service",
            Self::Registry => "registry",
            Self::Session => "session",
        }
    }

    /// Whether it runs the daemon at all.
    pub fn has_daemon(self) -> bool {
        self != Self::Registry
    }

    /// Whether its daemon has a TUN device and a resolver.
    pub fn has_tun(self) -> bool {
        matches!(self, Self::Client | Self::Service | Self::Session)
    }

    /// Whether it is a `.loki` site.
    pub fn is_site(self) -> bool {
        matches!(self, Self::Service | Self::Session)
    }

    fn offset(self) -> u8 {
        match self {
            Self::Relay => 0,
            Self::Client => 200,
            Self::Service => 220,
            Self::Session => 239,
            Self::Registry => 253,
        }
    }
}

/// One node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Node {
    /// `relay3`, `client1`.
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// Its number among those of its role, from 1.
    pub number: u8,
    /// Its address on the wire.
    pub v4: Ipv4Addr,
    /// Its second address on the wire, where the kernel has IPv6.
    pub v6: Option<Ipv6Addr>,
    /// Its folder.
    pub dir: PathBuf,
    /// How many relays its paths have, where it is not left to the daemon.
    pub hops: Option<u8>,
    /// A relay's public identity in hexadecimal.
    pub id: Option<String>,
    /// Its `.loki` address, once known.
    pub loki: Option<String>,
    /// Its network namespace, as a descriptor of the init.
    pub net: Option<i32>,
    /// Its mount namespace, as a descriptor of the init.
    pub mounts: Option<i32>,
}

impl Node {
    fn new(dir: &Path, role: Role, number: u8, ipv6: bool) -> Self {
        let name = format!("{}{number}", role.word());
        let second = role.offset() + number;
        Self {
            dir: dir.join("nodes").join(&name),
            name,
            role,
            number,
            v4: Ipv4Addr::new(10, second, 0, 1),
            v6: ipv6.then(|| Ipv6Addr::new(0x3fff, u16::from(second), 0, 0, 0, 0, 0, 1)),
            hops: None,
            id: None,
            loki: None,
            net: None,
            mounts: None,
        }
    }

    /// Where its daemon answers questions.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("control.sock")
    }

    /// What its daemon says.
    pub fn log(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// Its configuration.
    pub fn ini(&self) -> PathBuf {
        self.dir.join("lokinet.ini")
    }

    /// Where a relay is reached.
    pub fn hint(&self) -> SocketAddr {
        SocketAddr::new(self.v4.into(), RELAY_PORT)
    }

    /// Where a relay is reached, over each family there is.
    pub fn hints(&self) -> Vec<SocketAddr> {
        let v6 = self.v6.map(|v6| SocketAddr::new(v6.into(), RELAY_PORT));
        std::iter::once(self.hint()).chain(v6).collect()
    }
}

/// The process that holds all the namespaces; its end is theirs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Init {
    /// Its number, as the host sees it.
    pub pid: u32,
    /// When it began, in the kernel's ticks since the boot: numbers come again, this does not.
    pub start_time: u64,
    /// Which boot that was.
    pub boot: String,
}

/// A whole network, as `state.json` keeps it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// The folder all of it lies in.
    pub dir: PathBuf,
    /// The program each node runs.
    pub daemon: PathBuf,
    /// How bad the wire is; `None` for a perfect one.
    pub net: Option<Impairment>,
    /// Relays first, then clients, then services, then the registry and the Session nodes.
    pub nodes: Vec<Node>,
    /// What the Session nodes run, where there are any.
    #[serde(default)]
    pub session: Option<Programs>,
    /// Who holds it, once it runs.
    pub init: Option<Init>,
}

impl Plan {
    /// A network of so many nodes under `dir`, an absolute path.
    pub fn new(dir: &Path, daemon: PathBuf, relays: u8, clients: u8, services: u8) -> Outcome<Self> {
        let ipv6 = Path::new("/proc/net/if_inet6").exists();
        let mut nodes = Vec::new();
        for (role, count) in [(Role::Relay, relays), (Role::Client, clients), (Role::Service, services)] {
            nodes.extend((1..=count).map(|number| Node::new(dir, role, number, ipv6)));
        }
        for (what, path) in [("the state directory", dir), ("the program", daemon.as_path())] {
            if path.starts_with("/run") || path.starts_with("/var/run") {
                return Err(Trouble::new(format!(
                    "{what} {} lies under /run, which every node has for itself; use another place, e.g. --dir /tmp/devnet",
                    path.display()
                )));
            }
        }
        let plan = Self { dir: dir.to_path_buf(), daemon, net: None, nodes, session: None, init: None };
        plan.fits().map(|()| plan)
    }

    fn fits(&self) -> Outcome<()> {
        let longest = self.nodes.iter().map(|node| node.socket().as_os_str().len() + 1).max().unwrap_or(0);
        if longest > SOCKET_PATH_MAX {
            return Err(Trouble::new(format!(
                "{} is too long a path: the nodes' sockets in it would have {longest} bytes, and a Unix socket's path \
                 has at most {SOCKET_PATH_MAX}; use a shorter --dir",
                self.dir.display()
            )));
        }
        Ok(())
    }

    /// Adds so many Session nodes, and a registry for them.
    pub fn with_session_nodes(mut self, count: u8, programs: Option<Programs>) -> Outcome<Self> {
        if programs.is_some() {
            let ipv6 = Path::new("/proc/net/if_inet6").exists();
            self.nodes.push(Node::new(&self.dir, Role::Registry, 1, ipv6));
            self.nodes.extend((1..=count).map(|number| Node::new(&self.dir, Role::Session, number, ipv6)));
        }
        self.session = programs;
        self.fits().map(|()| self)
    }

    /// Gives clients and services these lengths of paths, by their numbers in turn; none leaves it to the daemons.
    pub fn with_hops(mut self, hops: &[u8]) -> Self {
        for node in self.nodes.iter_mut().filter(|node| node.role.has_tun()) {
            node.hops = hops.iter().cycle().nth(usize::from(node.number - 1)).copied();
        }
        self
    }

    /// Reads the network in `dir`; `None` when there is none.
    pub fn load(dir: &Path) -> Outcome<Option<Self>> {
        let path = state_path(dir);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Trouble::new(format!("cannot read {}: {error}", path.display()))),
        };
        check_owner(dir)?;
        let plan: Self = serde_json::from_slice(&text).or_trouble(|| format!("{} is damaged", path.display()))?;
        Ok(Some(plan))
    }

    /// Writes it, whole or not at all.
    pub fn save(&self) -> Outcome<()> {
        let path = state_path(&self.dir);
        let new = self.dir.join("state.json.new");
        let text = serde_json::to_vec_pretty(self).or_trouble(|| "cannot write the state down".into())?;
        write_private(&new, &text)?;
        fs::rename(&new, &path).or_trouble(|| format!("cannot write {}", path.display()))
    }

    /// The node of this name.
    pub fn node(&self, name: &str) -> Outcome<&Node> {
        self.nodes.iter().find(|node| node.name == name).ok_or_else(|| {
            let names: Vec<&str> = self.nodes.iter().map(|node| node.name.as_str()).collect();
            Trouble::new(format!("there is no node {name:?} here; there are {}", names.join(", ")))
        })
    }

    /// Where the init takes requests.
    pub fn init_socket(&self) -> PathBuf {
        self.dir.join("devnet.sock")
    }

    /// What the init says.
    pub fn init_log(&self) -> PathBuf {
        self.dir.join("init.log")
    }
}

/// Where the state of `dir` lies.
pub fn state_path(dir: &Path) -> PathBuf {
    dir.join("state.json")
}

/// The folder of someone who names none.
pub fn default_dir(suffix: &str) -> PathBuf {
    PathBuf::from(format!("/tmp/lokinet-devnet-{}{suffix}", namespace::uid()))
}

/// Makes the folder, for its owner only, or sees that it is ours and nobody else may write in it.
pub fn make_dir(dir: &Path) -> Outcome<PathBuf> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .or_trouble(|| format!("cannot make {}", dir.display()))?;
    check_owner(dir)?;
    fs::canonicalize(dir).or_trouble(|| format!("cannot read {}", dir.display()))
}

fn check_owner(dir: &Path) -> Outcome<()> {
    let facts = fs::symlink_metadata(dir).or_trouble(|| format!("cannot read {}", dir.display()))?;
    let complaint = if facts.is_symlink() || !facts.is_dir() {
        "it is not a plain directory".to_string()
    } else if facts.uid() != namespace::uid() {
        format!("it belongs to user {}, and you are user {}", facts.uid(), namespace::uid())
    } else if facts.mode() & 0o022 != 0 {
        format!("others may write in it (mode {:04o})", facts.mode() & 0o7777)
    } else {
        return Ok(());
    };
    Err(Trouble::new(format!("{} cannot hold a network: {complaint}; use another --dir", dir.display())))
}

/// Writes a file that only its owner can read.
pub fn write_private(path: &Path, bytes: &[u8]) -> Outcome<()> {
    let write = || {
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        file.write_all(bytes)
    };
    write().or_trouble(|| format!("cannot write {}", path.display()))
}
