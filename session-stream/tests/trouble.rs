//! When the disk, the file or the cap says no: nothing acknowledged is lost, and who runs the node is told what to do.
//! Neighbours: `town`, `store::open`.
#![allow(clippy::unwrap_used, missing_docs)]

mod town;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::json;
use session_stream::node::io::{Body, Input, Now, Origin, Output, Ticket};
use session_stream::store::{CAP_DEFAULT, Damaged, OpenError, Store};
use town::{CLIENT, Owner, Town};

/// A directory of its own for each test, gone when it ends.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Directory {
        let path = std::env::temp_dir().join(format!("session-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Directory(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join("house-0.db")
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A store that was closed with one message in it.
fn kept(directory: &Directory) -> Owner {
    let mut town = Town::in_files(1, &[7], directory.0.clone());
    let owner = Owner::group(1);
    let params = owner.message(&town, 5, b"kept");
    assert_eq!(town.json(0, "store", &params).0, 200);
    owner
}

fn refusal(path: &Path) -> OpenError {
    Store::open(path, CAP_DEFAULT, Damaged::Refuse).err().unwrap()
}

#[test]
fn what_was_acknowledged_is_there_after_a_restart() {
    let directory = Directory::new("restart");
    let owner = kept(&directory);
    let mut town = Town::in_files(2, &[7], directory.0.clone());
    assert_eq!(owner.mailbox(&mut town, 0, 5), [b"kept"]);
}

#[test]
fn a_file_another_process_holds_is_left_to_it() {
    let directory = Directory::new("held");
    let town = Town::in_files(1, &[7], directory.0.clone());
    let error = refusal(&directory.file());
    assert!(matches!(error, OpenError::InUse { .. }), "{error}");
    assert!(error.to_string().starts_with(&directory.file().display().to_string()));
    assert!(error.to_string().ends_with("in use by another process. Stop that one, or name another file"));
    drop(town);
}

#[test]
fn a_damaged_file_is_moved_aside_only_when_asked_for() {
    let directory = Directory::new("damaged");
    let owner = kept(&directory);
    let mut bytes = fs::read(directory.file()).unwrap();
    bytes[..64].fill(b'?');
    fs::write(directory.file(), &bytes).unwrap();
    let error = refusal(&directory.file()).to_string();
    assert!(error.starts_with(&format!("{}: the message store is damaged", directory.file().display())), "{error}");
    assert!(error.contains("--move-damaged-store-aside"), "{error}");
    assert_eq!(fs::read(directory.file()).unwrap(), bytes, "it was not touched");
    drop(Store::open(&directory.file(), CAP_DEFAULT, Damaged::MoveAside).unwrap());
    let aside = directory.0.join("house-0.db.damaged-1");
    assert_eq!(fs::read(&aside).unwrap(), bytes);
    let mut town = Town::in_files(2, &[7], directory.0.clone());
    assert_eq!(owner.mailbox(&mut town, 0, 5).len(), 0);
    // A second time: the first is kept.
    drop(town);
    fs::write(directory.file(), b"not SQLite's at all, but long enough to have a header; and so on and on and on....")
        .unwrap();
    drop(Store::open(&directory.file(), CAP_DEFAULT, Damaged::MoveAside).unwrap());
    assert!(aside.exists() && directory.0.join("house-0.db.damaged-2").exists());
}

#[test]
fn a_file_cut_short_is_noticed() {
    let directory = Directory::new("cut");
    let owner = kept(&directory);
    let _ = owner;
    let bytes = fs::read(directory.file()).unwrap();
    fs::write(directory.file(), &bytes[..4096 * 2]).unwrap();
    assert!(matches!(refusal(&directory.file()), OpenError::Damaged { .. }));
}

#[test]
fn a_newer_layout_and_a_strangers_file_are_refused() {
    let directory = Directory::new("newer");
    let db = rusqlite::Connection::open(directory.file()).unwrap();
    db.execute_batch("PRAGMA user_version = 7; CREATE TABLE messages (x)").unwrap();
    drop(db);
    let error = refusal(&directory.file()).to_string();
    assert!(error.contains("has layout 7, this program knows layouts up to 1. Run the newer program"), "{error}");
    let stranger = directory.0.join("music.db");
    let db = rusqlite::Connection::open(&stranger).unwrap();
    db.execute_batch("CREATE TABLE songs (title); INSERT INTO songs VALUES ('one')").unwrap();
    drop(db);
    let error = refusal(&stranger).to_string();
    assert!(error.contains("its tables are another program's"), "{error}");
    let nowhere = directory.0.join("missing/store.db");
    let error = refusal(&nowhere).to_string();
    assert!(error.contains("See that its directory exists"), "{error}");
}

#[test]
fn a_full_store_refuses_messages_and_still_takes_revocations_and_deletions() {
    let mut town = Town::new(1, &[7]);
    town.houses[0].store_cap = 200_000;
    town.restart(0);
    let owner = Owner::group(1);
    let mut hashes = Vec::new();
    let refused = loop {
        let params = owner.message(&town, 5, &[&[u8::try_from(hashes.len()).unwrap()][..], &[0; 20_000]].concat());
        match town.json(0, "store", &params) {
            (200, body) => hashes.push(body["hash"].as_str().unwrap().to_owned()),
            refused => break refused,
        }
    };
    assert!(hashes.len() >= 5);
    let node = town.houses[0].node.as_mut().unwrap();
    let trouble = node.commit().1.unwrap_err().to_string();
    assert!(
        trouble.ends_with("new messages are refused. Raise --store-size, or wait until messages expire"),
        "{trouble}"
    );
    let entry = &refused.1["swarm"][town.houses[0].hex()];
    assert_eq!(refused.0, 500, "not one member has it");
    assert_eq!((&entry["failed"], &entry["query_failure"]), (&json!(true), &json!(true)));
    assert_eq!(entry["reason"], "the message store has reached its cap");
    assert_eq!(owner.mailbox(&mut town, 0, 5).len(), hashes.len(), "what was taken is served");
    let now = town.wall();
    let revoke = owner.signed(&["revoke_subaccount", &now.to_string()], json!({"timestamp": now, "revoke": []}));
    assert_eq!(town.json(0, "revoke_subaccount", &revoke).0, 200);
    let delete = owner.signed(&["delete", &hashes[0], &hashes[1]], json!({"messages": hashes[..2]}));
    assert_eq!(town.json(0, "delete", &delete).0, 200);
    let again = owner.message(&town, 5, b"fits again");
    assert_eq!(town.json(0, "store", &again).0, 200);
    town.pass(Duration::from_secs(61));
    assert!(town.houses[0].node.as_mut().unwrap().commit().1.is_ok(), "it has worked for a minute");
}

/// A page of the open file is overwritten by somebody: what reads it is refused, what does not goes on.
#[test]
fn damage_that_is_met_while_running_is_told_to_callers_and_to_the_operator() {
    let directory = Directory::new("running");
    {
        let mut town = Town::in_files(1, &[7], directory.0.clone());
        for number in 0..40u8 {
            let params = Owner::group(1).message(&town, 5, &vec![number; 20_000]);
            assert_eq!(town.json(0, "store", &params).0, 200);
        }
    }
    let mut bytes = fs::read(directory.file()).unwrap();
    // The overflow pages of some message's data, somewhere in the middle.
    let middle = bytes.len() / 2 / 4096 * 4096;
    bytes[middle..middle + 40 * 4096].fill(0xff);
    fs::write(directory.file(), &bytes).unwrap();
    let mut town = Town::in_files(2, &[7], directory.0.clone());
    let owner = Owner::group(1);
    let look = owner.look(&town, 5, json!({"max_size": -1}));
    let (status, text) = town.json(0, "retrieve", &look);
    assert_eq!(
        (status, text),
        (500, format!("Internal Server Error. Could not retrieve messages for {}", owner.account.hint()).into())
    );
    let trouble = town.houses[0].node.as_mut().unwrap().commit().1.unwrap_err().to_string();
    assert!(
        trouble.starts_with(&format!("{}: the message store is damaged. Stop the node", directory.file().display())),
        "{trouble}"
    );
    assert!(trouble.contains("--move-damaged-store-aside"));
    assert_eq!(town.json(0, "info", &json!({})).0, 200);
}

/// Runs a test of this file in a process whose files cannot grow beyond `blocks` of 512 bytes: a disk that is full.
fn on_a_full_disk(test: &str, directory: &Directory, blocks: u32) {
    let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" --exact {test} --ignored --nocapture");
    let done = Command::new("sh")
        .args(["-c", &script])
        .arg(std::env::current_exe().unwrap())
        .env("SESSION_TROUBLE", &directory.0)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success() && said.contains("1 passed"), "{said}{}", String::from_utf8_lossy(&done.stderr));
}

/// The directory that the test which started this process gave it.
fn given() -> PathBuf {
    PathBuf::from(std::env::var_os("SESSION_TROUBLE").expect("only run by another test"))
}

#[test]
fn on_a_full_disk_nothing_is_acknowledged_and_nothing_is_lost() {
    let directory = Directory::new("full");
    let owner = kept(&directory);
    on_a_full_disk("stores_until_the_disk_is_full", &directory, 600);
    let acknowledged = fs::read(directory.0.join("acknowledged")).unwrap()[0];
    let mut town = Town::in_files(2, &[7], directory.0.clone());
    let found = owner.mailbox(&mut town, 0, 5);
    assert_eq!(found[0], b"kept");
    assert!(acknowledged >= 3);
    let sent: Vec<Vec<u8>> = (0..acknowledged).map(|number| vec![number; 20_000]).collect();
    assert_eq!(found[1..], sent, "what was acknowledged, and no more");
}

#[test]
#[ignore = "run by on_a_full_disk_nothing_is_acknowledged_and_nothing_is_lost"]
fn stores_until_the_disk_is_full() {
    let mut town = Town::in_files(2, &[7], given());
    let owner = Owner::group(1);
    let mut acknowledged = 0u8;
    loop {
        let params = owner.message(&town, 5, &vec![acknowledged; 20_000]);
        let (status, body) = town.json(0, "store", &params);
        if status != 200 {
            let text = body.as_str().unwrap();
            assert!(text.starts_with("Internal Server Error. the message store failed"), "{text}");
            assert!(text.ends_with("nothing was done, try another node"), "{text}");
            break;
        }
        acknowledged += 1;
    }
    assert_eq!(owner.mailbox(&mut town, 0, 5).len(), 1 + usize::from(acknowledged), "it is still served");
    fs::write(given().join("acknowledged"), [acknowledged]).unwrap();
}

#[test]
fn when_the_disk_fails_everybody_of_that_commit_is_told_and_nobody_is_asked() {
    let directory = Directory::new("waits");
    kept(&directory);
    on_a_full_disk("waits_on_a_full_disk", &directory, 200);
}

#[test]
#[ignore = "run by when_the_disk_fails_everybody_of_that_commit_is_told_and_nobody_is_asked"]
fn waits_on_a_full_disk() {
    let mut town = Town::in_files(2, &[7], given());
    town.add(7, None);
    town.publish();
    let owner = Owner::group(1);
    let now = town.told();
    let message = |method: &str| owner.message(&town, 5, &[method.as_bytes(), &[0; 70_000]].concat());
    let part = |method| json!({"method": "store", "params": message(method)});
    let look = owner.look(&town, 5, json!({}));
    let calls = [
        ("store", message("store")),
        ("batch", json!({"requests": [part("a"), part("b")]})),
        ("sequence", json!({"requests": [part("c"), part("d")]})),
        ("retrieve", look.clone()),
    ];
    let node = town.houses[0].node.as_mut().unwrap();
    let call = |ticket, method: &str, params: &serde_json::Value| {
        let origin = Origin::Https(CLIENT);
        Input::Call { ticket: Ticket(ticket), origin, method: method.to_owned(), body: params.to_string().into() }
    };
    for (ticket, (method, params)) in (1..).zip(&calls) {
        node.handle(call(ticket, method, params), now);
    }
    let (outputs, kept) = node.commit();
    let file = given().join("house-0.db").display().to_string();
    let trouble = kept.unwrap_err().to_string();
    assert!(trouble.starts_with(&format!("{file}: the message store does not work (disk I/O error")), "{trouble}");
    assert!(trouble.ends_with("changes are refused and nothing is lost. See to the disk"), "{trouble}");
    let mut told: Vec<u64> = outputs
        .iter()
        .map(|output| match output {
            Output::Answer { ticket, status: 500, body: Body::Text(_) } => ticket.0,
            other => panic!("{other:?}"),
        })
        .collect();
    told.sort_unstable();
    assert_eq!(told, [1, 2, 3, 4], "each once");
    // Nothing of it goes on, and what was there before is still served.
    node.handle(Input::Wake, Now { mono: now.mono + Duration::from_secs(6), ..now });
    node.handle(call(9, "retrieve", &look), now);
    let (outputs, kept) = node.commit();
    assert!(kept.is_err(), "it is not said to work after one moment of peace");
    let [Output::Answer { ticket: Ticket(9), status: 200, body: Body::Dict(body) }] = &outputs[..] else {
        panic!("{outputs:?}")
    };
    let body: serde_json::Value = serde_json::from_slice(body).unwrap();
    assert_eq!(body["messages"].as_array().unwrap().len(), 1);
    assert_eq!(body["messages"][0]["data"], town::base64(b"kept"));
}
