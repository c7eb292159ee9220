//! The specification against the code: every number in a table headed *constant* is the code's, every constant here is
//! in the specification, every test that a promise names exists, and names of requirements and chapters are right.

#![allow(clippy::unwrap_used)]

use core::time::Duration;
use lokinet_core::crypto::{blind, exchange, key, onion, seal, window};
use lokinet_core::flow::{dns, lease};
use lokinet_core::link::{self, channel, lane, request};
use lokinet_core::netdb::{fetch, guards, profile, shelf};
use lokinet_core::node::{client, io, relay, worker};
use lokinet_core::path::{self, live, pool};
use lokinet_core::queue::{self, codel};
use lokinet_core::session::{self, answer, call, convo, lookup, publish};
use lokinet_core::transit::{self, admit, hop, join};
use lokinet_core::wire::cell::{self, Size};
use lokinet_core::wire::packet::{coalesce, segment};
use lokinet_core::wire::request as shapes_request;
use lokinet_core::wire::{address, addrs, build, contact, control, fragment, introset, registry, session as shapes};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// A number of the specification: bytes and counts as they are, times in microseconds.
fn number(text: &str) -> Option<u128> {
    let (digits, unit) = text.split_once(' ').unwrap_or((text, ""));
    let digits: u128 = digits.replace(',', "").parse().ok()?;
    let worth = match unit {
        "" | "B" | "µs" => 1,
        "ms" => 1_000,
        "s" => 1_000_000,
        "min" => 60_000_000,
        "h" => 3_600_000_000,
        "d" => 86_400_000_000,
        _ => return None,
    };
    Some(digits * worth)
}

/// Everything that the specification's tables must say, by the words they say it with.
fn code() -> BTreeMap<&'static str, u128> {
    let mut all = BTreeMap::new();
    let mut put =
        |name: &'static str, value: u128| assert!(all.insert(name, value).is_none(), "{name} stands here twice");
    let counts: &[(&str, usize)] = &[
        ("public key of an identity", key::Identity::from_seed(&[1; 32]).public().len()),
        ("signature", key::SIGNATURE),
        ("hybrid public key", exchange::PUBLIC),
        ("hybrid ciphertext", exchange::CIPHERTEXT),
        ("hybrid seed", exchange::SEED),
        ("tag", seal::TAG),
        ("replay window", window::SPAN as usize),
        ("contact", contact::CONTACT),
        ("network id", contact::NETID),
        ("addresses", addrs::ADDRS),
        ("relays in a registry", registry::MAX_RELAYS),
        ("enough contacts", fetch::ENOUGH),
        ("contacts in a direct page", relay::PAGE),
        ("contacts in an answer over a path", control::CONTACTS_MAX),
        ("names in an answer over a path", control::NAMES_MAX),
        ("relays told of a new contact", relay::SPREAD),
        ("sendings anew of a request", request::AGAIN_MAX.into()),
        ("paths in one ended", shapes_request::ENDED_MAX),
        ("pages of a round", fetch::PAGES_MAX as usize),
        ("guards kept", guards::KEPT),
        ("guards on the list", guards::KEPT_MAX),
        ("hops of a path", cell::MAX_HOPS),
        ("introsets on a shelf", shelf::KEPT_MAX),
        ("nearest relays that keep an introset", shelf::NEAR),
        ("copies of an introset", lookup::COPIES),
        ("request", io::REQUEST_MAX),
        ("reply", io::REPLY_MAX),
        ("requests open from one peer", io::REQUESTS_OPEN as usize),
        ("requests waiting for one link", request::QUEUED_MAX),
        ("requests open on one link", request::SENT_MAX),
        ("dials under way", link::DIALS_MAX),
        ("unreached places remembered", link::UNREACHED_MAX),
        ("neighbours asked at once", relay::WAITING_MAX),
        ("client requests at once", relay::CLIENT_REQUESTS.0 as usize),
        ("client requests a second", relay::CLIENT_REQUESTS.1 as usize),
        ("client pages at once", relay::CLIENT_PAGES.0 as usize),
        ("client pages a second", relay::CLIENT_PAGES.1 as usize),
        ("relay requests at once", relay::RELAY_REQUESTS.0 as usize),
        ("relay requests a second", relay::RELAY_REQUESTS.1 as usize),
        ("links of a node", link::LINKS_MAX),
        ("cell header", cell::HEADER),
        ("channel id", cell::CHANNEL_ID),
        ("path id", cell::PATH_ID),
        ("sub-channels", channel::SHARDS),
        ("cells under one channel key", channel::REKEY_CELLS as usize),
        ("cells before a channel key may age", channel::REKEY_AFTER as usize),
        ("cells staged for one peer", link::STAGED_MAX),
        ("workers of a relay", worker::WORKERS_MAX),
        ("messages waiting at a worker", worker::MESSAGES_MAX),
        ("turn of a path", queue::QUANTUM),
        ("shortest standing queue", codel::LEAST),
        ("full cell", Size::Full.datagram()),
        ("small cell", Size::Small.datagram()),
        ("full onion", Size::Full.onion()),
        ("small onion", Size::Small.onion()),
        ("layer overhead", onion::OVERHEAD),
        ("full payload", Size::Full.payload()),
        ("small payload", Size::Small.payload()),
        ("full layer at depth 1", Size::Full.layer(1)),
        ("full layer at depth 2", Size::Full.layer(2)),
        ("full layer at depth 3", Size::Full.layer(3)),
        ("full layer at depth 4", Size::Full.layer(4)),
        ("small layer at depth 1", Size::Small.layer(1)),
        ("small layer at depth 2", Size::Small.layer(2)),
        ("small layer at depth 3", Size::Small.layer(3)),
        ("small layer at depth 4", Size::Small.layer(4)),
        ("layer counter", onion::COUNTER),
        ("layer epochs ahead", onion::EPOCHS_AHEAD as usize),
        ("build slots", cell::MAX_HOPS),
        ("record header", build::HEADER),
        ("record", build::RECORD),
        ("rider", build::RIDER),
        ("build", build::BUILD),
        ("reply salt", build::SALT),
        ("reply slot", build::REPLY_SLOT),
        ("build reply", build::REPLY),
        ("token", build::TOKEN),
        ("client builds at once", admit::CLIENT_RATE.0 as usize),
        ("client builds a second", admit::CLIENT_RATE.1 as usize),
        ("relay builds at once", admit::RELAY_RATE.0 as usize),
        ("relay builds a second", admit::RELAY_RATE.1 as usize),
        ("builds remembered", admit::REPLAYS_MAX),
        ("builds remembered of one link", admit::REPLAYS_OF_LINK),
        ("hops lent", transit::HOPS_MAX),
        ("hops lent to one client", transit::HOPS_OF_CLIENT),
        ("cells held for a build", path::build::HELD_MAX),
        ("callers on a host path", join::CALLERS_MAX),
        ("fragment header", fragment::HEADER),
        ("fragments of a message", fragment::MAX_FRAGMENTS),
        ("unfinished messages", fragment::MAX_PARTIAL),
        ("bytes of unfinished messages", fragment::HELD_MAX),
        ("bytes of unfinished answers", fragment::PAGES_HELD_MAX),
        ("question tries", live::TRIES as usize),
        ("questions open on a path", live::ASKS_MAX),
        ("answers remembered", hop::ANSWERS_MAX),
        ("bytes of answers remembered", hop::ANSWERS_HELD_MAX),
        ("questions at once", hop::QUESTIONS.0 as usize),
        ("questions a second", hop::QUESTIONS.1 as usize),
        ("paths of a client", path::PATHS_MAX),
        ("pool builds at once", pool::BUILDING_MAX),
        ("paths for questions of a service", pool::ASKING),
        ("introset", introset::INTROSET),
        ("introset inside", introset::INSIDE),
        ("leases of an introset", introset::MAX_LEASES),
        ("relays asked", lookup::WIDE),
        ("denials that count", lookup::DENIALS),
        ("introset refreshes of a call", call::REFRESHES as usize),
        ("packets waiting for a call", call::QUEUE_MAX),
        ("calls at once", session::CALLS_MAX),
        ("hello", shapes::HELLO),
        ("welcome", shapes::WELCOME),
        ("hellos remembered", answer::REMEMBERED_MAX),
        ("hellos at once", answer::RATE.0 as usize),
        ("hellos a second", answer::RATE.1 as usize),
        ("handshakes being collected", session::COLLECTING_MAX),
        ("data header", shapes::HEADER),
        ("full session layer", shapes::layer(Size::Full)),
        ("small session layer", shapes::layer(Size::Small)),
        ("frames in a full cell", shapes::frames(Size::Full)),
        ("frames in a small cell", shapes::frames(Size::Small)),
        ("frame header", shapes::FRAME),
        ("pieces of a super-packet", segment::PIECES_MAX),
        ("packets joined", coalesce::RUN_MAX),
        ("flows joined", coalesce::FLOWS_MAX),
        ("routes a caller keeps", session::ROUTES),
        ("routes known", convo::ROUTES_MAX),
        ("conversations at once", session::CONVOS_MAX),
        ("characters of a key", address::KEY_CHARS),
        ("characters of a short name", address::SHORT_NAME_MAX),
        ("characters of a label", address::LABEL_MAX),
        ("characters of a name", address::NAME_MAX),
    ];
    counts.iter().for_each(|&(name, value)| put(name, value as u128));
    put("leases at once", lease::LEASES_MAX as u128);
    put("answer TTL", dns::TTL.into());
    let times: &[(&str, Duration)] = &[
        ("blinding period", blind::PERIOD),
        ("onion key published", admit::ROTATE),
        ("onion key kept", admit::KEEP),
        ("answers kept", hop::ANSWERS_KEPT),
        ("contact lifetime", contact::LIFETIME),
        ("contact skew", contact::SKEW),
        ("guard lifetime", guards::LIFETIME),
        ("pause before a missed relay is asked for", fetch::MISSED),
        ("profile half-life", profile::HALF_LIFE),
        ("neighbour patience", relay::PATIENCE),
        ("harmless wait", codel::TARGET),
        ("standing wait", codel::INTERVAL),
        ("staged", lane::STAGED_TIME),
        ("idle link between relays", io::RELAY_IDLE),
        ("keep-alive between relays", io::RELAY_ALIVE),
        ("idle client's link", io::CLIENT_IDLE),
        ("keep-alive of a client", io::CLIENT_ALIVE),
        ("channel key age", channel::REKEY_TIME),
        ("channel key grace", channel::REKEY_GRACE),
        ("layer epoch", onion::EPOCH_TIME),
        ("layer epoch grace", onion::EPOCH_GRACE),
        ("build clock skew", Duration::from_secs(60 * admit::SKEW_MINUTES)),
        ("build lifetime step", build::LIFETIME_STEP),
        ("build time step", Duration::from_secs(60 * build::MINUTE_STEP)),
        ("longest path life", transit::LIFETIME_MAX),
        ("build patience", path::BUILD_PATIENCE),
        ("pivot's patience", transit::PIVOT_PATIENCE),
        ("hop's patience", transit::HOP_PATIENCE),
        ("question repeat", live::REPEAT),
        ("path idle probe", live::IDLE),
        ("used path's probe", live::USED),
        ("path silence", live::SILENCE),
        ("path dead", live::DEAD),
        ("introset lifetime", introset::LIFETIME),
        ("publish every", publish::EVERY),
        ("edition validity", publish::VALID),
        ("publish gathering", publish::GATHER),
        ("publish retry", publish::AGAIN),
        ("second wave", lookup::SECOND),
        ("lookup gives up", lookup::GIVE_UP),
        ("lookup settles", lookup::SETTLE),
        ("lookup waits for paths", lookup::WAIT),
        ("lookup begins anew for", lookup::UNSURE),
        ("lookup pause", lookup::AGAIN),
        ("settled relay", relay::SETTLED),
        ("guards given up for", client::CUT_OFF),
        ("grown relay", relay::GROWN),
        ("hop unused", transit::UNUSED),
        ("call patience", call::PATIENCE),
        ("hello repeat", call::REPEAT),
        ("introset refresh pause", call::REFRESH_PAUSE),
        ("hello clock skew", answer::SKEW),
        ("handshake key published", answer::ROTATE),
        ("conversation silence", convo::SILENCE),
        ("conversation probe every", convo::PROBE_EVERY),
        ("conversation lost", session::LOST),
        ("stale leases", session::STALE),
        ("unreached leases left alone", session::UNREACHED),
        ("conversation idle", session::IDLE),
        ("lease rest", lease::TTL),
    ];
    times.iter().for_each(|&(name, value)| put(name, value.as_micros()));
    all
}

#[test]
fn every_number_is_the_codes() {
    let mut code = code();
    let mut wrong = Vec::new();
    for (chapter, text) in chapters() {
        for (line, cells) in constants(&text) {
            let (name, value) = (cells[0].as_str(), cells[1].as_str());
            match (code.remove(name), number(value)) {
                (None, _) => wrong.push(format!("{chapter}:{line}: the code knows no `{name}`, or it stands twice")),
                (_, None) => wrong.push(format!("{chapter}:{line}: `{value}` is no number")),
                (Some(real), Some(said)) if real != said => {
                    wrong.push(format!("{chapter}:{line}: `{name}` is {real} in the code and {said} ({value}) here"));
                }
                _ => {}
            }
        }
    }
    wrong.extend(code.keys().map(|name| format!("no chapter says what `{name}` is")));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The rows of tables headed *constant*, with their line numbers.
fn constants(text: &str) -> Vec<(usize, Vec<String>)> {
    let mut rows = Vec::new();
    let mut inside = false;
    for (number, line) in text.lines().enumerate() {
        let Some(row) = line.strip_prefix('|') else {
            inside = false;
            continue;
        };
        let cells: Vec<String> = row.trim_end_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
        if cells[0] == "constant" {
            inside = true;
        } else if inside && !cells[0].starts_with("---") {
            rows.push((number + 1, cells));
        }
    }
    rows
}

/// Where fields lie in the tables headed *offset*: each begins where the one before ends.
#[test]
fn layouts_have_no_gaps() {
    let plain =
        |text: &str| text.split(" + ").map(|part| part.replace(',', "").parse::<usize>().unwrap()).sum::<usize>();
    let mut ends = Vec::new();
    for (chapter, text) in chapters() {
        let mut at = None;
        for (number, line) in text.lines().enumerate() {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            match (at, cells.as_slice()) {
                (_, ["offset", "bytes", ..]) => at = Some(0),
                (Some(_), [rule, ..]) if rule.starts_with("---") => {}
                (Some(end), [offset, bytes, ..]) => {
                    assert_eq!(plain(offset), end, "{chapter}:{}: a gap or an overlap", number + 1);
                    at = Some(end + plain(bytes));
                }
                (Some(end), _) => {
                    ends.push(end);
                    at = None;
                }
                (None, _) => {}
            }
        }
    }
    assert_eq!(ends, [contact::CONTACT, build::HEADER, introset::INTROSET]);
}

#[test]
fn requirements_have_names_of_their_own_and_are_referred_to_by_them() {
    let (mut made, mut referred) = (BTreeSet::new(), Vec::new());
    for (chapter, text) in chapters() {
        for (at, _) in text.match_indices('[') {
            let name = text[at + 1..].split(']').next().unwrap_or_default();
            let is_name = name.split_once('-').is_some_and(|(word, number)| {
                word.chars().all(|c| c.is_ascii_uppercase()) && !word.is_empty() && number.parse::<u32>().is_ok()
            });
            if is_name && text[..at].ends_with("**") && text[at + name.len() + 2..].starts_with("**") {
                assert!(made.insert(name.to_owned()), "{chapter}: {name} is made twice");
            } else if is_name {
                referred.push((chapter.clone(), name.to_owned()));
            }
        }
    }
    assert!(made.len() > 100, "only {} requirements were found", made.len());
    for (chapter, name) in referred {
        assert!(made.contains(&name), "{chapter} refers to {name}, which is not");
    }
}

#[test]
fn promises_name_tests_that_exist() {
    let (_, promises) = chapters().into_iter().find(|(name, _)| name.starts_with("90")).unwrap();
    let code: String = sources().into_values().collect();
    let (mut named, mut owed) = (0, 0);
    for row in promises.lines().filter(|line| line.starts_with("| **[PROM-")) {
        let held = row.trim_end_matches(" |").rsplit('|').next().unwrap();
        let tests: Vec<&str> = held.split('`').skip(1).step_by(2).collect();
        assert!(!tests.is_empty(), "no test holds this: {row}");
        owed += usize::from(tests.is_empty());
        for test in tests {
            named += 1;
            assert!(code.contains(&format!("fn {test}(")), "no test is called {test}");
        }
    }
    assert!(named > 20, "only {named} tests and {owed} debts were found");
}

#[test]
fn code_refers_to_chapters_that_exist() {
    let numbers: Vec<String> = chapters().into_keys().map(|name| name[..2].to_owned()).collect();
    let mut found = 0;
    for (path, text) in sources().into_iter().filter(|(path, _)| path.starts_with("lokinet-core")) {
        let flowing = text.replace("\n//!", "").replace("\n///", "").split_whitespace().collect::<Vec<_>>().join(" ");
        for part in flowing.to_lowercase().split("spec chapter ").skip(1) {
            found += 1;
            assert!(numbers.iter().any(|number| part.starts_with(number)), "{path} names a chapter that is not");
        }
    }
    assert!(found >= 5, "the search found only {found} references");
}

fn house() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The chapters by file name.
fn chapters() -> BTreeMap<String, String> {
    let all: BTreeMap<String, String> = fs::read_dir(house().join("lokinet-core/spec"))
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().to_string_lossy().to_string(), fs::read_to_string(entry.path()).unwrap()))
        .collect();
    assert_eq!(all.len(), 11, "{:?}", all.keys());
    all
}

/// Every Rust file of the workspace, by its path from the root.
fn sources() -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut folders: Vec<PathBuf> =
        ["lokinet-core", "lokinet-daemon", "session-stream", "tests"].map(|f| house().join(f)).into();
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for path in entries.map(|entry| entry.unwrap().path()) {
            if path.is_dir() && !path.ends_with("target") {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                let name = path.strip_prefix(house()).unwrap().to_string_lossy().to_string();
                found.insert(name, fs::read_to_string(&path).unwrap());
            }
        }
    }
    found
}
