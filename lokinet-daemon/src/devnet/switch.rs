//! The switch in the wire's place where `--net` impairs it: some kernels have no netem, so that one thread of the init
//! carries every frame. Each node's `eth0` is a TAP device; what is read from it goes through the node's own link
//! (`link`) and is then written to the TAP whose address it bears, or to all others. `wire` makes the TAPs, `init`
//! pulls and plugs cables here.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use lokinet_core::driver::now;
use lokinet_core::time::Time;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use serde::{Deserialize, Serialize};

use super::impair::Impairment;
use super::link::{Fate, Link};
use crate::trouble::{OrTrouble, Outcome};

/// Bytes a frame is read into: more than Ethernet's 1,514, so that a frame that fills them is known to be cut.
const ROOM: usize = 2048;
/// An Ethernet header: destination, source, kind.
const HEADER: usize = 14;
/// How many frames of one node are read before the others have their turn.
const BATCH: usize = 64;
/// How many Ethernet addresses are remembered; frames to others go everywhere.
const ADDRESSES_MAX: usize = 4096;
/// What the timer is called among the ports.
const TIMER: u64 = u64::MAX;

/// What a node's frames came to, counted where they leave it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Tally {
    /// Went on their way.
    pub sent: u64,
    /// Lost by chance.
    pub lost: u64,
    /// Dropped, since the queue was full.
    pub full: u64,
    /// Dropped, since a cable was pulled or the receiver's interface down.
    pub cut: u64,
}

/// What the init and the thread both see of a port.
#[derive(Default)]
struct Panel {
    pulled: AtomicBool,
    sent: AtomicU64,
    lost: AtomicU64,
    full: AtomicU64,
    cut: AtomicU64,
}

impl Panel {
    fn pulled(&self) -> bool {
        self.pulled.load(Ordering::Relaxed)
    }
}

/// A running switch; it ends with the process.
pub struct Switch {
    panels: Vec<Arc<Panel>>,
}

impl Switch {
    /// Starts it over the nodes' TAPs, non-blocking ones, in the nodes' order. The process has two threads from here on.
    pub fn start(taps: Vec<File>, net: Impairment) -> Outcome<Self> {
        let seed = net.seed.unwrap_or_default();
        let mut ports = Vec::new();
        for (number, tap) in (0..).zip(taps) {
            let link = Link::new(net, seed.wrapping_mul(1 << 16).wrapping_add(number));
            ports.push(Port { tap, link, panel: Arc::default() });
        }
        let panels = ports.iter().map(|port| Arc::clone(&port.panel)).collect();
        let mut fabric = Fabric::new(ports).or_trouble(|| "cannot make the switch".into())?;
        let work = move || {
            let Err(error) = fabric.run();
            // A network without its wire would be a riddle to who uses it; one that has ended is not.
            eprintln!("the switch has failed, and the network ends: {error}");
            std::process::exit(1);
        };
        std::thread::Builder::new()
            .name("switch".into())
            .spawn(work)
            .or_trouble(|| "cannot start the switch".into())?;
        Ok(Self { panels })
    }

    /// Plugs a node's cable in, or pulls it. The node's interface stays up, and nothing passes.
    pub fn plug(&self, node: usize, plugged: bool) {
        if let Some(panel) = self.panels.get(node) {
            panel.pulled.store(!plugged, Ordering::Relaxed);
        }
    }

    /// What a node's frames have come to so far.
    pub fn tally(&self, node: usize) -> Option<Tally> {
        let panel = self.panels.get(node)?;
        let [sent, lost, full, cut] =
            [&panel.sent, &panel.lost, &panel.full, &panel.cut].map(|count| count.load(Ordering::Relaxed));
        Some(Tally { sent, lost, full, cut })
    }
}

struct Port {
    tap: File,
    link: Link,
    panel: Arc<Panel>,
}

/// The thread's side.
struct Fabric {
    ports: Vec<Port>,
    addresses: Addresses,
    epoll: OwnedFd,
    timer: OwnedFd,
}

/// What never happens.
enum Never {}

impl Fabric {
    fn new(ports: Vec<Port>) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        // The clock that `now` tells.
        let timer =
            rustix::time::timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
        epoll::add(&epoll, &timer, EventData::new_u64(TIMER), EventFlags::IN)?;
        for (at, port) in (0..).zip(&ports) {
            epoll::add(&epoll, &port.tap, EventData::new_u64(at), EventFlags::IN)?;
        }
        Ok(Self { ports, addresses: Addresses::default(), epoll, timer })
    }

    fn run(&mut self) -> io::Result<Never> {
        let mut events = Vec::with_capacity(self.ports.len() + 1);
        let mut armed = None;
        loop {
            events.clear();
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), None) {
                Err(rustix::io::Errno::INTR) => continue,
                other => drop(other?),
            }
            for event in &events {
                match event.data.u64() {
                    TIMER => armed = None, // Set anew below, which also takes back its word.
                    at => self.read(usize::try_from(at).unwrap_or(usize::MAX))?,
                }
            }
            self.deliver(now().mono);
            let next = self.ports.iter().filter_map(|port| port.link.next()).min();
            if next != armed {
                self.arm(next)?;
                armed = next;
            }
        }
    }

    /// Takes what a node has sent, up to a batch of it.
    fn read(&mut self, at: usize) -> io::Result<()> {
        let Some(port) = self.ports.get_mut(at) else { return Ok(()) };
        let now = now().mono;
        let mut room = [0; ROOM];
        for _ in 0..BATCH {
            let used = match port.tap.read(&mut room) {
                Ok(used) => used,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => {
                    eprintln!("the eth0 of node number {} is gone: {error}", at + 1);
                    epoll::delete(&self.epoll, &port.tap)?;
                    break;
                }
            };
            let panel = &port.panel;
            let count = match room.get(..used) {
                _ if !(HEADER..ROOM).contains(&used) => continue,
                Some(frame) if !panel.pulled() => match port.link.push(now, frame) {
                    Fate::Taken => &panel.sent,
                    Fate::Lost => &panel.lost,
                    Fate::Full => &panel.full,
                },
                _ => &panel.cut,
            };
            count.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Hands over what has arrived by `now`.
    fn deliver(&mut self, now: Time) {
        for from in 0..self.ports.len() {
            while let Some(frame) = self.ports.get_mut(from).and_then(|port| port.link.pop(now)) {
                let (target, source) = ends(&frame);
                let to = self.addresses.find(target);
                self.addresses.learn(source, from);
                self.hand(from, to, &frame);
            }
        }
    }

    /// Hands a frame to the port it is for, or to all others.
    fn hand(&self, from: usize, to: Option<usize>, frame: &[u8]) {
        let Some(sender) = self.ports.get(from) else { return };
        let meant = to.map_or(0..self.ports.len(), |to| to..to + 1);
        for port in meant.filter(|at| *at != from).filter_map(|at| self.ports.get(at)) {
            let pulled = port.panel.pulled() || sender.panel.pulled();
            // An error is this frame's end: the interface is down (EIO).
            if pulled || (&port.tap).write(frame).is_err() {
                sender.panel.cut.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Wakes us at `next`, or not at all.
    fn arm(&self, next: Option<Time>) -> io::Result<()> {
        let never = Timespec { tv_sec: 0, tv_nsec: 0 };
        let at = next.map_or(never, |next| Timespec {
            tv_sec: (next.nanos() / 1_000_000_000) as i64,
            tv_nsec: (next.nanos() % 1_000_000_000) as _,
        });
        let once = Itimerspec { it_interval: never, it_value: at };
        rustix::time::timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &once)?;
        Ok(())
    }
}

/// A frame's destination and source.
fn ends(frame: &[u8]) -> (Mac, Mac) {
    let part = |range| frame.get(range).and_then(|part| Mac::try_from(part).ok()).unwrap_or_default();
    (part(0..6), part(6..12))
}

type Mac = [u8; 6];

/// Which port an Ethernet address was last heard at.
#[derive(Default)]
struct Addresses {
    ports: BTreeMap<Mac, usize>,
}

impl Addresses {
    /// A frame from `source` came in at `port`.
    fn learn(&mut self, source: Mac, port: usize) {
        let room = self.ports.len() < ADDRESSES_MAX || self.ports.contains_key(&source);
        if room && !is_group(source) {
            self.ports.insert(source, port);
        }
    }

    /// Where a frame to `target` goes; `None` for everywhere.
    fn find(&self, target: Mac) -> Option<usize> {
        self.ports.get(&target).copied()
    }
}

/// Whether an address is everybody's or a group's. They are never learnt, so that frames to them go everywhere.
fn is_group(address: Mac) -> bool {
    address[0] & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALICE: Mac = [2, 0, 0, 0, 0, 1];
    const ALL: Mac = [0xff; 6];

    #[test]
    fn an_address_is_found_where_it_was_last_heard() {
        let mut addresses = Addresses::default();
        assert_eq!(addresses.find(ALICE), None, "a stranger's frames go everywhere");
        addresses.learn(ALICE, 3);
        assert_eq!(addresses.find(ALICE), Some(3));
        addresses.learn(ALICE, 4);
        assert_eq!(addresses.find(ALICE), Some(4));
        addresses.learn(ALL, 4);
        assert_eq!(addresses.find(ALL), None, "nobody takes everybody's address");
    }

    #[test]
    fn addresses_are_bounded_and_the_old_ones_stay() {
        let mut addresses = Addresses::default();
        addresses.learn(ALICE, 1);
        for number in 0..2 * ADDRESSES_MAX as u32 {
            let [a, b, c, d] = number.to_be_bytes();
            addresses.learn([4, 0, a, b, c, d], 2);
        }
        assert_eq!((addresses.ports.len(), addresses.find(ALICE)), (ADDRESSES_MAX, Some(1)));
    }
}
