//! The files a network starts from: keys, the signed registry of relays, each node's `lokinet.ini`, and the three files of
//! `/etc` it sees. Written before anything runs; the daemon reads them as it would read anyone's.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

use data_encoding::HEXLOWER;
use lokinet_core::crypto::key::Identity;
use lokinet_core::time::Wall;
use lokinet_core::wire::address;
use lokinet_core::wire::addrs::Addrs;
use lokinet_core::wire::contact::NetId;
use lokinet_core::wire::id::RelayId;
use lokinet_core::wire::registry::{self, Listing};

use super::plan::{Node, Plan, RELAY_PORT, RESOLVER, Role, write_private};
use super::session;
use crate::keyfile;
use crate::trouble::{OrTrouble, Outcome, Trouble};

/// The network's name: nobody else's packets are taken for ours.
const NETID: &str = "devnet";
/// A site's keyfile, in its folder.
const SERVICE_KEY: &str = "data/service.private";
/// How long the registry counts: longer than any laboratory lives.
const VALID: Duration = Duration::from_secs(365 * 24 * 3600);

/// Writes everything, and notes the relays' identities in the plan.
pub fn write(plan: &mut Plan) -> Outcome<()> {
    let authority = seed()?;
    write_private(&plan.dir.join("authority.key"), &keyfile::encode(&authority))?;
    let (mut relays, mut seeds) = (Vec::new(), BTreeMap::new());
    for node in &mut plan.nodes {
        fs::create_dir_all(node.dir.join("data")).or_trouble(|| format!("cannot make {}", node.dir.display()))?;
        if node.role == Role::Relay {
            let seed = seed()?;
            write_private(&node.dir.join("data/identity.key"), &keyfile::encode(&seed))?;
            let id = public(&seed);
            node.id = Some(HEXLOWER.encode(&id));
            let hint = Addrs::from_list(&node.hints());
            relays.push(Listing { id: RelayId(id), operator: u32::from(node.number), hint });
            seeds.insert(node.number, seed);
        }
        // As in life, who stores messages is registered as a relay, too, as long as there are such: so it has a `.snode`
        // name. Relays come first in the plan.
        if let Some(seed) = seeds.get(&node.number).filter(|_| node.role == Role::Session) {
            write_private(&node.dir.join(SERVICE_KEY), &keyfile::encode(seed))?;
            session::write_key(node, seed)?;
        }
    }
    write_registry(&plan.dir, &authority, &relays)?;
    let authority = HEXLOWER.encode(&public(&authority));
    for node in &plan.nodes {
        if node.role.has_daemon() {
            write_private(&node.ini(), ini(plan, node, &authority).as_bytes())?;
        }
        write_etc(plan, node)?;
    }
    Ok(())
}

fn seed() -> Outcome<[u8; 32]> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).or_trouble(|| "the system gives no random bytes".into())?;
    Ok(seed)
}

fn public(seed: &[u8; 32]) -> [u8; 32] {
    Identity::from_seed(seed).public()
}

/// Writes the list of relays, signed by the network's only authority.
fn write_registry(dir: &Path, authority: &[u8; 32], listings: &[Listing]) -> Outcome<()> {
    let authority = Identity::from_seed(authority);
    let now = lokinet_core::driver::now().wall;
    let netid = NetId::new(NETID).ok_or_else(|| Trouble::new("the network's name is too long"))?;
    let signed = registry::sign(netid, now.millis(), Wall::from_secs(0), now.plus(VALID), listings, &[authority]);
    write_private(&dir.join("registry.signed"), &signed)
}

fn ini(plan: &Plan, node: &Node, authority: &str) -> String {
    let mut text =
        format!("# Written by lokinet devnet for {}.\n[router]\nnetid={NETID}\nblock-bogons=false\n", node.name);
    let _ = writeln!(text, "data-dir={}", node.dir.join("data").display());
    match node.role {
        Role::Relay => {
            let _ =
                writeln!(text, "public-ip={}\npublic-port={RELAY_PORT}\n\n[bind]\ninbound={}", node.v4, node.hint());
            if let Some(v6) = node.v6 {
                let _ = writeln!(text, "inbound=[{v6}]:{RELAY_PORT}");
            }
            text.push_str("\n[network]\ntype=null\n");
        }
        Role::Registry => {}
        Role::Client | Role::Service | Role::Session => {
            text.push_str("\n[network]\nifname=lokitun0\n");
            if let Some(hops) = node.hops {
                let _ = writeln!(text, "hops={hops}");
            }
            if node.hops == Some(1) {
                text.push_str(&shared_doors(plan));
            }
            if node.role.is_site() {
                let _ = writeln!(text, "keyfile={}", node.dir.join(SERVICE_KEY).display());
            }
            let _ = writeln!(text, "\n[dns]\nbind={RESOLVER}:53\nupstream=");
        }
    }
    let registry = plan.dir.join("registry.signed");
    let _ = writeln!(text, "\n[registry]\nfile={}\nauthority={authority}\nthreshold=1", registry.display());
    let _ = writeln!(text, "\n[api]\nenabled=true\nsocket={}", node.socket().display());
    text.push_str("\n[logging]\nlevel=info\ntype=print\n");
    text
}

/// Over one hop the guard is the pivot too, so that only those meet who have the same guards; the option wants two.
fn shared_doors(plan: &Plan) -> String {
    let ids = plan.nodes.iter().filter_map(|node| node.id.as_deref()).take(2);
    let keys = ids.filter_map(|id| HEXLOWER.decode(id.as_bytes()).ok()?.try_into().ok());
    keys.map(|key| format!("strict-connect={}\n", address::snode(&RelayId(key)))).collect()
}

/// What the node finds in `/etc` in place of the host's.
pub const ETC: [&str; 3] = ["resolv.conf", "nsswitch.conf", "hosts"];

fn write_etc(plan: &Plan, node: &Node) -> Outcome<()> {
    let mut hosts = format!("127.0.0.1 localhost\n::1 localhost ip6-localhost\n127.0.1.1 {}\n", node.name);
    for other in plan.nodes.iter().filter(|other| other.name != node.name) {
        let _ = writeln!(hosts, "{} {}", other.v4, other.name);
    }
    let nsswitch = "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nservices: files\nprotocols: files\n";
    let resolv = format!("nameserver {RESOLVER}\n");
    let etc = node.dir.join("etc");
    fs::create_dir_all(&etc).or_trouble(|| format!("cannot make {}", etc.display()))?;
    for (name, text) in ETC.into_iter().zip([resolv.as_str(), nsswitch, hosts.as_str()]) {
        fs::write(etc.join(name), text).or_trouble(|| format!("cannot write {}", etc.join(name).display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    #[test]
    fn relays_listen_where_the_registry_sends_people_and_only_visitors_have_a_resolver() {
        let dir = Path::new("/tmp/d");
        let plan = Plan::new(dir, "/bin/true".into(), 2, 1, 1).expect("a plan");
        let relay = ini(&plan, &plan.nodes[1], "aa");
        assert!(relay.contains("\npublic-ip=10.2.0.1\n") && relay.contains("\ninbound=10.2.0.1:1090\n"));
        assert!(relay.contains("\ntype=null\n") && !relay.contains("[dns]"));
        let service = ini(&plan, &plan.nodes[3], "aa");
        assert!(service.contains("keyfile=/tmp/d/nodes/service1/data/service.private\n"));
        assert!(service.contains("upstream=\n") && !ini(&plan, &plan.nodes[2], "aa").contains("keyfile"));
    }

    #[test]
    fn the_daemon_takes_what_is_written_without_a_word() {
        let dir = std::env::temp_dir().join(format!("lokinet-devnet-files-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("a directory");
        let plan = Plan::new(&dir, "/bin/true".into(), 2, 3, 1).expect("a plan");
        let mut plan = plan.with_hops(&[1, 4]);
        write(&mut plan).expect("files");
        for node in &plan.nodes {
            let role = if node.role == Role::Relay { config::Role::Relay } else { config::Role::Client };
            let loaded = config::load(&node.ini(), role);
            let (settings, warnings) = loaded.unwrap_or_else(|complaints| panic!("{}: {complaints}", node.name));
            assert!(warnings.is_empty(), "{}: {warnings:?}", node.name);
            assert_eq!(settings.router.public.first().copied(), (node.role == Role::Relay).then(|| node.hint()));
            assert_eq!(settings.api.socket, node.socket());
            if node.role != Role::Relay {
                let one = node.number != 2;
                assert_eq!(settings.network.hops, if one { 1 } else { 4 }, "{}", node.name);
                assert_eq!(settings.network.strict.len(), if one { 2 } else { 0 }, "{}", node.name);
            }
        }
        let relay = plan.nodes.first().expect("relays come first");
        let seed = keyfile::load(&relay.dir.join("data/identity.key")).expect("a relay's key");
        assert_eq!(relay.id.as_deref(), Some(HEXLOWER.encode(&public(&seed)).as_str()));
        fs::remove_dir_all(&dir).expect("no directory");
    }
}
