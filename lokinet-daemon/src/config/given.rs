//! What the files give, held against the table of options: unknown names, repetitions, the wrong role and options
//! without effect are settled here, in one place for all. Neighbours: `ini` reads the files, `desk` hands the values to
//! the builders.

use std::collections::BTreeMap;

use super::Role;
use super::complaint::{Complaint, Complaints, Place};
use super::ini::{Entry, Ini};
use super::nearest::nearest;
use super::options::{self, Fate, Opt, SECTIONS, Section};

/// A value and where it was given.
#[derive(Clone, Debug)]
pub struct Value {
    /// Where.
    pub place: Place,
    /// As it was written, trimmed.
    pub text: String,
}

/// The values of options that count in this role.
#[derive(Default)]
pub struct Given {
    values: BTreeMap<(&'static str, &'static str), Vec<Value>>,
    /// Lines of open sections whose names are in no table.
    pub loose: Vec<Entry>,
}

impl Given {
    /// Takes the files in their order: of a single-valued option the last file's value counts, of others all.
    pub fn sort(files: Vec<Ini>, role: Role, complaints: &mut Complaints) -> Given {
        let mut given = Given::default();
        for ini in files {
            complaints.errors.extend(ini.faults);
            for (place, name) in &ini.sections {
                if options::section(name).is_none() {
                    complaints.errors.push(unknown_section(place, name));
                }
            }
            let mut first: BTreeMap<(&str, &str), usize> = BTreeMap::new();
            for entry in ini.entries {
                let Some(section) = options::section(&entry.section) else { continue };
                let Some(option) = section.option(&entry.name) else {
                    given.take_loose(section, entry, complaints);
                    continue;
                };
                if !counts(section, option, &entry, role, complaints) {
                    continue;
                }
                let values = given.values.entry((section.name, option.name)).or_default();
                if !option.repeats {
                    if let Some(line) = first.insert((section.name, option.name), entry.place.line) {
                        let what = format!("duplicate value for {}", option.name);
                        let remedy = format!("keep this line or line {line}, not both");
                        complaints.errors.push(Complaint::new(&entry.place, what, remedy));
                    }
                    values.clear();
                }
                values.push(Value { place: entry.place, text: entry.value });
            }
        }
        given
    }

    fn take_loose(&mut self, section: &Section, entry: Entry, complaints: &mut Complaints) {
        // In [bind] the old forms give a port; anything else is a mistyped name.
        let old_bind = section.name == "bind" && entry.value.parse::<u16>().is_ok();
        if section.open && (section.name != "bind" || old_bind) {
            self.loose.push(entry);
        } else {
            complaints.errors.push(unknown_option(section, &entry));
        }
    }

    /// All values given for an option.
    pub fn all(&self, section: &'static str, name: &'static str) -> &[Value] {
        self.values.get(&(section, name)).map_or(&[], Vec::as_slice)
    }
}

/// Whether an option that is given does anything; says so if not.
fn counts(section: &Section, option: &Opt, entry: &Entry, role: Role, complaints: &mut Complaints) -> bool {
    let name = format!("[{}] {}", section.name, option.name);
    if !option.concerns(role) {
        let (whose, ours) = match role {
            Role::Client => ("relays", "a client"),
            Role::Relay => ("clients", "a relay"),
        };
        let what = format!("{name}: only {whose} have this option, and this is {ours}");
        complaints.warn(&entry.place, what, "it is ignored");
        return false;
    }
    let fine = |values: &[&str]| values.contains(&entry.value.as_str());
    match option.fate {
        Fate::Used => return true,
        Fate::Idle(_, values) | Fate::Refused(_, values) if fine(values) => {}
        Fate::Idle(why, _) => complaints.warn(&entry.place, format!("{name}: {why}"), "it is ignored"),
        Fate::Refused(why, _) => {
            let what = format!("{name}: not supported by this version: {why}");
            complaints.error(&entry.place, what, "remove the line");
        }
    }
    false
}

fn unknown_section(place: &Place, name: &str) -> Complaint {
    let remedy = match nearest(name, SECTIONS.iter().map(|section| section.name)) {
        Some(known) => format!("did you mean [{known}]?"),
        None => "remove it; lokinet --generate writes a file with all sections".to_owned(),
    };
    Complaint::new(place, format!("unrecognized section [{name}]"), remedy)
}

fn unknown_option(section: &Section, entry: &Entry) -> Complaint {
    let elsewhere = SECTIONS.iter().find(|other| other.option(&entry.name).is_some());
    let remedy = match (elsewhere, nearest(&entry.name, section.options.iter().map(|option| option.name))) {
        (Some(other), _) => format!("it belongs in [{}]", other.name),
        (None, Some(known)) => format!("did you mean {known}?"),
        (None, None) => "remove the line; lokinet --generate writes a file with all options".to_owned(),
    };
    Complaint::new(&entry.place, format!("unrecognized option [{}]: {}", section.name, entry.name), remedy)
}
