//! The INI grammar, strictly, with the place of everything: sections, `name=value` lines, whole-line comments. Nothing
//! here knows which names exist. Neighbours: `given` holds the entries against the table of options.

use std::path::Path;
use std::sync::Arc;

use super::complaint::{Complaint, Place};
use super::value::quoted;

/// Largest file read, in bytes.
pub const FILE_MAX: usize = 1 << 20;

/// One `name=value` line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Where it stands.
    pub place: Place,
    /// The section it stands in.
    pub section: String,
    /// What comes before the first `=`, trimmed.
    pub name: String,
    /// What comes after it, trimmed.
    pub value: String,
}

/// A file's content, in its order.
#[derive(Default, Debug)]
pub struct Ini {
    /// The `[name]` lines.
    pub sections: Vec<(Place, String)>,
    /// The `name=value` lines; a repeated name is kept as often as it comes.
    pub entries: Vec<Entry>,
    /// The lines that are neither, nor blank, nor comments.
    pub faults: Vec<Complaint>,
}

/// Reads a whole file; every fault is collected, and what can be read beside them is read.
pub fn parse(file: &Path, text: &[u8]) -> Ini {
    let mut ini = Ini::default();
    let file: Arc<Path> = file.into();
    if text.len() > FILE_MAX {
        let place = Place { file, line: 0 };
        let what = format!("this file is too long for a configuration, which has at most {FILE_MAX} bytes");
        ini.faults.push(Complaint::new(&place, what, "name the right file"));
        return ini;
    }
    let text = text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(text);
    let mut section: Option<String> = None;
    for (at, line) in text.split(|&byte| byte == b'\n').enumerate() {
        let place = Place { file: file.clone(), line: at + 1 };
        let Ok(line) = std::str::from_utf8(line) else {
            ini.faults.push(Complaint::new(&place, "the line is not UTF-8 text", "save the file as UTF-8"));
            continue;
        };
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        match line.strip_prefix('[') {
            Some(header) => {
                let (name, fault) = section_name(header);
                section = Some(name.to_owned());
                match fault {
                    None => ini.sections.push((place, name.to_owned())),
                    Some((what, remedy)) => ini.faults.push(Complaint::new(&place, what, remedy)),
                }
            }
            None => match entry(line, section.as_deref()) {
                Ok((section, name, value)) => ini.entries.push(Entry {
                    place,
                    section: section.to_owned(),
                    name: name.to_owned(),
                    value: value.to_owned(),
                }),
                Err((what, remedy)) => ini.faults.push(Complaint::new(&place, what, remedy)),
            },
        }
    }
    ini
}

type Fault = (String, &'static str);

/// The name in `name]`, also of a faulty line: what stands below it is still meant for that section.
fn section_name(header: &str) -> (&str, Option<Fault>) {
    match header.split_once(']') {
        None => (header, Some((format!("[{}: the section's name has no end", quoted(header)), "close it with ]"))),
        Some((name, "")) => (name, None),
        Some((name, _)) => {
            (name, Some((format!("[{name}]: there is something after the section"), "put it on a line of its own")))
        }
    }
}

fn entry<'a>(line: &'a str, section: Option<&'a str>) -> Result<(&'a str, &'a str, &'a str), Fault> {
    let Some((name, value)) = line.split_once('=') else {
        return Err((format!("{} is no option", quoted(line)), "write name=value, or # before a comment"));
    };
    let (name, value) = (name.trim(), value.trim());
    if name.is_empty() {
        return Err((format!("={value}: there is no name before the ="), "write name=value"));
    }
    match section {
        Some(section) => Ok((section, name, value)),
        None => Err((format!("{name} stands before any section"), "put a [section] line above it")),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Ini {
        parse(Path::new("t.ini"), text.as_bytes())
    }

    fn values(ini: &Ini) -> Vec<(&str, &str, &str)> {
        ini.entries.iter().map(|e| (e.section.as_str(), e.name.as_str(), e.value.as_str())).collect()
    }

    /// Shared facts §7, config/test_llarp_config_ini.cpp.
    #[test]
    fn the_ancestors_vectors() {
        assert!(read("").faults.is_empty());
        assert_eq!(values(&read("[test]\nkey=val   ")), [("test", "key", "val")]);
        assert_eq!(values(&read("[test]\nkey=a\nkey=b")), [("test", "key", "a"), ("test", "key", "b")]);
        assert_eq!(read("[test]\n=1090").faults.len(), 1);
        assert_eq!(read("this is garbage\nnot an ini file").faults.len(), 2);
    }

    #[test]
    fn the_first_equals_sign_splits_and_comments_are_whole_lines() {
        let text = "\u{feff}[a]\r\n  # x=1\r\n; y=2\r\n\r\n  k = v=w # kept \r\n[b]\nempty=\n";
        let ini = read(text);
        assert_eq!(values(&ini), [("a", "k", "v=w # kept"), ("b", "empty", "")]);
        assert!(ini.faults.is_empty());
        assert_eq!(ini.entries[0].place.to_string(), "t.ini:5");
        assert_eq!(ini.sections[1].0.line, 6);
    }

    #[test]
    fn every_fault_is_named_with_its_line() {
        let mut text = b"early=1\n[open\n[a] b=c\nwords\n=x\n".to_vec();
        text.extend_from_slice(b"[a]\n\xff=1\ngood=1\n");
        let ini = parse(Path::new("t.ini"), &text);
        let faults: Vec<String> = ini.faults.iter().map(ToString::to_string).collect();
        assert_eq!(
            faults,
            [
                "t.ini:1: early stands before any section; put a [section] line above it",
                "t.ini:2: [open: the section's name has no end; close it with ]",
                "t.ini:3: [a]: there is something after the section; put it on a line of its own",
                "t.ini:4: words is no option; write name=value, or # before a comment",
                "t.ini:5: =x: there is no name before the =; write name=value",
                "t.ini:7: the line is not UTF-8 text; save the file as UTF-8",
            ]
        );
        assert_eq!(values(&ini), [("a", "good", "1")]);
        assert_eq!(values(&read("[open\nk=1")), [("open", "k", "1")], "one fault makes no others");
    }

    #[test]
    fn a_huge_file_is_not_read() {
        let ini = parse(Path::new("t.ini"), &vec![b'\n'; FILE_MAX + 1]);
        assert_eq!(ini.faults.len(), 1);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>) {
            let _ = parse(Path::new("t.ini"), &bytes);
        }

        #[test]
        fn what_is_written_comes_back(name in "[a-z][a-z0-9-]{0,9}", value in "[!-~][ -~]{0,20}[!-~]|[!-~]?") {
            let ini = read(&format!("[s]\n {name} =\t{value} \n"));
            prop_assert_eq!(values(&ini), [("s", name.as_str(), value.as_str())]);
        }
    }
}
