//! One host: an address, a disk, clocks of its own, a TUN device, and a machine while it lives. Neighbours: `world`
//! drives it, `machine` says what it may house.

use super::machine::{Build, Machine};
use bytes::Bytes;
use lokinet_core::flow::question::Answer;
use lokinet_core::node::io::{Event, LinkId, Save, Saved, Ticket};
use lokinet_core::time::Time;
use lokinet_core::wire::id::RelayId;
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// A host of the world.
pub(super) struct Host {
    pub name: String,
    pub addr: SocketAddr,
    /// The key it proves in a handshake when dialled; hosts without one do not listen.
    pub key: Option<RelayId>,
    /// Whether its processor has AES instructions.
    pub aes: bool,
    pub build: Build,
    pub machine: Option<Box<dyn Machine>>,
    /// Which life of the machine this is; what was meant for an earlier one is dropped.
    pub life: u32,
    pub disk: Disk,
    /// When the machine that lives now was started.
    pub born: Time,
    /// What its monotonic clock showed when the world began.
    pub boot: u64,
    /// How far its wall clock is ahead, in milliseconds.
    pub ahead: i64,
    /// The wake that is in the queue, by time and number.
    pub alarm: Option<(Time, u64)>,
    /// Wakes since time last moved.
    pub restless: (Time, u32),
    /// Whether its kernel sends back what it is sent.
    pub echoes: bool,
    /// What was delivered to its TUN device, and when.
    pub inbox: Vec<(Time, Vec<u8>)>,
    /// How many of its packets came without checksum.
    pub finished: usize,
    pub events: Vec<(Time, Event)>,
    pub answers: BTreeMap<Ticket, Answer>,
    /// Name questions that wait for their answer.
    pub asking: BTreeMap<Ticket, Time>,
    /// Requests of others that wait for this machine's answer: the world's number of each, and since when.
    pub asked: BTreeMap<Ticket, (u64, Time)>,
    /// Requests of this machine that wait for a reply.
    pub pending: BTreeMap<Ticket, u64>,
    /// Its links: the world's number of the connection, and which end.
    pub links: BTreeMap<LinkId, (u64, usize)>,
    pub tickets: u64,
    /// Datagrams on their way in, by the instant they arrive.
    pub arrivals: BTreeMap<Time, Vec<(SocketAddr, Vec<u8>)>>,
}

impl Host {
    pub fn new(name: &str, addr: SocketAddr, key: Option<RelayId>, boot: u64, build: Build) -> Host {
        Host {
            name: name.to_owned(),
            addr,
            key,
            aes: true,
            build,
            machine: None,
            life: 0,
            disk: Disk::default(),
            born: Time::default(),
            boot,
            ahead: 0,
            alarm: None,
            restless: (Time::default(), 0),
            echoes: false,
            inbox: Vec::new(),
            finished: 0,
            events: Vec::new(),
            answers: BTreeMap::new(),
            asking: BTreeMap::new(),
            asked: BTreeMap::new(),
            pending: BTreeMap::new(),
            links: BTreeMap::new(),
            tickets: 0,
            arrivals: BTreeMap::new(),
        }
    }

    /// A number of the driver's for a request or question.
    pub fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket(self.tickets)
    }

    /// What ends with the process. Disk, clocks and address stay.
    pub fn bury(&mut self) {
        self.machine = None;
        self.life += 1;
        self.alarm = None;
        self.asking.clear();
        self.asked.clear();
        self.pending.clear();
        self.links.clear();
    }
}

/// What outlives the process.
#[derive(Clone, Default)]
pub(super) struct Disk {
    pub contacts: BTreeMap<RelayId, Bytes>,
    pub own: Option<Bytes>,
    pub rest: Saved,
}

impl Disk {
    pub fn keep(&mut self, save: Save) {
        match save {
            Save::Contact { id, signed: Some(signed) } => {
                self.contacts.insert(id, signed);
            }
            Save::Contact { id, signed: None } => {
                self.contacts.remove(&id);
            }
            Save::OwnContact(signed) => self.own = Some(signed),
            Save::OnionKeys(keys) => self.rest.onion_keys = Some(keys),
            Save::Guards(guards) => self.rest.guards = Some(guards),
            Save::Profiles(profiles) => self.rest.profiles = Some(profiles),
            Save::Registry(signed) => self.rest.registry = Some(signed),
        }
    }

    pub fn saved(&self) -> Saved {
        let contacts = self.contacts.values().cloned().collect();
        Saved { contacts, own: self.own.clone(), ..self.rest.clone() }
    }
}
