//! How a client learns who the relays are: whom it asks, page by page and over its paths, and what it takes from the answers.
//! Neighbours: `netdb::fetch` and `netdb::refresh` decide what is asked next, `client` hands over the replies.

use super::Client;
use crate::netdb::Learned;
use crate::netdb::fetch::{self, Fetch};
use crate::netdb::refresh::{Refresh, Step};
use crate::node::Core;
use crate::path::PathKey;
use crate::time::Now;
use crate::wire::control::{Ask, Tell};
use crate::wire::id::RelayId;
use crate::wire::request::{self, Request};
use bytes::Bytes;
use core::time::Duration;

impl Client {
    pub(super) fn page(&mut self, reply: Option<Bytes>, core: &mut Core, now: Now) {
        let failed = reply.is_none();
        let contacts = reply.map(|reply| request::contacts(&reply)).unwrap_or_default();
        let last = self.take_contacts(&contacts, core, now);
        let next = self.fetch.page(&core.netdb, last, failed, now.mono);
        self.fetch_from(next, core, now);
    }

    fn take_contacts(&mut self, contacts: &[Bytes], core: &mut Core, now: Now) -> Option<RelayId> {
        let mut last = None;
        for contact in contacts {
            self.directory += contact.len() as u64;
            if let Learned::New(_) = core.learn(contact, now) {
                self.pools.iter_mut().for_each(|pool| pool.learned(now.mono));
            }
            last = last.max(contact.get(9..41).and_then(|id| id.try_into().ok()).map(RelayId));
        }
        self.refresh_guards(core, now);
        self.sessions.learned(&core.netdb, now);
        last
    }

    pub(super) fn fetch_from(&mut self, question: Option<fetch::Question>, core: &mut Core, now: Now) {
        let Some(fetch::Question { relay, after }) = question else { return };
        // Once we know enough, nobody is told what we ask for: the question goes over a path.
        if Fetch::enough(&core.netdb)
            && let Some(path) = self.paths.any(now.mono)
        {
            let (refresh, ask) = Refresh::begin();
            if self.learn_by(path, refresh, &ask, core, now) {
                return;
            }
        }
        let addrs = core.netdb.addrs(&relay).list();
        let body = Request::Contacts { after }.encode();
        self.fetching = Some(core.links.request(relay, addrs, body, Duration::from_secs(5), now.mono));
    }

    /// Goes on with a round of learning, on the path it began on.
    fn learn_by(&mut self, path: PathKey, refresh: Refresh, ask: &Ask, core: &mut Core, now: Now) -> bool {
        let asked = self.paths.ask(path, ask, &mut core.links, now.mono);
        self.learning = asked.map(|id| (id, path, refresh));
        asked.is_some()
    }

    pub(super) fn learned(
        &mut self,
        path: PathKey,
        mut refresh: Refresh,
        tell: Option<Tell>,
        core: &mut Core,
        now: Now,
    ) {
        match &tell {
            Some(Tell::Contacts(contacts)) => drop(self.take_contacts(contacts, core, now)),
            Some(Tell::Names(names)) => self.directory += names.as_flattened().len() as u64,
            _ => {}
        }
        let step = tell.map_or(Step::Failed, |tell| refresh.took(&tell, &core.netdb));
        let failed = match step {
            Step::Ask(ask) if self.learn_by(path, refresh, &ask, core, now) => return,
            step => step != Step::Done,
        };
        let next = self.fetch.page(&core.netdb, None, failed, now.mono);
        self.fetch_from(next, core, now);
    }
}
