//! Where the builders ask for values: an option's own value or else its default, read by the reader they bring, and every
//! fault becomes a complaint with its place. Neighbours: `given` has the values, `value` the readers.

use std::path::{Path, PathBuf};

use super::Role;
use super::complaint::{Complaints, Place};
use super::given::{Given, Value};
use super::options;
use super::value::Fault;

/// Asks and collects complaints.
pub struct Desk<'a> {
    /// The values.
    pub given: &'a Given,
    /// Client or relay.
    pub role: Role,
    /// Where relative paths begin.
    pub data_dir: &'a Path,
    /// The main file, for complaints about what is missing.
    pub main: Place,
    /// What has been found so far.
    pub complaints: Complaints,
}

impl Desk<'_> {
    /// The value of a single option that has a default.
    pub fn one<T>(&mut self, section: &'static str, name: &'static str, read: impl Fn(&str) -> Result<T, Fault>) -> T {
        if let Some(value) = self.maybe(section, name, &read) {
            return value;
        }
        let default = options::expect(section, name).default(self.role).and_then(|text| read(text).ok());
        default.expect("options asked for in this way have a default that can be read, as the tests see to")
    }

    /// The value of a single option, if it is given and can be read.
    pub fn maybe<T>(
        &mut self,
        section: &'static str,
        name: &'static str,
        read: impl Fn(&str) -> Result<T, Fault>,
    ) -> Option<T> {
        let value = self.given.all(section, name).last()?.clone();
        self.read(section, name, &value, read)
    }

    /// The values of a repeatable option, each with its place, or its default when none is given.
    pub fn list<T>(
        &mut self,
        section: &'static str,
        name: &'static str,
        read: impl Fn(&str) -> Result<T, Fault>,
    ) -> Vec<(Place, T)> {
        let mut values = self.given.all(section, name).to_vec();
        if let (true, Some(text)) = (values.is_empty(), options::expect(section, name).default(self.role)) {
            values.push(Value { place: self.main.clone(), text: text.to_owned() });
        }
        let one = |value: Value| Some((value.place.clone(), self.read(section, name, &value, &read)?));
        values.into_iter().filter_map(one).collect()
    }

    fn read<T>(
        &mut self,
        section: &str,
        name: &str,
        value: &Value,
        read: impl Fn(&str) -> Result<T, Fault>,
    ) -> Option<T> {
        match read(&value.text) {
            Ok(read) => Some(read),
            Err(fault) => {
                self.fault(&value.place, section, name, fault);
                None
            }
        }
    }

    /// Complains about an option's value.
    pub fn fault(&mut self, place: &Place, section: &str, name: &str, fault: Fault) {
        self.complaints.error(place, format!("[{section}] {name}: {}", fault.what), fault.remedy);
    }

    /// Complains about what comes a second time in a list.
    pub fn no_duplicates<T>(&mut self, section: &str, name: &str, list: &[(Place, T)], same: impl Fn(&T, &T) -> bool) {
        for (at, (place, value)) in list.iter().enumerate() {
            if let Some((first, _)) = list[..at].iter().find(|(_, other)| same(other, value)) {
                let what = format!("[{section}] {name}: the same as at {first}");
                self.complaints.error(place, what, "remove one of the two lines");
            }
        }
    }

    /// Where an option stands, or the main file.
    pub fn place(&self, section: &'static str, name: &'static str) -> Place {
        self.given.all(section, name).last().map_or(&self.main, |value| &value.place).clone()
    }

    /// A path, absolute or within the data directory.
    pub fn resolve(&self, path: &Path) -> PathBuf {
        self.data_dir.join(path)
    }
}
