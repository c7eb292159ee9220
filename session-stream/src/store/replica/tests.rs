//! Whatever happens to members that miss some of it: when they have told each other, they hold the same.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::account::{Scope, hash};
use crate::store::CAP_DEFAULT;
use crate::store::messages::Change;

const NOW: u64 = 1_760_000_000_000;
const HOUR: u64 = 3_600_000;
const OWNER: Account = Account([3; 33]);

fn message(letter: u8, expiry: u64) -> Message {
    let data = vec![letter];
    let hash = hash::of(&OWNER, Namespace(2), &data);
    Message { account: OWNER, namespace: Namespace(2), hash, timestamp: NOW, expiry, data }
}

fn store() -> Store {
    Store::in_memory(CAP_DEFAULT).unwrap()
}

/// One tells another everything it has; how many messages were carried.
fn tell(from: &Store, to: &mut Store, now: u64) -> usize {
    let (mut after, mut carried) = (0, 0);
    loop {
        let changes = from.changes(after, 3).unwrap();
        let Some((last, _)) = changes.last() else { return carried };
        after = *last;
        for (_, entry) in changes {
            match entry {
                Entry::Message(mark) => {
                    if to.learn(&mark, true, now).unwrap() {
                        let (mark, message) = from.copy_of(&mark).unwrap().unwrap();
                        carried += usize::from(to.take(&mark, &message, true, now).unwrap());
                    }
                }
                Entry::Revocation(revocation) => {
                    to.learn_revocation(&revocation).unwrap();
                }
            }
        }
    }
}

/// What a client finds: the messages with their expiries, and the revoked tokens.
fn contents(store: &Store, now: u64) -> (BTreeMap<Vec<u8>, u64>, Vec<Token>) {
    let (messages, _) = store.look(&OWNER, Namespace(2), None, None, usize::MAX, now).unwrap();
    let mut revoked = store.revoked(&OWNER).unwrap();
    revoked.sort();
    (messages.into_iter().map(|message| (message.data, message.expiry)).collect(), revoked)
}

#[test]
fn who_missed_a_deletion_does_not_bring_the_message_back() {
    let (mut here, mut away) = (store(), store());
    for member in [&mut here, &mut away] {
        member.put(&message(b'a', NOW + HOUR), NOW).unwrap();
    }
    here.delete(&OWNER, &[message(b'a', 0).hash], NOW).unwrap();
    assert_eq!(tell(&away, &mut here, NOW), 0);
    tell(&here, &mut away, NOW);
    for member in [&here, &away] {
        assert_eq!(contents(member, NOW).0.len(), 0);
    }
}

#[test]
fn who_stores_it_again_brings_it_back() {
    let (mut here, mut away) = (store(), store());
    for member in [&mut here, &mut away] {
        member.put(&message(b'a', NOW + HOUR), NOW).unwrap();
        member.clear(&OWNER, Scope::All, None, NOW).unwrap();
    }
    here.put(&message(b'a', NOW + 2 * HOUR), NOW).unwrap();
    tell(&away, &mut here, NOW);
    assert_eq!(tell(&here, &mut away, NOW), 1);
    assert_eq!(contents(&away, NOW).0[&vec![b'a']], NOW + 2 * HOUR);
}

#[test]
fn what_was_shortened_and_swept_stays_away() {
    let (mut here, mut away) = (store(), store());
    for member in [&mut here, &mut away] {
        member.put(&message(b'a', NOW + HOUR), NOW).unwrap();
    }
    here.expire(&OWNER, [(message(b'a', 0).hash.as_str(), NOW + 1000)], Change::Set, NOW).unwrap();
    here.sweep(NOW + 2000).unwrap();
    tell(&away, &mut here, NOW + 3000);
    tell(&here, &mut away, NOW + 3000);
    for member in [&here, &away] {
        assert_eq!(contents(member, NOW + 3000).0.len(), 0);
    }
    for member in [&mut here, &mut away] {
        member.sweep(NOW + 2 * HOUR).unwrap();
        assert_eq!(member.changes(0, 10).unwrap(), [], "nothing is remembered longer than anybody could hold it");
    }
}

#[test]
fn a_stranger_can_bring_but_not_take() {
    let mut here = store();
    here.put(&message(b'a', NOW + HOUR), NOW).unwrap();
    let Message { account, namespace, hash, .. } = message(b'a', 0);
    let gone = Mark { account, namespace, hash, version: 2 << LIFE, expiry: 0, until: NOW + HOUR };
    assert!(!here.learn(&gone, false, NOW).unwrap());
    assert_eq!(contents(&here, NOW).0.len(), 1);
    let new = message(b'b', NOW + HOUR);
    let mark = Mark { hash: new.hash.clone(), version: 1 << LIFE, expiry: NOW + HOUR, ..gone };
    assert!(here.take(&mark, &new, false, NOW).unwrap());
}

#[test]
fn numbers_go_on_after_a_restart() {
    let file = std::env::temp_dir().join(format!("replica-{}.db", std::process::id()));
    let open = || Store::open(&file, CAP_DEFAULT, crate::store::Damaged::Refuse).unwrap();
    let _ = std::fs::remove_file(&file);
    let (epoch, last) = {
        let mut store = open();
        store.put(&message(b'a', NOW + 1000), NOW).unwrap();
        store.move_cursor(&[1; 32], &[2; 24], &[3; 16], store.last_change()).unwrap();
        store.sweep(NOW + 2000).unwrap();
        store.commit().unwrap();
        (store.epoch(), store.last_change())
    };
    let store = open();
    assert_eq!((store.epoch(), store.last_change()), (epoch, last), "though the row it numbered is gone");
    assert_eq!(store.cursor(&[1; 32], &[2; 24]).unwrap(), Some(([3; 16], last)));
    assert_eq!(store.cursor(&[1; 32], &[4; 24]).unwrap(), None, "another part of the circle");
    drop(store);
    std::fs::remove_file(&file).unwrap();
}

#[derive(Clone, Debug)]
enum Deed {
    Put(u8, u64),
    Delete(u8),
    Expire(u8, u64),
    Clear,
    Revoke(u8),
    Unrevoke(u8),
    Tell(usize, usize),
    Sweep,
}

fn deeds() -> impl Strategy<Value = (Deed, u8, u64)> {
    let letter = b'a'..b'e';
    let deed = prop_oneof![
        4 => (letter.clone(), 1u64..20).prop_map(|(letter, hours)| Deed::Put(letter, hours)),
        2 => letter.clone().prop_map(Deed::Delete),
        2 => (letter.clone(), 1u64..20).prop_map(|(letter, hours)| Deed::Expire(letter, hours)),
        1 => Just(Deed::Clear),
        1 => letter.clone().prop_map(Deed::Revoke),
        1 => letter.prop_map(Deed::Unrevoke),
        2 => (0usize..3, 0usize..3).prop_map(|(from, to)| Deed::Tell(from, to)),
        1 => Just(Deed::Sweep),
    ];
    // Who of three hears of it, and how long after the last.
    (deed, 1u8..8, 0u64..HOUR)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn members_that_told_each_other_hold_the_same(deeds in prop::collection::vec(deeds(), 1..40)) {
        let (mut members, mut now) = ([store(), store(), store()], NOW);
        let token = |letter| Token([letter; Token::LEN]);
        for (deed, hear, later) in deeds {
            now += later;
            if let Deed::Tell(from, to) = deed {
                if let Ok([from, to]) = members.get_disjoint_mut([from, to]) {
                    tell(from, to, now);
                }
                continue;
            }
            for (_, member) in members.iter_mut().enumerate().filter(|(at, _)| hear >> at & 1 == 1) {
                match &deed {
                    Deed::Put(letter, hours) => drop(member.put(&message(*letter, now + hours * HOUR), now).unwrap()),
                    Deed::Delete(letter) => drop(member.delete(&OWNER, &[message(*letter, 0).hash], now).unwrap()),
                    Deed::Expire(letter, hours) => {
                        let hash = message(*letter, 0).hash;
                        drop(member.expire(&OWNER, [(hash.as_str(), now + hours * HOUR)], Change::Set, now).unwrap());
                    }
                    Deed::Clear => drop(member.clear(&OWNER, Scope::All, None, now).unwrap()),
                    Deed::Revoke(letter) => member.revoke(&OWNER, &[token(*letter)], now).unwrap(),
                    Deed::Unrevoke(letter) => drop(member.unrevoke(&OWNER, &[token(*letter)], now).unwrap()),
                    Deed::Sweep => drop(member.sweep(now).unwrap()),
                    Deed::Tell(..) => {}
                }
            }
        }
        for _ in 0..2 {
            for (from, to) in [(0, 1), (1, 2), (2, 0), (0, 2), (2, 1), (1, 0)] {
                let [from, to] = members.get_disjoint_mut([from, to]).unwrap();
                tell(from, to, now);
            }
        }
        let [one, two, three] = members.each_ref().map(|member| contents(member, now));
        prop_assert_eq!(&one, &two);
        prop_assert_eq!(&two, &three);
        for (from, to) in [(0, 1), (1, 2), (2, 0)] {
            let [from, to] = members.get_disjoint_mut([from, to]).unwrap();
            let before = to.last_change();
            tell(from, to, now);
            prop_assert_eq!(to.last_change(), before, "what is the same is no news");
        }
    }
}
