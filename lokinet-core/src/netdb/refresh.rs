//! Learning what has changed, from one who knows: the names of all contacts first, a few bytes each, then those contacts
//! that we do not hold. What we hold is never told, since it would tell who we are. Neighbours: `fetch` says when, `node`
//! carries the questions over one path of ours.

use super::Netdb;
use crate::wire::control::{Ask, CONTACTS_MAX, NAMES_MAX, Name, Tell};
use crate::wire::id::RelayId;
use crate::wire::registry::MAX_RELAYS;

/// One round.
#[derive(Default)]
pub struct Refresh {
    /// Contacts to be asked for.
    wanted: Vec<Name>,
    /// Those that were asked for last.
    asked: Vec<Name>,
    /// How many names were told, and the last of them.
    told: usize,
    last: Option<Name>,
}

/// What comes next.
#[derive(PartialEq, Eq, Debug)]
pub enum Step {
    /// A question.
    Ask(Ask),
    /// Nothing: all is learnt.
    Done,
    /// Nothing: whom we asked does not answer as he should.
    Failed,
}

impl Refresh {
    /// The first question.
    pub fn begin() -> (Refresh, Ask) {
        (Refresh::default(), Ask::Names { after: RelayId([0; 32]) })
    }

    /// An answer came; contacts in it have been learnt already.
    pub fn took(&mut self, tell: &Tell, netdb: &Netdb) -> Step {
        match tell {
            Tell::Names(names) => self.names(names, netdb),
            // Who names contacts and then has none of them is playing with us.
            Tell::Contacts(_) if self.asked.iter().any(|name| netdb.holds(name)) => self.next(),
            _ => Step::Failed,
        }
    }

    fn names(&mut self, names: &[Name], netdb: &Netdb) -> Step {
        self.told += names.len();
        let first = self.last.into_iter().chain(names.first().copied());
        let rising =
            names.is_sorted_by(|one, next| one[..4] <= next[..4]) && first.is_sorted_by(|a, b| a[..4] < b[..4]);
        if self.told > MAX_RELAYS || !rising || !self.asked.is_empty() {
            return Step::Failed;
        }
        self.wanted.extend(names.iter().filter(|name| !netdb.holds(name)));
        match names.last() {
            Some(last) if names.len() == NAMES_MAX => {
                self.last = Some(*last);
                let mut after = [0xff; 32];
                after[..4].copy_from_slice(&last[..4]);
                Step::Ask(Ask::Names { after: RelayId(after) })
            }
            _ => self.next(),
        }
    }

    fn next(&mut self) -> Step {
        self.asked = self.wanted.split_off(self.wanted.len().saturating_sub(CONTACTS_MAX));
        if self.asked.is_empty() { Step::Done } else { Step::Ask(Ask::Named(self.asked.clone())) }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::testing::known;
    use super::*;
    use crate::time::Wall;

    /// What a round costs whoever knows all but a few, and that it finds those.
    #[test]
    fn only_what_is_not_held_is_asked_for() {
        let (full, mut ours) = (known(40), known(40));
        let wall = Wall::from_secs(1_000_000);
        let missing: Vec<RelayId> = full.contacts().map(|c| c.id).step_by(2).collect();
        missing.iter().for_each(|id| ours.forget(id));
        let (mut refresh, mut ask) = Refresh::begin();
        let (mut contacts, mut rounds) = (0, 0);
        let end = loop {
            rounds += 1;
            let tell = match ask {
                Ask::Names { after } => Tell::Names(full.names(&after, NAMES_MAX)),
                Ask::Named(names) => Tell::Contacts(full.named(&names)),
                _ => break Step::Failed,
            };
            if let Tell::Contacts(told) = &tell {
                contacts += told.len();
                for contact in told {
                    ours.learn(contact, wall);
                }
            }
            match refresh.took(&tell, &ours) {
                Step::Ask(next) => ask = next,
                end => break end,
            }
        };
        assert_eq!((end, ours.len(), contacts, rounds), (Step::Done, 40, 20, 3));
    }

    #[test]
    fn who_names_what_he_has_not_is_left() {
        let netdb = known(4);
        let (mut refresh, _) = Refresh::begin();
        assert!(matches!(refresh.took(&Tell::Names(vec![[1; 8], [2; 8]]), &netdb), Step::Ask(Ask::Named(_))));
        assert_eq!(refresh.took(&Tell::Contacts(Vec::new()), &netdb), Step::Failed);
        let (mut refresh, _) = Refresh::begin();
        assert_eq!(refresh.took(&Tell::Names(vec![[2; 8], [1; 8]]), &netdb), Step::Failed, "names must rise");
        let (mut refresh, _) = Refresh::begin();
        let page: Vec<Name> =
            (0..NAMES_MAX as u32).map(|n| [n.to_be_bytes(); 2].concat().try_into().unwrap()).collect();
        assert!(matches!(refresh.took(&Tell::Names(page.clone()), &netdb), Step::Ask(Ask::Names { .. })));
        assert_eq!(refresh.took(&Tell::Names(page), &netdb), Step::Failed, "the same page again and again");
    }
}
