//! The data directory: which it is, and whether it is there. It must be known before the other options are, since files
//! in it override them.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::complaint::{Complaints, Place};
use super::ini::Ini;

/// The option that names it.
pub const DATA_DIR: (&str, &str) = ("router", "data-dir");

/// The service's own directory, and so the home of the user it runs as.
const SYSTEM: &str = "/var/lib/lokinet";

/// Where things lie when nobody says otherwise: `/var/lib/lokinet` for root and for the user whose home that is,
/// `~/.lokinet` for others.
pub fn default_data_dir() -> PathBuf {
    let home = std::env::var_os("HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
    match home {
        Some(home) if !rustix::process::geteuid().is_root() && home != Path::new(SYSTEM) => home.join(".lokinet"),
        _ => SYSTEM.into(),
    }
}

/// The data directory that the main file names, or the default one, made if need be.
pub fn data_dir(main: &Ini, whole: &Place, complaints: &mut Complaints) -> PathBuf {
    let named = main.entries.iter().rev().find(|entry| (entry.section.as_str(), entry.name.as_str()) == DATA_DIR);
    let default = default_data_dir();
    let (place, dir) = match named {
        Some(entry) => (&entry.place, PathBuf::from(&entry.value)),
        None => (whole, default.clone()),
    };
    if dir.is_relative() {
        let what = format!("[router] data-dir: {:?} does not begin with /", dir.display().to_string());
        complaints.error(place, what, "write the whole path");
        return default;
    }
    if dir == default {
        if let Err(error) = make(&dir) {
            let what = format!("[router] data-dir: {} cannot be made: {error}", dir.display());
            complaints.error(place, what, "make it yourself and give it to this user, or name another");
        }
        return dir;
    }
    let remedy = format!("mkdir -p {}, and give it to the daemon's user", dir.display());
    match fs::metadata(&dir) {
        Ok(facts) if facts.is_dir() => {}
        Ok(_) => {
            let what = format!("[router] data-dir: {} is not a directory", dir.display());
            complaints.error(place, what, "name a directory");
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            complaints.error(place, format!("[router] data-dir: {} does not exist", dir.display()), remedy);
        }
        Err(error) => complaints.error(place, format!("[router] data-dir: {}: {error}", dir.display()), remedy),
    }
    dir
}

/// Makes the directory, for its owner only, unless it is there.
pub fn make(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}
