//! A node counted: how full its tables are, where its paths go, and who has which address. For the laws of the simulated
//! world, which look after every step; nothing here changes anything. Neighbours: `node` holds the machines, each floor
//! counts its own.

use super::{Machines, Node};
use crate::flow::lease::{LEASES_MAX, Leased};
use crate::link::LinkId;
use crate::netdb::shelf;
use crate::path::PATHS_MAX;
use crate::time::Time;
use crate::transit::census::Onward;
use crate::wire::id::{PathId, RelayId};
use crate::wire::registry::MAX_RELAYS;

impl Node {
    /// Tells `look` of every table: its name, its size, and the bound it must keep.
    pub fn tables(&self, look: &mut impl FnMut(&'static str, usize, usize)) {
        let mut all = |tables: &[(&'static str, usize, usize)]| tables.iter().for_each(|(n, s, b)| look(n, *s, *b));
        all(&self.core.links.tables());
        all(&[("contacts", self.core.netdb.len(), MAX_RELAYS)]);
        match &self.trade {
            Machines::Client(client) => {
                all(&client.sessions.tables());
                let leases = client.leases.len();
                all(&[("paths", client.paths.len(), PATHS_MAX), ("leases", leases, LEASES_MAX)]);
            }
            Machines::Relay(relay) => {
                all(&relay.transit.tables());
                all(&[("introsets", relay.shelf.len(), shelf::KEPT_MAX)]);
            }
        }
    }

    /// Tells `look` of every account: what it counts, how much came, and how much went somewhere, is kept, or was dropped
    /// for a reason that has a counter. The two are equal, or something leaks.
    pub fn accounts(&self, look: &mut impl FnMut(&'static str, u64, u64)) {
        let mut all = |accounts: &[(&'static str, u64, u64)]| accounts.iter().for_each(|(n, c, w)| look(n, *c, *w));
        let core = &self.core;
        all(&[core.links.account()]);
        match &self.trade {
            Machines::Client(client) => {
                let path = client.paths.account();
                all(&[("cells from links", core.arrived, core.dropped + path.1), path]);
                all(&client.sessions.accounts());
                all(&[("requests of others", core.asked, core.out.answered)]);
            }
            Machines::Relay(relay) => {
                let transit = relay.transit.account();
                all(&[("cells from links", core.arrived, core.dropped + transit.1), transit]);
                all(&[("requests of others", core.asked, core.out.answered + relay.transit.unanswered())]);
            }
        }
    }

    /// Our own live paths: the first link and the path's name on it, and the relays, first hop first.
    pub fn live_paths(&self) -> Vec<(LinkId, PathId, Vec<RelayId>)> {
        let Machines::Client(client) = &self.trade else { return Vec::new() };
        let hops = |live: &crate::path::live::Live| live.hops().iter().map(|hop| hop.id).collect();
        client.paths.all_live().map(|(_, live)| (live.first().0, live.first().1, hops(live))).collect()
    }

    /// Where a stranger's path goes on; `None` when it does not come through here.
    pub fn onward(&self, link: LinkId, path: PathId) -> Option<Onward> {
        match &self.trade {
            Machines::Client(_) => None,
            Machines::Relay(relay) => relay.transit.onward(link, path),
        }
    }

    /// When the hop ends whose end is next, of all that we lend.
    pub fn soonest_end(&self) -> Option<Time> {
        match &self.trade {
            Machines::Client(_) => None,
            Machines::Relay(relay) => relay.transit.soonest_end(),
        }
    }

    /// Who has which local address.
    pub fn leases(&self) -> Vec<Leased> {
        match &self.trade {
            Machines::Client(client) => client.leases.all(),
            Machines::Relay(_) => Vec::new(),
        }
    }
}
