//! Whole files on a disk: `conf.d`, data directories, and the generated file, which must say what the code does.

use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;
use crate::config::generate::{Generated, generate, write_generated};

/// The main file of a scratch directory, with what no default can know.
fn main_file(scratch: &Scratch, text: &str) -> PathBuf {
    let dir = scratch.0.display();
    scratch.file("lokinet.ini", &format!("[router]\ndata-dir={dir}\n[registry]\nauthority={AUTHORITY}\n{text}"))
}

#[test]
fn later_files_override_single_values_and_add_to_lists() {
    let scratch = Scratch::new();
    let path = main_file(&scratch, "[network]\nhops=2\n[dns]\nupstream=1.1.1.1\n");
    scratch.file("conf.d/20-b.ini", "[network]\nhops=4\n[dns]\nupstream=9.9.9.9\n");
    scratch.file("conf.d/10-a.ini", "[network]\nhops=1\npaths=8\n");
    scratch.file("conf.d/99-note.txt", "[nonsense");
    let (settings, warnings) = load(&path, Role::Client).unwrap();
    assert!(warnings.is_empty());
    assert_eq!((settings.network.hops, settings.network.paths), (4, 8));
    let upstream: Vec<String> = settings.dns.upstream.iter().map(ToString::to_string).collect();
    assert_eq!(upstream, ["1.1.1.1:53", "9.9.9.9:53"]);
    assert_eq!(settings.router.data_dir, scratch.0);

    let bad = scratch.file("conf.d/30-c.ini", "[router]\ndata-dir=/tmp\n[network]\nhop=1\n");
    let shown = bad.display();
    assert_eq!(
        load(&path, Role::Client).unwrap_err().to_string(),
        format!(
            "{shown}:2: [router] data-dir: a file that lies in the data directory cannot say where that is; set it in the main \
             file\n{shown}:4: unrecognized option [network]: hop; did you mean hops?"
        )
    );
}

#[test]
fn files_that_are_not_there_are_named() {
    let scratch = Scratch::new();
    let absent = scratch.0.join("absent.ini");
    let shown = absent.display();
    assert_eq!(
        load(&absent, Role::Client).unwrap_err().to_string(),
        format!(
            "{shown}: cannot be read: No such file or directory (os error 2); write a fresh one with lokinet --generate \
             {shown}, or name the right file"
        )
    );
    let zero = load(Path::new("/dev/zero"), Role::Client).unwrap_err().to_string();
    assert!(zero.starts_with("/dev/zero: this file is too long for a configuration"), "{zero}");
    let dir = scratch.0.join("no/data");
    for (named, words) in [
        (
            dir.display().to_string(),
            format!("{0} does not exist; mkdir -p {0}, and give it to the daemon's user", dir.display()),
        ),
        ("var".into(), "\"var\" does not begin with /; write the whole path".into()),
        ("/dev/null".into(), "/dev/null is not a directory; name a directory".into()),
    ] {
        let text = format!("[router]\ndata-dir={named}\n[registry]\nauthority={AUTHORITY}\nfile=/dev/null\n");
        let path = scratch.file("t.ini", &text);
        let errors = load(&path, Role::Client).unwrap_err().to_string();
        let first = format!("{}:2: [router] data-dir: {words}", path.display());
        assert_eq!(errors.lines().next(), Some(first.as_str()));
    }
}

#[test]
fn bootstrap_files() {
    let scratch = Scratch::new();
    scratch.file("bootstrap.signed", "");
    assert_eq!(load(&main_file(&scratch, ""), Role::Client).unwrap().0.bootstrap, [scratch.0.join("bootstrap.signed")]);
    scratch.file("other", "");
    let path = main_file(&scratch, "[bootstrap]\nadd-node=other\n[connect]\nx=bootstrap.signed\n");
    let (settings, warnings) = load(&path, Role::Client).unwrap();
    assert_eq!(settings.bootstrap, [scratch.0.join("other"), scratch.0.join("bootstrap.signed")]);
    assert_eq!(
        warnings[0].to_string(),
        format!(
            "{}:8: [connect] x: this section is deprecated, and still works; write add-node=FILE in [bootstrap] in its place",
            path.display()
        )
    );
}

/// `etc/lokinet.ini` is the generator's output for both roles. To write it anew: `LOKINET_WRITE_ETC=1 cargo test etc_holds`.
#[test]
fn etc_holds_what_the_generator_writes() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../etc/lokinet.ini");
    let text = generate(None, Path::new("/var/lib/lokinet"));
    if std::env::var_os("LOKINET_WRITE_ETC").is_some() {
        fs::write(&path, &text).unwrap();
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
}

#[test]
fn a_generated_file_shows_the_defaults() {
    let scratch = Scratch::new();
    for (role, needed) in [(Role::Client, ""), (Role::Relay, "[bind]\ninbound=8.8.8.8\n")] {
        let text = generate(Some(role), &scratch.0);
        // All lines that have a default, and the one that needs an answer.
        let uncommented: Vec<String> = text
            .lines()
            .filter_map(|line| match line.strip_prefix('#') {
                Some(option) if !option.starts_with(' ') => Some(option.to_owned()).filter(|o| !o.ends_with('=')),
                _ => Some(line.to_owned()),
            })
            .collect();
        let count = uncommented.iter().filter(|line| line.contains('=') && !line.starts_with('#')).count();
        assert!(count >= 14, "{role:?}: {count}");
        let path = scratch
            .file("all.ini", &format!("{}\n[registry]\nauthority={AUTHORITY}\n{needed}", uncommented.join("\n")));
        let (all, warnings) = load(&path, role).unwrap();
        assert!(warnings.is_empty(), "{warnings:?}");
        let (none, _) = load(&main_file(&scratch, needed), role).unwrap();
        assert_eq!(all, none);
    }
}

/// Shared facts §7, "Generated INI".
#[test]
fn a_generated_file_has_the_ancestors_layout() {
    let text = generate(Some(Role::Client), Path::new("/d"));
    let lines: Vec<&str> = text.lines().collect();
    let at = lines.iter().position(|line| *line == "[dns]").unwrap();
    assert_eq!(lines[at - 3..at].iter().filter(|line| line.is_empty()).count(), 2, "two blank lines between sections");
    assert_eq!(&lines[at + 1..at + 4], ["# The resolver for .loki and .snode names.", "", ""]);
    assert_eq!(lines[at + 6..at + 8], ["#bind=127.3.2.1:53", ""]);
    assert!(lines.contains(&"#data-dir=/d") && lines.contains(&"#keyfile=") && !text.contains("public-ip"));
    assert!(generate(Some(Role::Relay), Path::new("/d")).contains("\n#public-ip=\n"));
    let sections: Vec<&str> = lines.iter().copied().filter(|line| line.starts_with('[')).collect();
    assert_eq!(
        sections,
        ["[router]", "[network]", "[dns]", "[bind]", "[api]", "[bootstrap]", "[registry]", "[logging]"]
    );
}

#[test]
fn an_existing_file_is_left_alone_unless_forced() {
    let scratch = Scratch::new();
    let path = scratch.0.join("new.ini");
    assert_eq!(write_generated(&path, Role::Client, false), Ok(Generated::Written));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o640);
    let fresh = fs::read_to_string(&path).unwrap();
    assert_eq!(fresh, generate(Some(Role::Client), &default_data_dir()));
    fs::write(&path, "mine").unwrap();
    assert_eq!(write_generated(&path, Role::Client, false), Ok(Generated::AlreadyThere));
    assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    let link = scratch.0.join("link.ini");
    symlink(&path, &link).unwrap();
    assert_eq!(write_generated(&link, Role::Client, true), Ok(Generated::Written));
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink(), "the file behind the link is replaced, not the link");
    assert_eq!(fs::read_to_string(&path).unwrap(), fresh);
    let mut left: Vec<String> =
        fs::read_dir(&scratch.0).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    left.sort();
    assert_eq!(left, ["link.ini", "new.ini", "registry.signed"]);

    let nowhere = scratch.0.join("no/dir/new.ini");
    assert_eq!(
        write_generated(&nowhere, Role::Client, false).unwrap_err().to_string(),
        format!(
            "{}: cannot be written: No such file or directory (os error 2); mkdir -p {}",
            nowhere.display(),
            nowhere.parent().unwrap().display()
        )
    );
}
