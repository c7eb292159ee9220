//! `[router]` but for its addresses, `[registry]` and `[bootstrap]`: which network this is, and who vouches for its relays.

use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER_PERMISSIVE;
use ed25519_dalek::VerifyingKey;
use lokinet_core::node::worker::WORKERS_MAX;
use lokinet_core::wire::contact::{NETID, NetId};

use super::Registry;
use super::desk::Desk;
use super::value::{self, Fault, quoted};

/// Networks on the public internet, where a private address can only be a mistake or a trap.
const PUBLIC: [&str; 2] = ["lokinet", "gamma"];

/// The network's name, for the wire and for people.
pub fn netid(desk: &mut Desk<'_>) -> (NetId, String) {
    desk.one("router", "netid", |text| {
        let printable = text.bytes().all(|byte| byte.is_ascii_graphic());
        match NetId::new(text).filter(|_| printable) {
            Some(netid) => Ok((netid, text.to_owned())),
            None => {
                let what = format!("{} is no network's name", quoted(text));
                Err(Fault::new(what, format!("write 1 to {NETID} letters, digits or signs")))
            }
        }
    })
}

/// Whether private addresses are refused.
pub fn block_bogons(desk: &mut Desk<'_>, netid: &str) -> bool {
    let block = desk.one("router", "block-bogons", value::boolean);
    if !block && PUBLIC.contains(&netid) {
        let what = format!("private addresses have no place in the public network {netid}");
        let place = desk.place("router", "block-bogons");
        desk.fault(
            &place,
            "router",
            "block-bogons",
            Fault::new(what, "remove the line, or set [router] netid to a private network's name"),
        );
    }
    block
}

/// Threads for a relay's cells.
pub fn workers(desk: &mut Desk<'_>) -> usize {
    desk.one("router", "worker-threads", |text| match value::whole(text)? {
        number if number > WORKERS_MAX => {
            let what = format!("{number} are more threads than a link has channels for");
            Err(Fault::new(what, format!("write {WORKERS_MAX} or less, or 0 to have the number chosen")))
        }
        number => Ok(number),
    })
}

/// Who says who is a relay.
pub fn registry(desk: &mut Desk<'_>) -> Registry {
    let file = desk.one("registry", "file", value::path);
    let file = desk.resolve(&file);
    let given = desk.given.all("registry", "authority").len();
    let authorities = desk.list("registry", "authority", authority);
    desk.no_duplicates("registry", "authority", &authorities, PartialEq::eq);
    let threshold = desk.one("registry", "threshold", |text| match value::whole(text)? {
        0 => Err(Fault::new("a list that nobody has signed counts for nothing", "write 1 or more")),
        number if given > 0 && number > given => {
            let what = format!("{number} signatures are more than there are authorities ({given})");
            Err(Fault::new(what, "write a smaller number, or give all [registry] authority lines"))
        }
        number => Ok(number),
    });
    if given == 0 {
        let what = "no [registry] authority is given, and this build knows no public network yet";
        let remedy = "set authority and file in [registry] to what the operators of your network give out";
        desk.complaints.error(&desk.main.clone(), what, remedy);
    } else if let Err(fault) = there(&file) {
        let place = desk.place("registry", "file");
        desk.fault(&place, "registry", "file", fault);
    }
    Registry { file, authorities: authorities.into_iter().map(|(_, key)| key).collect(), threshold }
}

fn authority(text: &str) -> Result<[u8; 32], Fault> {
    let remedy = "write the 64 hexadecimal digits that the network's operators give out";
    let key: Option<[u8; 32]> = HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok().and_then(|key| key.try_into().ok());
    let Some(key) = key else {
        return Err(Fault::new(format!("{} is not 64 hexadecimal digits", quoted(text)), remedy));
    };
    match VerifyingKey::from_bytes(&key) {
        Ok(point) if !point.is_weak() => Ok(key),
        _ => Err(Fault::new(format!("{text} is not an Ed25519 public key"), remedy)),
    }
}

/// The bootstrap files: those that are named, or the usual one if it is there.
pub fn bootstrap(desk: &mut Desk<'_>) -> Vec<PathBuf> {
    let mut files = desk.list("bootstrap", "add-node", value::path);
    let given = desk.given;
    for entry in given.loose.iter().filter(|entry| entry.section == "connect") {
        let what = format!("[connect] {}: this section is deprecated, and still works", entry.name);
        desk.complaints.warn(&entry.place, what, "write add-node=FILE in [bootstrap] in its place");
        match value::path(&entry.value) {
            Ok(path) => files.push((entry.place.clone(), path)),
            Err(fault) => desk.fault(&entry.place, "connect", &entry.name, fault),
        }
    }
    if files.is_empty() {
        let usual = desk.resolve(Path::new("bootstrap.signed"));
        return if usual.is_file() { vec![usual] } else { Vec::new() };
    }
    let mut found = Vec::new();
    for (place, file) in files {
        let file = desk.resolve(&file);
        match there(&file) {
            Ok(()) => found.push(file),
            Err(fault) => desk.fault(&place, "bootstrap", "add-node", fault),
        }
    }
    found
}

fn there(file: &Path) -> Result<(), Fault> {
    match file.metadata() {
        Ok(facts) if facts.is_file() => Ok(()),
        Ok(_) => Err(Fault::new(format!("{} is not a file", file.display()), "name a file")),
        Err(error) => {
            Err(Fault::new(format!("{}: {error}", file.display()), "put the file there, or name the place where it is"))
        }
    }
}
