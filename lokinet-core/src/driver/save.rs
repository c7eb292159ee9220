//! What the node keeps between runs, under one directory. Each record is written to a neighbouring file, synced and
//! renamed, on a thread of its own, so that the loop never waits for a disk and a crash leaves the old record or the
//! new one. A disk that takes nothing is reported once and the node lives on. Neighbours: `driver` hands over what
//! the node wants kept; `load` gives it back at the next start, where every part is verified again.

use crate::node::io::{Save, Saved};
use bytes::Bytes;
use data_encoding::HEXLOWER;
use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;
use zeroize::Zeroizing;

/// Contacts read at a start.
const CONTACTS_MAX: usize = 1 << 16;
/// Largest contact file read.
const CONTACT_MAX: u64 = 1 << 16;
/// Largest other file read.
const RECORD_MAX: u64 = 16 << 20;

const NODEDB: &str = "nodedb";
const CONTACT_SUFFIX: &str = "signed";
const OWN_CONTACT: &str = "self.signed";
const ONION_KEYS: &str = "onion.keys";
const GUARDS: &str = "guards";
const PROFILES: &str = "profiles.dat";
const REGISTRY: &str = "registry.signed";
const UNFINISHED: &str = "tmp";

/// Reads what an earlier run kept. Files that cannot be read are named in a warning and skipped; missing ones are
/// normal.
pub fn load(data_dir: &Path) -> Saved {
    let mut contacts = Vec::new();
    for shelf in listing(&data_dir.join(NODEDB)) {
        for path in listing(&shelf) {
            match path.extension().and_then(|end| end.to_str()) {
                Some(CONTACT_SUFFIX) if contacts.len() < CONTACTS_MAX => {
                    contacts.extend(read(&path, CONTACT_MAX).map(|bytes| Bytes::from(bytes.to_vec())));
                }
                Some(UNFINISHED) => drop(fs::remove_file(&path)), // left by a crash between write and rename
                _ => {}
            }
        }
    }
    let whole = |name| read(&data_dir.join(name), RECORD_MAX);
    let plain = |name| whole(name).map(|bytes| Bytes::from(bytes.to_vec()));
    Saved {
        contacts,
        own: plain(OWN_CONTACT),
        onion_keys: whole(ONION_KEYS),
        guards: plain(GUARDS),
        profiles: plain(PROFILES),
        registry: plain(REGISTRY),
    }
}

/// A directory's entries in a fixed order; empty when it does not exist.
fn listing(dir: &Path) -> Vec<PathBuf> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) => {
            if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) {
                tracing::warn!("cannot read {}: {error}; going on without it", dir.display());
            }
            return Vec::new();
        }
    };
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort_unstable();
    paths
}

fn read(path: &Path, most: u64) -> Option<Zeroizing<Vec<u8>>> {
    let whole = File::open(path).and_then(|file| {
        let size = file.metadata()?.len();
        if size > most {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("{size} bytes, at most {most} make sense"),
            ));
        }
        // Sized beforehand, so that a secret is not left behind in a buffer that was outgrown.
        let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(size).unwrap_or(0) + 1));
        file.take(most).read_to_end(&mut bytes)?;
        Ok(bytes)
    });
    match whole {
        Ok(bytes) => Some(bytes),
        Err(error) => {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::warn!("cannot read {}: {error}; going on without it", path.display());
            }
            None
        }
    }
}

/// The thread that writes, and what waits for it.
pub(crate) struct Saver {
    desk: Arc<Desk>,
    finished: oneshot::Receiver<()>,
}

#[derive(Default)]
struct Desk {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

/// One entry per file, the latest wins: as many as the node has records, however slow the disk.
#[derive(Default)]
struct Waiting {
    records: BTreeMap<PathBuf, Save>,
    closing: bool,
}

impl Desk {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Saver {
    /// Starts the thread.
    pub(crate) fn start(data_dir: PathBuf) -> io::Result<Saver> {
        let desk = Arc::new(Desk::default());
        let (done, finished) = oneshot::channel();
        let theirs = desk.clone();
        std::thread::Builder::new().name("lokinet-save".into()).spawn(move || {
            work(&theirs, &data_dir);
            let _ = done.send(());
        })?;
        Ok(Saver { desk, finished })
    }

    /// Keeps a record, soon.
    pub(crate) fn save(&self, record: Save) {
        self.desk.waiting().records.insert(place(&record), record);
        self.desk.changed.notify_one();
    }

    /// Writes what still waits and ends the thread; gives up on a disk that takes longer than `patience`.
    pub(crate) async fn finish(self, patience: Duration) {
        self.desk.waiting().closing = true;
        self.desk.changed.notify_one();
        let _ = tokio::time::timeout(patience, self.finished).await;
    }
}

fn work(desk: &Desk, data_dir: &Path) {
    let mut complained = false;
    loop {
        let mut waiting = desk.waiting();
        let (place, record) = loop {
            if let Some(next) = waiting.records.pop_first() {
                break next;
            }
            if waiting.closing {
                return;
            }
            waiting = desk.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        };
        drop(waiting);
        match write(data_dir, &place, &record) {
            Ok(()) => complained = false,
            Err(error) if !complained => {
                complained = true;
                // A contact's file name is a relay's name, so only its directory is said.
                let path =
                    data_dir.join(if matches!(record, Save::Contact { .. }) { Path::new(NODEDB) } else { &place });
                tracing::error!(
                    "cannot write {}: {error}; the node goes on, but forgets at its end what it learns now: free some \
                     space there or let this user write",
                    path.display()
                );
            }
            Err(_) => {}
        }
    }
}

/// Where a record lies, under the data directory.
fn place(record: &Save) -> PathBuf {
    match record {
        Save::Contact { id, .. } => {
            let name = HEXLOWER.encode(&id.0);
            Path::new(NODEDB).join(&name[..1]).join(format!("{name}.{CONTACT_SUFFIX}"))
        }
        Save::OwnContact(_) => OWN_CONTACT.into(),
        Save::OnionKeys(_) => ONION_KEYS.into(),
        Save::Guards(_) => GUARDS.into(),
        Save::Profiles(_) => PROFILES.into(),
        Save::Registry(_) => REGISTRY.into(),
    }
}

fn write(data_dir: &Path, place: &Path, record: &Save) -> io::Result<()> {
    let path = data_dir.join(place);
    // Signed contacts are public; the rest is the owner's business.
    let (bytes, mode): (&[u8], u32) = match record {
        Save::Contact { signed: None, .. } => {
            return match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            };
        }
        Save::Contact { signed: Some(bytes), .. } | Save::OwnContact(bytes) | Save::Registry(bytes) => (bytes, 0o644),
        Save::OnionKeys(bytes) => (bytes, 0o600),
        Save::Guards(bytes) | Save::Profiles(bytes) => (bytes, 0o600),
    };
    if let Some(dir) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o755).create(dir)?;
    }
    let unfinished = path.with_extension(UNFINISHED);
    let _ = fs::remove_file(&unfinished); // a leftover would keep its old mode
    let written = OpenOptions::new().write(true).create_new(true).mode(mode).open(&unfinished).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&unfinished, &path)
    });
    if written.is_err() {
        let _ = fs::remove_file(&unfinished);
    }
    written
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::wire::id::RelayId;
    use std::os::unix::fs::PermissionsExt;

    /// A directory of this test's own, removed at its end.
    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str) -> Dir {
            let path = std::env::temp_dir().join(format!("lokinet-save-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir(&path).unwrap();
            Dir(path)
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn contact(first: u8, signed: Option<&'static [u8]>) -> Save {
        let mut id = [7; 32];
        id[0] = first;
        Save::Contact { id: RelayId(id), signed: signed.map(Bytes::from_static) }
    }

    #[tokio::test]
    async fn what_was_saved_comes_back() {
        let dir = Dir::new("back");
        let saver = Saver::start(dir.0.clone()).unwrap();
        saver.save(contact(0x1a, Some(b"old")));
        saver.save(contact(0x1a, Some(b"one")));
        saver.save(contact(0xb0, Some(b"two")));
        saver.save(contact(0xc0, Some(b"gone")));
        saver.save(contact(0xc0, None));
        saver.save(contact(0xd0, None)); // never was there
        saver.save(Save::OnionKeys(Zeroizing::new(b"secret".to_vec())));
        saver.save(Save::Guards(Bytes::from_static(b"guards")));
        saver.save(Save::Profiles(Bytes::from_static(b"profiles")));
        saver.save(Save::OwnContact(Bytes::from_static(b"own")));
        saver.save(Save::Registry(Bytes::from_static(b"registry")));
        saver.finish(Duration::from_secs(20)).await;

        let saved = load(&dir.0);
        assert_eq!(saved.contacts, ["one", "two"]);
        assert_eq!(saved.onion_keys.as_deref().map(Vec::as_slice), Some(&b"secret"[..]));
        assert_eq!(
            (saved.guards.as_deref(), saved.profiles.as_deref()),
            (Some(&b"guards"[..]), Some(&b"profiles"[..]))
        );
        assert_eq!(saved.registry.as_deref(), Some(&b"registry"[..]));
        assert_eq!(fs::read(dir.0.join("self.signed")).unwrap(), b"own");
        assert_eq!(fs::metadata(dir.0.join("onion.keys")).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(dir.0.join("nodedb/1").is_dir());
    }

    #[test]
    fn an_unfinished_or_absurd_file_is_skipped() {
        let dir = Dir::new("skip");
        assert!(load(&dir.0).contacts.is_empty());
        write(&dir.0, &place(&contact(1, None)), &contact(1, Some(b"good"))).unwrap();
        fs::write(dir.0.join("nodedb/0/half.tmp"), b"ha").unwrap();
        fs::write(dir.0.join("nodedb/0/big.signed"), vec![0; CONTACT_MAX as usize + 1]).unwrap();
        fs::create_dir(dir.0.join("guards")).unwrap();
        let saved = load(&dir.0);
        assert_eq!(saved.contacts, ["good"]);
        assert_eq!(saved.guards, None);
        assert!(!dir.0.join("nodedb/0/half.tmp").exists());
    }

    #[tokio::test]
    async fn a_disk_that_takes_nothing_does_not_stop_the_saver() {
        let dir = Dir::new("full");
        fs::write(dir.0.join("nodedb"), b"in the way").unwrap();
        let saver = Saver::start(dir.0.clone()).unwrap();
        saver.save(contact(1, Some(b"lost")));
        saver.save(Save::Guards(Bytes::from_static(b"kept")));
        saver.finish(Duration::from_secs(20)).await;
        assert_eq!(load(&dir.0).guards.as_deref(), Some(&b"kept"[..]));
    }
}
