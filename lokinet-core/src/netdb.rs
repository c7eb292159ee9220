//! Floor 1: whom we know. A [`Netdb`] holds the registry, the verified contacts of its relays, what relays did to us
//! (`profile`), which of them we enter by (`guards`) and, on relays, the introsets we keep for others (`shelf`). It
//! acts by answering questions; `fetch` decides when to ask whom for more. Neighbours: `select` is the pure choice of
//! hops; `link` is on the same floor and unknown here.

pub mod fetch;
pub mod guards;
pub mod profile;
pub mod refresh;
pub mod select;
pub mod shelf;

use crate::time::{Now, Wall};
use crate::wire::addrs::Addrs;
use crate::wire::contact::{CONTACT, Contact, NetId};
use crate::wire::control::Name;
use crate::wire::id::RelayId;
use crate::wire::registry::Registry;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What became of a contact that was shown to us.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Learned {
    /// New, or newer than what we had.
    New(RelayId),
    /// We had it, or a newer one.
    Known,
    /// It does not count.
    Refused,
}

/// What a node knows about the network.
pub struct Netdb {
    netid: NetId,
    /// Whether relays may have private addresses (private networks).
    private: bool,
    registry: Registry,
    contacts: BTreeMap<RelayId, Arc<Contact>>,
    /// Who failed us.
    pub profile: profile::Profile,
}

impl Netdb {
    /// A netdb that knows who is a relay and nothing else.
    pub fn new(netid: NetId, private: bool, registry: Registry) -> Netdb {
        Netdb { netid, private, registry, contacts: BTreeMap::new(), profile: profile::Profile::default() }
    }

    /// The registry.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Takes a newer edition of the registry in; whose contacts are forgotten with it. `None`: it is not newer.
    pub fn replace(&mut self, registry: Registry) -> Option<Vec<RelayId>> {
        if registry.serial <= self.registry.serial {
            return None;
        }
        self.registry = registry;
        Some(self.forget_unlisted())
    }

    /// The network's name.
    pub fn netid(&self) -> NetId {
        self.netid
    }

    /// Verifies a contact and keeps it when it counts and is new. Bytes we hold already are not verified twice.
    pub fn learn(&mut self, signed: &Bytes, wall: Wall) -> Learned {
        // The id's place in the record is fixed; a cheap look decides whether the signature is worth checking.
        let Some(id) = signed.get(9..41).and_then(|id| id.try_into().ok()).map(RelayId) else {
            return Learned::Refused;
        };
        if signed.len() != CONTACT || !self.registry.lists(&id) {
            return Learned::Refused;
        }
        if self.contacts.get(&id).is_some_and(|held| held.signed == signed) {
            return Learned::Known;
        }
        let Ok(contact) = Contact::verify(signed.clone(), self.netid, wall) else { return Learned::Refused };
        if !self.private && !contact.card.addrs.is_public() {
            return Learned::Refused;
        }
        if self.contacts.get(&id).is_some_and(|held| held.card.published >= contact.card.published) {
            return Learned::Known;
        }
        self.contacts.insert(id, Arc::new(contact));
        Learned::New(id)
    }

    /// The contact of a relay.
    pub fn contact(&self, id: &RelayId) -> Option<&Arc<Contact>> {
        self.contacts.get(id)
    }

    /// All contacts, by id.
    pub fn contacts(&self) -> impl Iterator<Item = &Arc<Contact>> {
        self.contacts.values()
    }

    /// How many contacts we hold.
    pub fn len(&self) -> usize {
        self.contacts.len()
    }

    /// Whether we hold no contact.
    pub fn is_empty(&self) -> bool {
        self.contacts.is_empty()
    }

    /// Signed contacts whose ids follow `after`, at most `limit`.
    pub fn after(&self, after: &RelayId, limit: usize) -> Vec<Bytes> {
        use core::ops::Bound::{Excluded, Unbounded};
        self.contacts.range((Excluded(after), Unbounded)).take(limit).map(|(_, c)| c.signed.clone()).collect()
    }

    /// The names of contacts whose ids follow `after`, at most `limit`.
    pub fn names(&self, after: &RelayId, limit: usize) -> Vec<Name> {
        use core::ops::Bound::{Excluded, Unbounded};
        self.contacts.range((Excluded(after), Unbounded)).take(limit).map(|(_, c)| c.name).collect()
    }

    /// Signed contacts with these names.
    pub fn named(&self, names: &[Name]) -> Vec<Bytes> {
        names.iter().filter_map(|name| self.alike(name).find(|c| c.name == *name)).map(|c| c.signed.clone()).collect()
    }

    /// Whether the contact with this name is held.
    pub fn holds(&self, name: &Name) -> bool {
        self.alike(name).any(|contact| contact.name == *name)
    }

    /// Contacts of relays whose ids begin as a name does.
    fn alike(&self, name: &Name) -> impl Iterator<Item = &Arc<Contact>> {
        let (mut first, mut last) = ([0; 32], [0xff; 32]);
        first[..4].copy_from_slice(&name[..4]);
        last[..4].copy_from_slice(&name[..4]);
        self.contacts.range(RelayId(first)..=RelayId(last)).map(|(_, contact)| contact)
    }

    /// Where a relay can be reached: its contact's addresses, else the registry's hint, else nothing.
    pub fn addrs(&self, id: &RelayId) -> Addrs {
        match self.contacts.get(id) {
            Some(contact) => contact.card.addrs,
            None => self.registry.hint(id).unwrap_or_default(),
        }
    }

    /// Whether an address may be dialled in this network.
    pub fn may_dial(&self, addrs: &Addrs) -> bool {
        !addrs.is_empty() && (self.private || addrs.is_public())
    }

    /// Forgets one contact.
    #[cfg(test)]
    pub(crate) fn forget(&mut self, id: &RelayId) {
        self.contacts.remove(id);
    }

    /// The `count` relays nearest to a position, nearest first: who keeps what is stored there.
    pub fn nearest(&self, position: &[u8; 32], count: usize) -> Vec<RelayId> {
        let mut relays: Vec<RelayId> = self.contacts.keys().copied().collect();
        relays.sort_unstable_by_key(|id| id.distance(position));
        relays.truncate(count);
        relays
    }

    /// Whether a relay is among the `count` nearest to a position, as far as we know.
    pub fn is_near(&self, id: &RelayId, position: &[u8; 32], count: usize) -> bool {
        let own = id.distance(position);
        self.contacts.keys().filter(|other| other.distance(position) < own).take(count).count() < count
    }

    /// Forgets relays that the registry does not list; says whose contact was among it.
    pub fn forget_unlisted(&mut self) -> Vec<RelayId> {
        let Netdb { registry, contacts, profile, .. } = self;
        profile.retain(|id| registry.lists(id));
        let gone: Vec<RelayId> = contacts.keys().filter(|id| !registry.lists(id)).copied().collect();
        for id in &gone {
            contacts.remove(id);
        }
        gone
    }

    /// Forgets contacts that no longer count; says whose.
    pub fn expire(&mut self, now: Now) -> Vec<RelayId> {
        let gone: Vec<RelayId> =
            self.contacts.iter().filter(|(_, c)| c.card.expires <= now.wall).map(|(id, _)| *id).collect();
        for id in &gone {
            self.contacts.remove(id);
        }
        self.profile.decay(now.mono);
        gone
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod testing {
    //! A netdb with so many relays, each in a /16 of its own.
    use super::*;
    use crate::crypto::exchange::Secret;
    use crate::crypto::key::Identity;
    use crate::crypto::random::Chance;
    use crate::wire::contact::{Card, LIFETIME};
    use crate::wire::registry::{self, Listing};

    pub(crate) fn known(relays: u8) -> Netdb {
        knowing(relays, |_| true)
    }

    /// The same, knowing the contacts of some of them.
    pub(crate) fn knowing(relays: u8, whom: impl Fn(&RelayId) -> bool) -> Netdb {
        let netid = NetId::new("test").unwrap();
        let authority = Identity::from_seed(&[255; 32]);
        let now = Wall::from_secs(1_000_000);
        let identities: Vec<Identity> = (1..=relays).map(|i| Identity::from_seed(&[i; 32])).collect();
        let listings: Vec<Listing> = identities
            .iter()
            .map(|i| Listing { id: RelayId(i.public()), operator: 0, hint: Addrs::default() })
            .collect();
        let signed = registry::sign(netid, 1, now, now.plus(LIFETIME), &listings, core::slice::from_ref(&authority));
        let registry = Registry::verify(signed, netid, &[authority.public()], 1, now).unwrap();
        let mut netdb = Netdb::new(netid, true, registry);
        let onion = Box::new(*Secret::generate(&mut Chance::new([9; 32])).public());
        for (i, identity) in identities.iter().enumerate().filter(|(_, i)| whom(&RelayId(i.public()))) {
            let addrs = Addrs::from_list(&[format!("10.{}.0.1:1090", i + 1).parse().unwrap()]);
            let card =
                Card { netid, onion: onion.clone(), published: now, expires: now.plus(LIFETIME), aes: true, addrs };
            let contact = Contact::sign(identity, card);
            assert_eq!(netdb.learn(&contact.signed, now), Learned::New(contact.id));
            assert_eq!(netdb.learn(&contact.signed, now), Learned::Known);
        }
        netdb
    }

    /// A netdb of a registry that says of some of its relays where they are; no contact is known.
    pub(crate) fn hinted(relays: u8, hints: u8) -> Netdb {
        let netid = NetId::new("test").unwrap();
        let authority = Identity::from_seed(&[255; 32]);
        let now = Wall::from_secs(1_000_000);
        let listing = |i: u8| {
            let place = format!("10.{i}.0.1:1090").parse().unwrap();
            let hint = if i <= hints { Addrs::from_list(&[place]) } else { Addrs::default() };
            Listing { id: RelayId(Identity::from_seed(&[i; 32]).public()), operator: 0, hint }
        };
        let listings: Vec<Listing> = (1..=relays).map(listing).collect();
        let signed = registry::sign(netid, 1, now, now.plus(LIFETIME), &listings, core::slice::from_ref(&authority));
        Netdb::new(netid, true, Registry::verify(signed, netid, &[authority.public()], 1, now).unwrap())
    }

    #[test]
    fn strangers_and_private_addresses_do_not_enter() {
        let mut netdb = known(3);
        let now = Wall::from_secs(1_000_000);
        let card = netdb.contacts().next().unwrap().card.clone();
        let stranger = Contact::sign(&Identity::from_seed(&[200; 32]), card.clone());
        assert_eq!(netdb.learn(&stranger.signed, now), Learned::Refused);
        netdb.private = false;
        let newer = Card { published: Wall::from_secs(1_000_001), ..card };
        let listed = Contact::sign(&Identity::from_seed(&[1; 32]), newer);
        assert_eq!(netdb.learn(&listed.signed, now), Learned::Refused, "a private address in a public network");
    }
}
