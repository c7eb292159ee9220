//! A node out of files: registry, bootstrap contacts, what an earlier run kept, and keys, each checked with an error that
//! names the file. Neighbours: `config` says where the files are, `keyfile` reads keys, `run` starts what comes of it.

use crate::config::{self, Role, Settings};
use crate::keyfile;
use crate::trouble::{OrTrouble, Outcome, Trouble};
use bytes::Bytes;
use lokinet_core::crypto::key::Identity;
use lokinet_core::driver;
use lokinet_core::flow::lease::Range;
use lokinet_core::node::config::{ClientConfig, RelayConfig};
use lokinet_core::node::{Config, Node, Trade};
use lokinet_core::time::Now;
use lokinet_core::wire::addrs::Addrs;
use lokinet_core::wire::contact::NetId;
use lokinet_core::wire::registry::{Refused, Registry};
use std::fs;
use std::path::Path;
use zeroize::Zeroizing;

/// Largest registry or bootstrap file read, in bytes.
const FILE_MAX: u64 = 4 << 20;

/// A node and a relay's seed, which its links prove.
pub struct Assembled {
    /// The node.
    pub node: Node,
    /// The relay's secret seed.
    pub identity: Option<Zeroizing<[u8; 32]>>,
}

/// Makes the node. `range` holds the TUN device's addresses; a relay has none.
///
/// # Errors
/// When a file is missing, unreadable or not what it should be.
pub fn assemble(settings: &Settings, range: Range, now: Now) -> Outcome<Assembled> {
    let saved = driver::load(&settings.router.data_dir);
    let registry = newest(settings, registry(&settings.registry, settings.router.netid, now)?, saved.registry.as_ref());
    let bootstraps =
        settings.bootstrap.iter().map(|path| read(path, "[bootstrap] add-node")).collect::<Outcome<_>>()?;
    let seed = identity(settings)?;
    let (trade, identity) = match settings.role {
        Role::Client => (client(settings, &seed, range), None),
        Role::Relay => {
            let identity = Identity::from_seed(&seed);
            if !registry.lists(&lokinet_core::wire::id::RelayId(identity.public())) {
                tracing::warn!(
                    "this relay's key is not in the registry {}: nobody will use it until it is; its address is {}",
                    settings.registry.file.display(),
                    lokinet_core::wire::address::snode(&lokinet_core::wire::id::RelayId(identity.public()))
                );
            }
            (relay(settings, identity), Some(seed))
        }
    };
    let config = Config {
        netid: settings.router.netid,
        private: !settings.router.block_bogons,
        registry,
        bootstraps,
        saved,
        aes: driver::fast_aes(),
        trade,
    };
    let mut random = Zeroizing::new([0; 32]);
    getrandom::fill(random.as_mut_slice()).or_trouble(|| "the system gives no random bytes".into())?;
    Ok(Assembled { node: Node::new(config, random, now), identity })
}

fn client(settings: &Settings, seed: &[u8; 32], range: Range) -> Trade {
    let network = &settings.network;
    Trade::Client(Box::new(ClientConfig {
        identity: Identity::from_seed(seed),
        reachable: network.reachable,
        hops: network.hops,
        paths: network.paths,
        lifetime: network.lifetime,
        strict: network.strict.clone(),
        range,
        mapaddr: network.mapaddr.clone(),
        srv: network.srv.clone(),
        netid: settings.router.netid_text.clone(),
    }))
}

fn relay(settings: &Settings, identity: Identity) -> Trade {
    Trade::Relay(Box::new(RelayConfig { identity, addrs: Addrs::from_list(&settings.router.public) }))
}

/// The key we are known by: kept in a file, or made now and forgotten with this run.
fn identity(settings: &Settings) -> Outcome<Zeroizing<[u8; 32]>> {
    let file = match settings.role {
        Role::Client => settings.network.keyfile.as_deref(),
        Role::Relay => Some(settings.router.identity_key.as_path()),
    };
    let fresh = || {
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(seed.as_mut_slice()).map(|()| seed).or_trouble(|| "the system gives no random bytes".into())
    };
    match file {
        Some(path) => {
            let seed = fresh()?;
            keyfile::load_or_create(path, || *seed).map_err(|error| Trouble::new(error.to_string()))
        }
        None => fresh(),
    }
}

/// The registry that was read, unless an earlier run had a newer one: nobody sets a node back by a restart.
fn newest(settings: &Settings, read: Registry, kept: Option<&Bytes>) -> Registry {
    let (wanted, serial, signed) = (&settings.registry, read.serial, read.signed.clone());
    let newest = read.or_kept(kept, settings.router.netid, &wanted.authorities, wanted.threshold);
    if newest.signed != signed {
        tracing::warn!(
            "[registry] file {} (serial {serial}) is not newer than the edition this node had before (serial {}), which \
             is used on: get the present one from those who run the network; only if they have set it back themselves, \
             remove {} and start again",
            wanted.file.display(),
            newest.serial,
            settings.router.data_dir.join("registry.signed").display()
        );
    }
    newest
}

/// Reads and verifies the registry.
///
/// # Errors
/// When the file cannot be read or does not count; the error says why and what to do.
pub fn registry(wanted: &config::Registry, netid: NetId, now: Now) -> Outcome<Registry> {
    let signed = read(&wanted.file, "[registry] file")?;
    Registry::verify(signed, netid, &wanted.authorities, wanted.threshold, now.wall).map_err(|refused| {
        let remedy = match refused {
            Refused::Malformed => "get it again from those who run the network",
            Refused::OtherNetwork => "set [router] netid to that network's, or get this network's registry",
            Refused::OutOfTime => "get the present one, and look at this machine's clock",
            Refused::TooFewSignatures => "check the keys in [registry] authority with those who run the network",
        };
        Trouble::new(format!("[registry] file {}: {refused}; {remedy}", wanted.file.display()))
    })
}

fn read(path: &Path, option: &str) -> Outcome<Bytes> {
    let describe = || format!("{option}: cannot read {}", path.display());
    let size = fs::metadata(path).or_trouble(describe)?.len();
    if size > FILE_MAX {
        return Err(Trouble::new(format!("{option}: {} has {size} bytes; that is no such file", path.display())));
    }
    fs::read(path).map(Bytes::from).or_trouble(describe)
}
