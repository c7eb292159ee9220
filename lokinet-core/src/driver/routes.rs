//! Where cells to an address leave from: which socket, and which of the host's addresses where it has several. Neighbours:
//! `quic` learns routes as links come and go, the loop and `crew` ask before they send.

use crate::link::LinkId;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, PoisonError, RwLock};

/// Where cells to an address leave from.
#[derive(Clone, Copy)]
pub(crate) struct Route {
    pub(super) link: LinkId,
    /// Which socket.
    pub(crate) socket: usize,
    /// The local address the peer knows; only set where the socket has several.
    pub(crate) source: Option<IpAddr>,
}

/// All routes; clones show the same.
#[derive(Clone)]
pub(crate) struct Routes {
    /// The sockets' own addresses.
    local: Arc<[SocketAddr]>,
    table: Arc<RwLock<HashMap<SocketAddr, Route>>>,
}

impl Routes {
    /// None yet, from sockets with these addresses.
    pub(crate) fn new(local: Arc<[SocketAddr]>) -> Routes {
        Routes { local, table: Arc::default() }
    }

    /// Where cells to `to` leave from.
    pub(crate) fn to(&self, to: SocketAddr) -> Option<Route> {
        let known = self.table.read().unwrap_or_else(PoisonError::into_inner).get(&to).copied();
        known.or_else(|| Some(Route { link: LinkId(0), socket: self.socket_for(to)?, source: None }))
    }

    /// The first socket that can reach an address.
    pub(crate) fn socket_for(&self, to: SocketAddr) -> Option<usize> {
        self.local.iter().position(|local| local.is_ipv4() == to.is_ipv4())
    }

    /// Whether a socket has all of its family's addresses.
    pub(crate) fn has_several(&self, socket: usize) -> bool {
        self.local.get(socket).is_some_and(|local| local.ip().is_unspecified())
    }

    /// A link is reached so.
    pub(crate) fn learn(&self, to: SocketAddr, route: Route) {
        self.change(|table| table.insert(to, route));
    }

    /// A link is no longer anywhere.
    pub(crate) fn forget(&self, link: LinkId) {
        self.change(|table| table.retain(|_, route| route.link != link));
    }

    /// A link is no longer there.
    pub(crate) fn forget_at(&self, to: SocketAddr, link: LinkId) {
        self.change(|table| {
            if table.get(&to).is_some_and(|route| route.link == link) {
                table.remove(&to);
            }
        });
    }

    fn change<R>(&self, change: impl FnOnce(&mut HashMap<SocketAddr, Route>) -> R) {
        change(&mut self.table.write().unwrap_or_else(PoisonError::into_inner));
    }
}
