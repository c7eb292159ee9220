//! Writing a small file whole or not at all: to a neighbouring file that nobody else has, synced, then moved into place.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;

/// What to do with a file that is already there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Existing {
    /// Leave it alone.
    Keep,
    /// Put the new one in its place.
    Replace,
}

/// Writes `bytes` to `path` with at most `mode`; false when a file was there and is kept.
pub fn write(path: &Path, bytes: &[u8], mode: u32, existing: Existing) -> io::Result<bool> {
    let new = neighbour(path)?;
    let written = fill(&new, bytes, mode).and_then(|()| match existing {
        Existing::Replace => fs::rename(&new, path).map(|()| true),
        // A link, unlike a rename, never replaces what somebody put there meanwhile.
        Existing::Keep => match fs::hard_link(&new, path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error),
        },
    });
    if existing == Existing::Keep || written.is_err() {
        let _ = fs::remove_file(&new);
    }
    let placed = written?;
    sync_directory(path)?;
    Ok(placed)
}

fn fill(new: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(new)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn neighbour(path: &Path) -> io::Result<PathBuf> {
    let mut suffix = [0; 8];
    getrandom::fill(&mut suffix).map_err(io::Error::other)?;
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().ok_or(io::ErrorKind::InvalidFilename)?);
    name.push(format!(".{}.new", HEXLOWER.encode(&suffix)));
    Ok(path.with_file_name(name))
}

fn sync_directory(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()
}
