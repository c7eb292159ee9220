//! Who is joined to whom at this pivot: a service's path by its token, and the callers on it by ids that only the
//! service's path sees. Bounded per service. Neighbours: `transit` moves the cells.

use crate::crypto::random::Chance;
use crate::wire::build::TOKEN;
use crate::wire::id::CallerId;
use std::collections::{BTreeMap, HashMap};

/// Most callers on one path of a service.
pub const CALLERS_MAX: usize = 1024;

struct Service {
    hop: usize,
    callers: HashMap<u32, usize>,
}

/// The joins at one relay.
#[derive(Default)]
pub struct Joins {
    by_token: BTreeMap<[u8; TOKEN], Service>,
    by_hop: HashMap<usize, [u8; TOKEN]>,
}

impl Joins {
    /// A service's path has arrived.
    pub fn host(&mut self, token: [u8; TOKEN], hop: usize) {
        self.by_hop.insert(hop, token);
        self.by_token.insert(token, Service { hop, callers: HashMap::new() });
    }

    /// The hop of the service with this token.
    pub fn service(&self, token: &[u8; TOKEN]) -> Option<usize> {
        self.by_token.get(token).map(|service| service.hop)
    }

    /// Whether the service's path carries all the callers it may.
    pub fn is_full(&self, token: &[u8; TOKEN]) -> bool {
        self.by_token.get(token).is_some_and(|service| service.callers.len() >= CALLERS_MAX)
    }

    /// Joins a caller's hop: the service's hop, and the caller's new id.
    pub fn join(&mut self, token: &[u8; TOKEN], caller: usize, chance: &mut Chance) -> Option<(usize, CallerId)> {
        let service = self.by_token.get_mut(token)?;
        loop {
            let id = chance.nonzero();
            if let std::collections::hash_map::Entry::Vacant(vacant) = service.callers.entry(id) {
                vacant.insert(caller);
                return Some((service.hop, CallerId(id)));
            }
        }
    }

    /// A service's path ended: the hops of its callers, in order.
    pub fn end_service(&mut self, token: &[u8; TOKEN]) -> Vec<usize> {
        let Some(service) = self.by_token.remove(token) else { return Vec::new() };
        self.by_hop.remove(&service.hop);
        let mut hops: Vec<usize> = service.callers.into_values().collect();
        hops.sort_unstable();
        hops
    }

    /// How many callers the service has that has most.
    pub fn most_callers(&self) -> usize {
        self.by_token.values().map(|service| service.callers.len()).max().unwrap_or_default()
    }

    /// A caller's path ended.
    pub fn end_caller(&mut self, service: usize, caller: CallerId) {
        if let Some(token) = self.by_hop.get(&service)
            && let Some(service) = self.by_token.get_mut(token)
        {
            service.callers.remove(&caller.0);
        }
    }
}
