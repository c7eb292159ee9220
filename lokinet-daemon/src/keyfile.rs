//! Keyfiles: the one file that a `.loki` address or a relay's identity is. In the ancestor's form, a bencoded dictionary
//! with `s`, the Ed25519 seed and its public key, and `v`, version 0. Nobody else may read it, and none is ever
//! overwritten. Neighbours: `config` says where it lies, `lokinet_core::crypto::key::Identity` is made from the seed.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use ed25519_dalek::SigningKey;
use zeroize::Zeroizing;

use crate::config::whole::{self, Existing};

/// A keyfile's length, in bytes.
pub const KEYFILE: usize = HEAD.len() + SECRET + TAIL.len();

const HEAD: &[u8] = b"d1:s64:";
const SECRET: usize = 64;
/// What stands between the secret and the version.
const VERSION: &[u8] = b"1:vi";
const TAIL: &[u8] = b"1:vi0ee";
const MODE: u32 = 0o600;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
#[error("{}: {fault}", path.display())]
pub struct KeyfileError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub fault: Fault,
}

/// What is wrong with a keyfile, and what to do; nothing of its content.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Fault {
    #[error("there is no such keyfile; bring it back from a copy, or have one made with a new address")]
    Missing,
    #[error(
        "this link leads to a file that is not there; bring the file back, or remove the link, and a keyfile is made \
         here: a new address, the old one is lost"
    )]
    DanglingLink,
    #[error("this is not a file; name a file, or move it away, and a keyfile is made here: a new address")]
    NotAFile,
    #[error(
        "others can read or write this keyfile (mode {mode:04o}), and with it take its address; chmod 600 {path} (moving \
         it away instead would make a new address and lose this one)"
    )]
    Open { mode: u32, path: String },
    #[error(
        "this keyfile belongs to user {owner} and the daemon is user {user}; chown {user} {path}, or run as its owner \
         (moving it away instead would make a new address and lose this one)"
    )]
    Owner { owner: u32, user: u32, path: String },
    #[error("this is not a keyfile, or it is damaged; {REPLACE}")]
    Damaged,
    #[error("the public key in this keyfile does not belong to its secret key: it is damaged; {REPLACE}")]
    Mismatch,
    #[error(
        "this keyfile has version {0}, and this program knows version 0; use the program that made it, or {REPLACE}"
    )]
    Version(String),
    #[error(
        "cannot be read: {0}; let this user read it (moving it away instead would make a new address and lose this one)"
    )]
    Unreadable(io::Error),
    #[error("the keyfile cannot be made, since {directory} is not there; mkdir -p {directory}")]
    NoDirectory { directory: String },
    #[error("the keyfile cannot be made: {0}; let this user write in its directory, or name another place")]
    Unwritable(io::Error),
}

const REPLACE: &str =
    "bring it back from a copy, or move it away, and a fresh one is made: a new address, the old one is lost";

/// A keyfile's bytes for a seed (RFC 8032).
pub fn encode(seed: &[u8; 32]) -> Zeroizing<Vec<u8>> {
    let public = SigningKey::from_bytes(seed).verifying_key().to_bytes();
    let mut bytes = Zeroizing::new(Vec::with_capacity(KEYFILE));
    for part in [HEAD, seed, &public, TAIL] {
        bytes.extend_from_slice(part);
    }
    bytes
}

fn decode(bytes: &[u8]) -> Result<Zeroizing<[u8; 32]>, Fault> {
    let rest = bytes.strip_prefix(HEAD).ok_or(Fault::Damaged)?;
    let (secret, rest) = rest.split_at_checked(SECRET).ok_or(Fault::Damaged)?;
    if rest != TAIL {
        return Err(version(rest).map_or(Fault::Damaged, Fault::Version));
    }
    let (seed, public) = secret.split_at(32);
    let seed: Zeroizing<[u8; 32]> = Zeroizing::new(seed.try_into().map_err(|_| Fault::Damaged)?);
    if SigningKey::from_bytes(&seed).verifying_key().as_bytes() != public {
        return Err(Fault::Mismatch);
    }
    Ok(seed)
}

/// The number in `1:vi<number>ee`.
fn version(rest: &[u8]) -> Option<String> {
    let digits = rest.strip_prefix(VERSION)?.strip_suffix(b"ee")?;
    let number = !digits.is_empty() && digits.len() < 20 && digits[0] != b'0' && digits.iter().all(u8::is_ascii_digit);
    number.then(|| String::from_utf8_lossy(digits).into_owned())
}

/// Reads the seed in a keyfile. A link is followed; what it leads to must be as private as any.
///
/// # Errors
/// It is not there, not private, or not a keyfile.
pub fn load(path: &Path) -> Result<Zeroizing<[u8; 32]>, KeyfileError> {
    read(path).map_err(|fault| KeyfileError { path: path.to_owned(), fault })
}

fn read(path: &Path) -> Result<Zeroizing<[u8; 32]>, Fault> {
    // Without blocking, in case it is a pipe that nobody writes to.
    let file = match OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let link = fs::symlink_metadata(path).is_ok_and(|facts| facts.is_symlink());
            return Err(if link { Fault::DanglingLink } else { Fault::Missing });
        }
        Err(error) => return Err(Fault::Unreadable(error)),
    };
    // Of the file that is open, which nobody can exchange any more.
    private(path, &file.metadata().map_err(Fault::Unreadable)?)?;
    decode(&content(file).map_err(Fault::Unreadable)?)
}

fn private(path: &Path, facts: &Metadata) -> Result<(), Fault> {
    let path = path.display().to_string();
    let user = rustix::process::geteuid().as_raw();
    if !facts.is_file() {
        return Err(Fault::NotAFile);
    }
    if facts.uid() != user && facts.uid() != 0 {
        return Err(Fault::Owner { owner: facts.uid(), user, path });
    }
    if facts.mode() & 0o077 != 0 {
        return Err(Fault::Open { mode: facts.mode() & 0o7777, path });
    }
    Ok(())
}

/// At most a keyfile's length and a little more, in a buffer that is never outgrown.
fn content(file: File) -> io::Result<Zeroizing<Vec<u8>>> {
    const MOST: usize = KEYFILE + 32;
    let mut bytes = Zeroizing::new(vec![0; MOST]);
    let mut file = file;
    let mut length = 0;
    while length < MOST {
        match file.read(&mut bytes[length..])? {
            0 => break,
            more => length += more,
        }
    }
    bytes.truncate(length);
    Ok(bytes)
}

/// Reads the seed in a keyfile, or makes one from the seed that `make` gives: readable by its owner only, whole or not
/// at all, and never in place of another.
///
/// # Errors
/// It is there and cannot be used, or it cannot be made.
pub fn load_or_create(path: &Path, make: impl FnOnce() -> [u8; 32]) -> Result<Zeroizing<[u8; 32]>, KeyfileError> {
    match load(path) {
        Err(KeyfileError { fault: Fault::Missing, .. }) => {}
        result => return result,
    }
    let seed = Zeroizing::new(make());
    match whole::write(path, &encode(&seed), MODE, Existing::Keep) {
        Ok(true) => Ok(seed),
        // Somebody was faster; the key in the file is the one that counts.
        Ok(false) => load(path),
        Err(error) => Err(KeyfileError { path: path.to_owned(), fault: unwritable(path, error) }),
    }
}

fn unwritable(path: &Path, error: io::Error) -> Fault {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() && !parent.is_dir() => {
            Fault::NoDirectory { directory: parent.display().to_string() }
        }
        _ => Fault::Unwritable(error),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
