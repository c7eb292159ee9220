//! The house's laws that a reader of its files can judge: floors look down only, one page holds one thought, names say
//! something, and nothing comes in from outside below its version floor.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Most lines of one file.
const PAGE: usize = 600;

/// A room's floor in `lokinet-core`; `None` for what stands beside the tower and may be used by every floor.
fn floor(room: &str) -> Option<u8> {
    Some(match room {
        "time" | "wire" | "crypto" | "queue" | "shared" => 0,
        "netdb" | "link" => 1,
        "path" | "transit" => 2,
        "session" => 3,
        "flow" => 4,
        "node" => 5,
        "driver" => 6,
        "config" | "error" | "spec" => return None,
        // A constant or macro of the crate's own is no room; a room we do not know must be given its floor here.
        other => {
            let file = house().join(format!("lokinet-core/src/{other}.rs"));
            assert!(!file.exists(), "lokinet-core has a room that is on no floor: {other}");
            return None;
        }
    })
}

#[test]
fn floors_look_down_only() {
    let mut wrong = Vec::new();
    for (path, text) in sources("lokinet-core/src") {
        let parts: Vec<&str> = path.split('/').collect();
        let room = parts[2].trim_end_matches(".rs");
        if room == "lib" {
            continue;
        }
        let Some(own) = floor(room) else { continue };
        for (line, other) in rooms_named(&text) {
            let Some(theirs) = floor(&other) else { continue };
            // Rooms of the ground floor may know each other; elsewhere only the room itself shares its floor.
            if theirs > own || (theirs == own && own != 0 && other != room) {
                wrong.push(format!("{path}:{line}: {room} (floor {own}) knows {other} (floor {theirs})"));
            }
        }
    }
    assert!(wrong.is_empty(), "floors look down only:\n{}", wrong.join("\n"));
}

/// Rooms that a file names through `crate::`, with the line, whether imported, grouped or spelled out; comments
/// excepted.
fn rooms_named(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let code: String = text.lines().map(|line| line.split("//").next().unwrap_or("").to_owned() + "\n").collect();
    for (at, _) in code.match_indices("crate::") {
        // `$crate` is a macro's, and `mycrate::` somebody else's.
        if code[..at].chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        let line = code[..at].matches('\n').count() + 1;
        let rest = &code[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            Some(group) => found.extend(group_heads(group).into_iter().map(|room| (line, room))),
            None => found.push((line, word(rest))),
        }
    }
    found.retain(|(_, room)| !room.is_empty());
    found
}

/// The first words of a group's members: `a::b, c::{d, e}, f}` has a, c and f.
fn group_heads(group: &str) -> Vec<String> {
    let (mut heads, mut depth, mut head) = (Vec::new(), 0, true);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => head = true,
            c if head && (c.is_alphabetic() || c == '_') => {
                heads.push(word(&group[at..]));
                head = false;
            }
            _ => {}
        }
    }
    heads
}

fn word(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

#[test]
fn the_reader_of_imports_can_read() {
    let text = "use crate::wire::id::RelayId;\nuse crate::{time, netdb::{contacts, registry}, link};\n\
                // crate::driver is only a comment\nfn f() { crate::path::x(); $crate::session::y(); }\n";
    let found: Vec<String> = rooms_named(text).into_iter().map(|(line, room)| format!("{line} {room}")).collect();
    assert_eq!(found, ["1 wire", "2 time", "2 netdb", "2 link", "4 path"]);
}

#[test]
fn one_page_one_thought() {
    let mut wrong = Vec::new();
    for (path, text) in all_sources() {
        let lines = text.lines().count();
        if lines > PAGE {
            wrong.push(format!("{path} has {lines} lines; {PAGE} is the most"));
        }
        // A shebang or an attribute may not come before what the file says of itself.
        if !text.starts_with("//! ") {
            wrong.push(format!("{path} does not open with a paragraph saying what it is"));
        }
        if path.ends_with("/mod.rs") {
            wrong.push(format!("{path}: the house writes foo.rs and foo/, never mod.rs"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn names_say_something() {
    let empty = ["manager", "context", "handler", "util", "utils", "common", "types", "helper", "helpers", "misc"];
    let words = ["Manager", "Context", "Handler"];
    let mut wrong = Vec::new();
    for (path, text) in all_sources() {
        let stem = Path::new(&path).file_stem().unwrap().to_string_lossy().to_string();
        if empty.contains(&stem.as_str()) || path.split('/').any(|part| empty.contains(&part)) {
            wrong.push(format!("{path}: the file's name says nothing"));
        }
        for (number, line) in text.lines().enumerate() {
            let line = line.trim_start().trim_start_matches("pub ").trim_start_matches("pub(crate) ");
            let line = line.trim_start_matches("pub(super) ").trim_start_matches("const ").trim_start_matches("async ");
            let at = number + 1;
            for keyword in ["struct ", "enum ", "trait ", "type "] {
                let name = line.strip_prefix(keyword).map(word).unwrap_or_default();
                if words.iter().any(|bad| name.ends_with(bad)) {
                    wrong.push(format!("{path}:{at}: {name}"));
                }
            }
            let name = line.strip_prefix("fn ").map(word).unwrap_or_default();
            if name.starts_with("get_") {
                wrong.push(format!("{path}:{at}: {name}; say what it is, not that it is got"));
            }
            let name = line.strip_prefix("mod ").map(word).unwrap_or_default();
            if empty.contains(&name.as_str()) {
                wrong.push(format!("{path}:{at}: mod {name}"));
            }
        }
    }
    assert!(wrong.is_empty(), "names that say nothing:\n{}", wrong.join("\n"));
}

#[test]
fn nothing_comes_in_below_its_version_floor() {
    let lock = fs::read_to_string(house().join("Cargo.lock")).unwrap();
    let deny = fs::read_to_string(house().join("deny.toml")).unwrap();
    let quoted = |line: &str, key: &str| {
        let rest = &line[line.find(key)? + key.len()..];
        Some(rest.split('"').nth(1)?.to_owned())
    };
    let mut inside: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut name = String::new();
    for line in lock.lines() {
        if line.starts_with("name = ") {
            name = quoted(line, "name").unwrap();
        } else if line.starts_with("version = ") && !name.is_empty() {
            inside.entry(std::mem::take(&mut name)).or_default().push(quoted(line, "version").unwrap());
        }
    }
    assert!(inside.len() > 50, "Cargo.lock was not understood");
    let rules: Vec<String> = deny.lines().filter_map(|line| quoted(line, "{ crate")).collect();
    assert!(rules.len() > 20, "deny.toml was not understood");
    let mut wrong = Vec::new();
    for rule in rules {
        let (name, least) = rule.split_once(":<").unwrap_or((&rule, ""));
        for version in inside.get(name).into_iter().flatten() {
            if least.is_empty() || numbers(version) < numbers(least) {
                wrong.push(format!("{name} {version} is banned by `{rule}` in deny.toml"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A version's three numbers; a pre-release counts as older than its release.
fn numbers(version: &str) -> (u64, u64, u64, bool) {
    let plain = version.split('+').next().unwrap_or_default();
    let (plain, released) = plain.split_once('-').map_or((plain, true), |(plain, _)| (plain, false));
    let mut parts = plain.split('.').map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0), parts.next().unwrap_or(0), released)
}

fn house() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn all_sources() -> BTreeMap<String, String> {
    let rooms = ["lokinet-core", "lokinet-daemon", "session-stream", "tests"];
    rooms.into_iter().flat_map(sources).collect()
}

/// Every Rust file below a folder, by its path from the workspace's root.
fn sources(folder: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![house().join(folder)];
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
