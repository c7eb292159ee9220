//! What a keyfile must be, tried on real files.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::atomic::{AtomicU32, Ordering};

use proptest::prelude::*;

use super::*;

/// A directory that ends with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Scratch {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("lokinet-keyfile-{}-{number}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        Scratch(dir)
    }

    fn file(&self, name: &str, bytes: &[u8], mode: u32) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    fn names(&self) -> Vec<String> {
        let names = fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.collect()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_new_key_is_private_and_comes_back() {
    let scratch = Scratch::new();
    let path = scratch.0.join("mumble.private");
    let seed = load_or_create(&path, || [7; 32]).unwrap();
    assert_eq!(*seed, [7; 32]);
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
    let again = load_or_create(&path, || unreachable!("there is one")).unwrap();
    assert_eq!(*again, [7; 32]);
    assert_eq!(*load(&path).unwrap(), [7; 32]);
    assert_eq!(scratch.names(), ["mumble.private"], "nothing else is left");
}

#[test]
fn the_bytes_are_the_ancestors() {
    // RFC 8032, 7.1, test 1.
    let hex = |text: &str| data_encoding::HEXLOWER.decode(text.as_bytes()).unwrap();
    let seed = hex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60");
    let public = hex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
    let bytes = encode(&seed.clone().try_into().unwrap());
    assert_eq!(*bytes, [b"d1:s64:".as_slice(), &seed, &public, b"1:vi0ee"].concat());
    assert_eq!(bytes.len(), KEYFILE);
}

#[test]
fn two_at_once_agree_on_one_key() {
    let scratch = Scratch::new();
    let path = scratch.0.join("k");
    let other = path.clone();
    // Somebody makes the file while we make our key.
    let seed = load_or_create(&path, || {
        load_or_create(&other, || [1; 32]).unwrap();
        [2; 32]
    });
    assert_eq!(*seed.unwrap(), [1; 32]);
    assert_eq!(scratch.names(), ["k"]);
}

#[test]
fn every_bad_file_is_refused_in_words_and_left_alone() {
    let scratch = Scratch::new();
    let good = encode(&[7; 32]).to_vec();
    let replace =
        "bring it back from a copy, or move it away, and a fresh one is made: a new address, the old one is lost";
    let damaged = format!("this is not a keyfile, or it is damaged; {replace}");
    let mut mismatch = good.clone();
    mismatch[50] ^= 1;
    let mut version = good.clone();
    version[KEYFILE - 3] = b'1';
    let mut padded = good.clone();
    padded.splice(KEYFILE - 3..KEYFILE - 2, *b"00");
    for (name, bytes, complaint) in [
        ("empty", Vec::new(), damaged.clone()),
        ("short", good[..KEYFILE - 1].to_vec(), damaged.clone()),
        ("long", [&good[..], b"\n"].concat(), damaged.clone()),
        ("huge", good.repeat(1000), damaged.clone()),
        ("text", b"not a key\n".to_vec(), damaged.clone()),
        ("padded", padded, damaged.clone()),
        (
            "mismatch",
            mismatch,
            format!("the public key in this keyfile does not belong to its secret key: it is damaged; {replace}"),
        ),
        (
            "version",
            version,
            format!(
                "this keyfile has version 1, and this program knows version 0; use the program that made it, or {replace}"
            ),
        ),
    ] {
        let path = scratch.file(name, &bytes, 0o600);
        let error = load_or_create(&path, || unreachable!("{name}")).unwrap_err();
        assert_eq!(error.to_string(), format!("{}: {complaint}", path.display()));
        assert_eq!(fs::read(&path).unwrap(), bytes, "{name}");
    }
}

#[test]
fn what_others_can_touch_is_refused() {
    let scratch = Scratch::new();
    for mode in [0o640, 0o604, 0o620, 0o602, 0o644, 0o666] {
        let path = scratch.file("k", &encode(&[7; 32]), mode);
        let shown = path.display();
        assert_eq!(
            load(&path).unwrap_err().to_string(),
            format!(
                "{shown}: others can read or write this keyfile (mode {mode:04o}), and with it take its address; chmod 600 \
                 {shown} (moving it away instead would make a new address and lose this one)"
            )
        );
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
        assert!(load(&path).is_ok(), "chmod helps");
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn another_users_file_is_refused() {
    let scratch = Scratch::new();
    let path = scratch.file("k", &encode(&[7; 32]), 0o600);
    if std::os::unix::fs::chown(&path, Some(12345), None).is_err() {
        println!("skipped: only root can give a file away");
        return;
    }
    let shown = path.display();
    assert_eq!(
        load(&path).unwrap_err().to_string(),
        format!(
            "{shown}: this keyfile belongs to user 12345 and the daemon is user 0; chown 0 {shown}, or run as its owner \
             (moving it away instead would make a new address and lose this one)"
        )
    );
}

#[test]
fn links_are_followed_and_what_they_lead_to_is_judged() {
    let scratch = Scratch::new();
    let link = scratch.0.join("link");
    symlink("target", &link).unwrap();
    let error = load_or_create(&link, || unreachable!("the link is not replaced")).unwrap_err();
    assert!(matches!(error.fault, Fault::DanglingLink), "{error}");
    let target = scratch.file("target", &encode(&[7; 32]), 0o600);
    assert_eq!(*load(&link).unwrap(), [7; 32]);
    fs::set_permissions(&target, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(matches!(load(&link).unwrap_err().fault, Fault::Open { mode: 0o644, .. }));
}

#[test]
fn directories_pipes_and_missing_parents_are_named() {
    let scratch = Scratch::new();
    let error = load_or_create(&scratch.0, || [7; 32]).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "{}: this is not a file; name a file, or move it away, and a keyfile is made here: a new address",
            scratch.0.display()
        )
    );
    let pipe = scratch.0.join("pipe");
    let made = std::process::Command::new("mkfifo").args(["-m", "600"]).arg(&pipe).status().unwrap();
    assert!(made.success());
    assert!(matches!(load(&pipe).unwrap_err().fault, Fault::NotAFile));

    let path = scratch.0.join("no/such/place/k");
    let error = load_or_create(&path, || [7; 32]).unwrap_err();
    let directory = scratch.0.join("no/such/place").display().to_string();
    assert_eq!(
        error.to_string(),
        format!("{}: the keyfile cannot be made, since {directory} is not there; mkdir -p {directory}", path.display())
    );
    assert_eq!(
        load(&path).unwrap_err().to_string(),
        format!(
            "{}: there is no such keyfile; bring it back from a copy, or have one made with a new address",
            path.display()
        )
    );
}

proptest! {
    #[test]
    fn any_seed_comes_back_and_no_bent_file_does(seed: [u8; 32], at in 0..KEYFILE, bit in 0..8) {
        let mut bytes = encode(&seed).to_vec();
        prop_assert_eq!(*decode(&bytes).unwrap(), seed);
        bytes[at] ^= 1u8 << bit;
        prop_assert!(decode(&bytes).is_err());
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>) {
        prop_assert!(decode(&bytes).is_err());
    }
}
