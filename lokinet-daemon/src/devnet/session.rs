//! Session nodes in a devnet: the programs that run beside the daemons, what they are told, and when they are ready. Each
//! Session node's namespace has a daemon that makes it a `.loki` site, and a `session-node` that listens at every address
//! there: on the cable for the other nodes, on the TUN device for whoever comes through the network. The first of them have
//! a relay's key each, and so a `.snode` name. Neighbours: `init` (starts them), `files` (keys), `plan` (says where).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};

use super::plan::{Node, Plan, Role, write_private};
use crate::trouble::{OrTrouble, Outcome, Trouble};

/// TCP: where the registry is asked.
pub const REGISTRY_PORT: u16 = 22023;

/// The programs. They are found, not built in: the daemon and Session know nothing of each other.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Programs {
    node: PathBuf,
    registry: PathBuf,
}

impl Programs {
    /// Finds them in `place`, or says how to get them.
    pub fn find(place: Option<&Path>) -> Outcome<Self> {
        let place = place.unwrap_or(Path::new("."));
        let find = |name: &str| {
            let path = place.join(name);
            fs::canonicalize(&path).map_err(|_| {
                Trouble::new(format!(
                    "{} is missing: build it with `cargo build --release -p session-stream --bins` and put it there, or \
                     leave --session-nodes out",
                    path.display()
                ))
            })
        };
        Ok(Self { node: find("session-node")?, registry: find("session-registry")? })
    }

    /// The registry, to be run in `node`.
    pub fn registry(&self, node: &Node) -> Command {
        let mut registry = Command::new(&self.registry);
        registry.arg("--listen").arg(format!("{}:{REGISTRY_PORT}", node.v4));
        registry
    }

    /// A Session node, to be run in `node`.
    pub fn node(&self, plan: &Plan, node: &Node) -> Outcome<Command> {
        let registry = plan.nodes.iter().find(|node| node.role == Role::Registry);
        let registry = registry.ok_or_else(|| Trouble::new("the network has no registry"))?;
        let data = data_dir(node);
        fs::create_dir_all(&data).or_trouble(|| format!("cannot make {}", data.display()))?;
        let mut session = Command::new(&self.node);
        session.arg("--data-dir").arg(data).arg("--private").env("NO_COLOR", "1");
        session.arg("--registry").arg(format!("http://{}:{REGISTRY_PORT}", registry.v4));
        Ok(session)
    }
}

/// Gives a Session node the key it is registered under: a seed, as `session-node --key` reads it.
pub fn write_key(node: &Node, seed: &[u8; 32]) -> Outcome<()> {
    let data = data_dir(node);
    fs::create_dir_all(&data).or_trouble(|| format!("cannot make {}", data.display()))?;
    write_private(&data.join("key_ed25519"), seed)
}

fn data_dir(node: &Node) -> PathBuf {
    node.dir.join("session")
}

/// Whether the programs beside the daemon need nothing more, as their log says: the registry listens, and a Session node
/// knows of all the others.
pub fn suffices(node: &Node, all: usize) -> bool {
    let says = |words: &str| {
        let log = fs::read(node.log()).unwrap_or_default();
        String::from_utf8_lossy(&log).contains(words)
    };
    match node.role {
        Role::Relay | Role::Client | Role::Service => true,
        Role::Registry => says("session-registry: serves"),
        Role::Session => says(&format!(": {all} nodes, 0 left out")),
    }
}
