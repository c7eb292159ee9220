//! When to ask whom for contacts. Until enough are held, the whole set is asked for directly from relays whose address
//! is known (registry hints, bootstrap contacts), page by page; afterwards clients learn over their paths and relays
//! from each other. Neighbours: `netdb` takes what comes, `node` sends the questions.

use super::Netdb;
use crate::crypto::random::Chance;
use crate::time::Time;
use crate::wire::id::RelayId;
use core::time::Duration;

/// With so many verified contacts a client stops asking its bootstraps directly.
pub const ENOUGH: usize = 16;
const EVERY: Duration = Duration::from_secs(600);
const AGAIN: Duration = Duration::from_millis(250);
const AGAIN_LAST: Duration = Duration::from_secs(60);

/// A relay that is spoken of and not known is asked for at once, but not so soon after the last round; twice as long after
/// each round that did not bring it, for who speaks of it may be making it up.
pub const MISSED: Duration = Duration::from_secs(5);
/// Most pages of one answer: more than any network has.
pub const PAGES_MAX: u32 = 1024;

/// The state of learning contacts.
pub struct Fetch {
    /// Who is asked, after which id, and how many pages it has given.
    asking: Option<(RelayId, RelayId, u32)>,
    next: Time,
    /// When the last round ended.
    ended: Option<Time>,
    again: Duration,
    /// Who is missed, and for how long nobody is asked for it after a round.
    missed: Option<RelayId>,
    pause: Duration,
    /// Rounds that failed in a row.
    failures: usize,
}

/// One question.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Question {
    /// Whom to ask.
    pub relay: RelayId,
    /// Contacts after this id.
    pub after: RelayId,
}

impl Fetch {
    /// Asks at once.
    pub fn new(now: Time) -> Fetch {
        Fetch { asking: None, next: now, ended: None, again: AGAIN, missed: None, pause: MISSED, failures: 0 }
    }

    /// When to call [`Fetch::wake`].
    pub fn next_wake(&self) -> Option<Time> {
        self.asking.is_none().then_some(self.next)
    }

    /// There may be more to learn: asks soon, and at once when nobody is being asked.
    pub fn hurry(&mut self, now: Time) {
        self.next = self.next.min(now);
    }

    /// A relay is spoken of that we do not know.
    pub fn missed(&mut self, relay: RelayId, now: Time) {
        self.missed = Some(relay);
        let at = self.ended.map_or(now, |ended| ended + self.pause);
        self.next = self.next.min(at.max(now));
    }

    /// Whether what is held suffices to stop asking directly.
    pub fn enough(netdb: &Netdb) -> bool {
        netdb.len() >= ENOUGH.min(netdb.registry().len())
    }

    /// Whether three of four relays are known: then few are missed, and there is no hurry.
    pub fn most(netdb: &Netdb) -> bool {
        netdb.len() * 4 >= netdb.registry().len() * 3
    }

    /// Starts the next round when its time has come. `own` is not asked.
    ///
    /// `guards` are asked before anybody else, since they know us anyway; others only when each of them has failed.
    pub fn wake(
        &mut self,
        netdb: &Netdb,
        own: Option<RelayId>,
        guards: &[RelayId],
        chance: &mut Chance,
        now: Time,
    ) -> Option<Question> {
        if self.asking.is_some() || now < self.next {
            return None;
        }
        let mut known: Vec<RelayId> = netdb
            .registry()
            .relays()
            .filter(|(id, hint)| Some(**id) != own && (!hint.is_empty() || netdb.contact(id).is_some()))
            .map(|(id, _)| *id)
            .collect();
        if known.is_empty() {
            self.next = now + EVERY;
            return None;
        }
        let relay = match guards.get(self.failures).filter(|guard| known.contains(guard)) {
            Some(guard) => *guard,
            None => known.swap_remove(chance.below(known.len() as u64) as usize),
        };
        let after = RelayId([0; 32]);
        self.asking = Some((relay, after, 0));
        Some(Question { relay, after })
    }

    /// A page came (`last` is the highest id in it, `None` for an empty one) or did not (`failed`).
    pub fn page(&mut self, netdb: &Netdb, last: Option<RelayId>, failed: bool, now: Time) -> Option<Question> {
        let (relay, before, pages) = self.asking?;
        // Pages rise and end, or their giver is playing with us.
        if let (Some(after), false) = (last.filter(|last| *last > before && pages < PAGES_MAX), failed) {
            self.asking = Some((relay, after, pages + 1));
            return Some(Question { relay, after });
        }
        (self.asking, self.ended) = (None, Some(now));
        if let Some(missed) = self.missed.take() {
            self.pause = if netdb.contact(&missed).is_some() { MISSED } else { (self.pause * 2).min(EVERY) };
        }
        self.failures = if failed { self.failures + 1 } else { 0 };
        let enough = Fetch::enough(netdb);
        if enough && Fetch::most(netdb) && !failed {
            self.again = AGAIN;
            self.next = now + EVERY;
        } else {
            // Who was born with the network asked others who knew little: they know more soon.
            self.next = now + self.again;
            self.again = (self.again * 2).min(if enough { EVERY } else { AGAIN_LAST });
        }
        None
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::testing::known;
    use super::*;

    #[test]
    fn a_relay_that_repeats_its_page_is_left_and_another_asked() {
        let netdb = known(20);
        let (mut chance, start) = (Chance::new([1; 32]), Time::from_nanos(0));
        for last in [Some(RelayId([0; 32])), Some(RelayId([7; 32]))] {
            let mut fetch = Fetch::new(start);
            fetch.wake(&netdb, None, &[], &mut chance, start).unwrap();
            let mut questions = 0;
            while fetch.page(&netdb, last, false, start).is_some() {
                questions += 1;
                assert!(questions < 3, "asked the same relay again and again");
            }
            assert!(fetch.next_wake().is_some(), "nobody will ever be asked again");
        }
    }

    /// A service is met at a relay that came after our last round: the next one may be minutes away.
    #[test]
    fn a_relay_that_is_missed_is_asked_for_at_once_but_not_all_the_time() {
        let netdb = known(20);
        let (mut chance, start) = (Chance::new([3; 32]), Time::from_nanos(0));
        let mut fetch = Fetch::new(start);
        fetch.wake(&netdb, None, &[], &mut chance, start).unwrap();
        assert!(fetch.page(&netdb, None, false, start).is_none());
        assert!(fetch.next_wake().unwrap() > start + MISSED, "all is known, and there is no hurry");
        let (there, nowhere) = (netdb.contacts().next().unwrap().id, RelayId([255; 32]));
        fetch.missed(there, start);
        assert_eq!(fetch.next_wake(), Some(start + MISSED));
        let later = start + MISSED * 3;
        fetch.missed(there, start + MISSED * 2);
        assert_eq!(fetch.next_wake(), Some(start + MISSED), "it is due already");
        fetch.wake(&netdb, None, &[], &mut chance, later).unwrap();
        assert!(fetch.page(&netdb, None, false, later).is_none());
        fetch.missed(there, later + MISSED * 2);
        assert_eq!(fetch.next_wake(), Some(later + MISSED * 2), "at once");
        // Somebody goes on naming a relay that nobody can tell us of.
        let (mut now, mut rounds) = (later + MISSED * 2, 0);
        while now < later + EVERY {
            fetch.missed(nowhere, now);
            now = now.max(fetch.next_wake().unwrap());
            fetch.wake(&netdb, None, &[], &mut chance, now).unwrap();
            assert!(fetch.page(&netdb, None, false, now).is_none());
            rounds += 1;
        }
        assert!(rounds <= 9, "{rounds} rounds for nothing in ten minutes");
    }

    #[test]
    #[allow(clippy::panic)]
    fn a_relay_with_ever_more_pages_is_left_too() {
        let netdb = known(20);
        let (mut chance, start) = (Chance::new([2; 32]), Time::from_nanos(0));
        let mut fetch = Fetch::new(start);
        fetch.wake(&netdb, None, &[], &mut chance, start).unwrap();
        let mut id = [0; 32];
        for page in 1..=PAGES_MAX + 1 {
            id[..4].copy_from_slice(&page.to_be_bytes());
            if fetch.page(&netdb, Some(RelayId(id)), false, start).is_none() {
                assert_eq!(page, PAGES_MAX + 1);
                assert!(fetch.next_wake().is_some());
                return;
            }
        }
        panic!("pages without end");
    }
}
