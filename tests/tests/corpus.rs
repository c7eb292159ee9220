//! The committed corpora, replayed without a fuzzer: what once was found stays mended, and every target still accepts
//! the real encoders' bytes. `LOKINET_WRITE_SEEDS=1` writes the seeds anew, after a format has changed.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use lokinet_tests::fuzz::{TARGETS, client, relay, seeds};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target)
}

fn files(target: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(corpus(target)).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn replay(wanted: impl Fn(&str) -> bool) {
    for (name, target) in TARGETS.iter().filter(|(name, _)| wanted(name)) {
        let files = files(name);
        assert!(!files.is_empty(), "no corpus for {name}");
        for file in files {
            // Printed only when the test fails, and then the last line says which.
            println!("{}", file.display());
            target(&fs::read(&file).unwrap());
        }
    }
}

#[test]
fn no_decoder_stumbles() {
    replay(|name| !["client", "relay", "town"].contains(&name));
}

#[test]
fn no_node_stumbles() {
    replay(|name| ["client", "relay"].contains(&name));
}

#[test]
fn no_town_stumbles() {
    replay(|name| name == "town");
}

/// Otherwise the fuzzer would begin before the door, and never come in.
#[test]
fn a_seed_reaches_a_conversation_with_the_client() {
    let seeds = seeds::seeds("client");
    let reached: Vec<_> = seeds.iter().map(|seed| client::story(seed)).collect();
    println!("{reached:?}");
    assert!(reached.iter().any(|reach| reach.paths >= 4 && reach.talks >= 2 && reach.names > 0 && reach.packets > 0));
}

#[test]
fn a_seed_has_the_relay_carry_cells() {
    let reached: Vec<_> = seeds::seeds("relay").iter().map(|seed| relay::story(seed)).collect();
    println!("{reached:?}");
    assert!(reached.iter().any(|reach| reach.accepted >= 4 && reach.refused > 0 && reach.cells >= 4));
}

#[test]
fn the_seeds_are_there_and_no_corpus_is_forgotten() {
    for (name, _) in TARGETS {
        let seeds = seeds::seeds(name);
        assert!(!seeds.is_empty(), "{name} has no seeds");
        for (number, seed) in seeds.iter().enumerate() {
            let file = corpus(name).join(format!("seed-{number}"));
            if std::env::var_os("LOKINET_WRITE_SEEDS").is_some() {
                fs::create_dir_all(corpus(name)).unwrap();
                fs::write(&file, seed).unwrap();
            }
            assert_eq!(fs::read(&file).ok().as_ref(), Some(seed), "{} is stale: LOKINET_WRITE_SEEDS=1", file.display());
        }
    }
    let dirs = fs::read_dir(corpus("")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let known: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(dirs.collect::<BTreeSet<_>>(), known);
    let manifest = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/Cargo.toml")).unwrap();
    for (name, _) in TARGETS {
        assert!(manifest.contains(&format!("name = \"{name}\"\npath = \"target.rs\"")), "{name} has no program");
    }
}
