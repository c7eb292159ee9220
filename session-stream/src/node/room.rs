//! Room for what waits for others: bounded altogether, and for each who calls, so that nobody fills it alone; calls and
//! onions that pass have rooms of their own, for an onion may wait long. Neighbours: `calls` and `questions` (what waits).

use std::collections::BTreeMap;
use std::net::Ipv6Addr;

use super::io::NodeKey;

/// Calls that can wait at a time, and onions that are on their way.
pub const CALLS_MAX: usize = 4096;
/// See [`CALLS_MAX`].
pub const ONIONS_MAX: usize = 16_384;
/// How many of either can be one client's, and one node's.
pub const CLIENT_MAX: usize = 256;
/// See [`CLIENT_MAX`].
pub const NODE_MAX: usize = 1024;
/// The bytes that all bodies may have together.
pub const BYTES_MAX: usize = 256 << 20;

/// Who called.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Who {
    /// A client, by the place of its address.
    Client(Ipv6Addr),
    /// Another node.
    Node(NodeKey),
}

/// Which room.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum What {
    /// A call that is done here.
    Call,
    /// An onion that goes on.
    Onion,
}

/// A place in the room, to be given back by [`Room::release`].
#[derive(Debug)]
pub struct Place {
    who: Who,
    what: What,
    bytes: usize,
}

impl Place {
    /// Whose it is.
    pub fn who(&self) -> Who {
        self.who
    }
}

/// The places taken.
#[derive(Default)]
pub struct Room {
    calls: Crowd,
    onions: Crowd,
    bytes: usize,
}

#[derive(Default)]
struct Crowd {
    all: usize,
    each: BTreeMap<Who, usize>,
}

impl Room {
    /// Takes a place for something of so many bytes; nothing when there is none.
    pub fn admit(&mut self, who: Who, what: What, bytes: usize) -> Option<Place> {
        let all_max = match what {
            What::Call => CALLS_MAX,
            What::Onion => ONIONS_MAX,
        };
        let each_max = match who {
            Who::Client(_) => CLIENT_MAX,
            Who::Node(_) => NODE_MAX,
        };
        let full = self.bytes + bytes > BYTES_MAX;
        let crowd = self.crowd(what);
        if full || crowd.all >= all_max || crowd.each.get(&who).is_some_and(|each| *each >= each_max) {
            return None;
        }
        crowd.all += 1;
        *crowd.each.entry(who).or_insert(0) += 1;
        self.bytes += bytes;
        Some(Place { who, what, bytes })
    }

    /// It waits no more.
    pub fn release(&mut self, place: Place) {
        self.bytes -= place.bytes;
        let crowd = self.crowd(place.what);
        crowd.all -= 1;
        if let Some(each) = crowd.each.get_mut(&place.who) {
            *each -= 1;
            if *each == 0 {
                crowd.each.remove(&place.who);
            }
        }
    }

    fn crowd(&mut self, what: What) -> &mut Crowd {
        match what {
            What::Call => &mut self.calls,
            What::Onion => &mut self.onions,
        }
    }
}
