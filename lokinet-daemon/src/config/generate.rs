//! A fresh `lokinet.ini`: every option people may want, commented out at its default, below what it does. Neighbours:
//! `options` is what is printed; `etc/lokinet.ini` is this output for both roles, as a test sees to.

use std::fs;
use std::path::Path;

use super::complaint::{Complaint, Place};
use super::home;
use super::options::{Opt, SECTIONS};
use super::whole::{self, Existing};
use super::{Role, default_data_dir};

/// Who may read a configuration: root and the service's group.
const MODE: u32 = 0o640;
/// Width of a comment, in characters.
const WIDTH: usize = 100;

/// What has become of a file that was to be generated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Generated {
    /// It is there now.
    Written,
    /// There was one, and it is as it was.
    AlreadyThere,
}

/// The text of a configuration for one role, or for both when `role` is `None`; `data_dir` is shown as the default.
pub fn generate(role: Option<Role>, data_dir: &Path) -> String {
    let mut sections = Vec::new();
    for section in SECTIONS {
        let shown = |option: &&Opt| !option.hidden && role.is_none_or(|role| option.concerns(role));
        let options: Vec<String> =
            section.options.iter().filter(shown).map(|option| entry(section.name, option, role, data_dir)).collect();
        if options.is_empty() {
            continue;
        }
        sections.push(format!("[{}]\n{}\n\n{}", section.name, comment(section.about), options.join("\n")));
    }
    sections.join("\n\n")
}

/// An option with its comment, ending in a line break.
fn entry(section: &str, option: &Opt, role: Option<Role>, data_dir: &Path) -> String {
    let mut about = option.about.to_owned();
    if option.repeats {
        about.push_str(" May be given more than once.");
    }
    match (role, option.only) {
        (None, Some(Role::Client)) => about.push_str(" For clients only."),
        (None, Some(Role::Relay)) => about.push_str(" For relays only."),
        _ => {}
    }
    let default = match option.default(role.unwrap_or(option.only.unwrap_or(Role::Client))) {
        Some(_) if (section, option.name) == home::DATA_DIR => data_dir.display().to_string(),
        text => text.unwrap_or_default().to_owned(),
    };
    format!("{}#{}={default}\n", comment(&about), option.name)
}

/// Text as comment lines.
fn comment(text: &str) -> String {
    let mut lines = String::new();
    let mut line = String::from("#");
    for word in text.split_whitespace() {
        if line.len() + 1 + word.len() > WIDTH {
            lines.push_str(&line);
            lines.push('\n');
            line = String::from("#");
        }
        line.push(' ');
        line.push_str(word);
    }
    lines + &line + "\n"
}

/// Writes a fresh configuration, whole or not at all; a file that is there is left alone unless `force` is set.
///
/// # Errors
/// The file cannot be written.
pub fn write_generated(path: &Path, role: Role, force: bool) -> Result<Generated, Complaint> {
    let data_dir = default_data_dir();
    // What a link leads to is replaced, not the link: packages link the one place to the other.
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let parent = target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !force && fs::symlink_metadata(&target).is_ok() {
        return Ok(Generated::AlreadyThere);
    }
    let text = generate(Some(role), &data_dir);
    let existing = if force { Existing::Replace } else { Existing::Keep };
    let made = if parent == data_dir { home::make(parent) } else { Ok(()) };
    match made.and_then(|()| whole::write(&target, text.as_bytes(), MODE, existing)) {
        Ok(true) => Ok(Generated::Written),
        Ok(false) => Ok(Generated::AlreadyThere),
        Err(error) => {
            let remedy = match parent.is_dir() {
                true => "see that this user may write there, or name another file".to_owned(),
                false => format!("mkdir -p {}", parent.display()),
            };
            Err(Complaint::new(&Place::whole(path), format!("cannot be written: {error}"), remedy))
        }
    }
}
