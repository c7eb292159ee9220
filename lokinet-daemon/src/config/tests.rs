//! Configurations as people write them, good and bad, and what becomes of each. Grouped: `good` what values mean, `faults`
//! the table of bad lines with the exact words, `relay` the ancestor's bind matrix, `files` whole files on a disk.

#![allow(clippy::unwrap_used)]

mod faults;
mod files;
mod good;
mod relay;

use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

/// RFC 8032, 7.1, tests 1 and 2: two public keys.
const AUTHORITY: &str = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
const AUTHORITY_2: &str = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c";
const LOKI: &str = "7okic5x5do3uh3usttnqz9ek3uuoemdrwzto1hciwim9f947or6y.loki";
const LOKI_2: &str = "azfoj73snr9f3neh5c6sf7rtbaeabyxhr1m4un5aydsmsrxo964o.loki";
const SNODE: &str = "8zfiwpgonsu5zpddpxwdurxyb19x6r96xy4qbikff99jwsziws9y.snode";
const SNODE_2: &str = "7okic5x5do3uh3usttnqz9ek3uuoemdrwzto1hciwim9f947or6y.snode";

/// A data directory with a registry in it, that ends with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Scratch {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("lokinet-config-{}-{number}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("registry.signed"), "").unwrap();
        Scratch(dir)
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn mock_interfaces(name: &str) -> Option<Vec<IpAddr>> {
    let ip = match name {
        "mock0" => "1.1.1.1",
        "nat0" => "10.1.1.1",
        "lo" => "127.0.0.1",
        _ => return None,
    };
    Some(vec![ip.parse().unwrap()])
}

/// Settings from the text of `t.ini`, which is completed by an authority; complaints as people see them.
fn read(role: Role, text: &str) -> Result<(Settings, Vec<String>), Vec<String>> {
    let scratch = Scratch::new();
    read_in(&scratch, role, &format!("{text}\n[registry]\nauthority={AUTHORITY}\n"))
}

fn read_in(scratch: &Scratch, role: Role, text: &str) -> Result<(Settings, Vec<String>), Vec<String>> {
    let path = Path::new("t.ini");
    let ini = ini::parse(path, text.as_bytes());
    let main = Place::whole(path);
    let shown = |list: Vec<Complaint>| {
        let dir = scratch.0.display().to_string();
        list.iter().map(|complaint| complaint.to_string().replace(&dir, "DIR")).collect()
    };
    match settle(vec![ini], role, &scratch.0, main, Complaints::default(), &mock_interfaces) {
        Ok((settings, warnings)) => Ok((settings, shown(warnings))),
        Err(complaints) => Err(shown(complaints.errors)),
    }
}

/// A client's settings, about which there is nothing to say.
fn client(text: &str) -> Settings {
    let (settings, warnings) = read(Role::Client, text).unwrap_or_else(|errors| panic!("{text}: {errors:?}"));
    assert!(warnings.is_empty(), "{text}: {warnings:?}");
    settings
}
