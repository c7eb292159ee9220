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

/// Most pages of one answer: more than any network has.
pub const PAGES_MAX: u32 = 1024;

/// The state of learning contacts.
pub struct Fetch {
    /// Who is asked, after which id, and how many pages it has given.
    asking: Option<(RelayId, RelayId, u32)>,
    next: Time,
    again: Duration,
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
        Fetch { asking: None, next: now, again: AGAIN }
    }

    /// When to call [`Fetch::wake`].
    pub fn next_wake(&self) -> Option<Time> {
        self.asking.is_none().then_some(self.next)
    }

    /// Whether what is held suffices to stop asking directly.
    pub fn enough(netdb: &Netdb) -> bool {
        netdb.len() >= ENOUGH.min(netdb.registry().len())
    }

    /// Whether three of four relays are known: then few are missed, and there is no hurry.
    fn most(netdb: &Netdb) -> bool {
        netdb.len() * 4 >= netdb.registry().len() * 3
    }

    /// Starts the next round when its time has come. `own` is not asked.
    pub fn wake(&mut self, netdb: &Netdb, own: Option<RelayId>, chance: &mut Chance, now: Time) -> Option<Question> {
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
        let relay = known.swap_remove(chance.below(known.len() as u64) as usize);
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
        self.asking = None;
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
