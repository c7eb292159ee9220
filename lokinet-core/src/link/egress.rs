//! How cells leave: whoever makes one says where to and writes it where it lies. Neighbours: `link` has all links, `lane` is
//! one core's way, `transit::leg` and `path::live` make the cells.

use super::channel::Channel;
use super::{LinkId, Links};
use crate::shared::Shared;
use crate::time::Time;
use crate::wire::cell::Size;
use crate::wire::id::PathId;

/// A way for cells to leave: all links, or one core's lane.
pub trait Egress {
    /// Stages a cell for a link: `fill` writes the whole onion into a buffer in which anything may stand. False when it had
    /// to be dropped.
    fn put(&mut self, id: LinkId, path: PathId, size: Size, now: Time, fill: impl FnOnce(&mut [u8])) -> bool;
}

impl Egress for Links {
    /// The cell is sealed where it lies.
    fn put(&mut self, id: LinkId, path: PathId, size: Size, now: Time, fill: impl FnOnce(&mut [u8])) -> bool {
        self.cells.0 += 1;
        let Some(link) = self.live.get_mut(&id) else {
            self.dropped += 1;
            return false;
        };
        let staged = &mut link.staged[size as usize];
        if staged.is_empty() {
            self.dirty.push_back((id, size));
        }
        let Some(cell) = staged.room(size) else {
            self.dropped += 1;
            return false;
        };
        fill(Channel::onion(cell));
        match &mut self.ports {
            Shared::Own(ports) => {
                if let Some(port) = ports.by_link.get_mut(&id) {
                    port.channel.seal(0, path, cell, now);
                }
            }
            shared => shared.look(|ports| {
                Channel::name(cell, path);
                if let Some((_, mut sending)) = ports.sending(id, 0) {
                    sending.seal(cell, now);
                }
            }),
        }
        true
    }
}
