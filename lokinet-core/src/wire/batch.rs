//! IP packets in a row: one buffer, many packets, no allocation once warm. TUN reads fill it, the node reads it, and
//! what the node wants delivered comes back in another. Neighbours: `packet` looks inside one; the daemon's TUN file
//! and the driver move whole batches.

/// Most bytes a batch will take before it says it is full. Whoever fills one need not ask: what one drain of the sockets
/// brings must not be dropped for lack of room.
pub const BATCH_BYTES: usize = 1 << 18;
/// Most memory that a batch keeps when it is cleared, in bytes: what one great drain took is given back.
pub const BATCH_KEPT: usize = 4 * BATCH_BYTES;

/// What a packet of a batch still lacks, or has too much of: what network cards do for a kernel, and what a TUN device
/// with offload therefore leaves to us and takes from us.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Shape {
    /// Whether the transport checksum holds only the pseudo-header's sum.
    pub partial: bool,
    /// Bytes of payload in each packet that this one is to be cut into; 0 when it is a packet already.
    pub segment: u16,
}

/// IP packets, one after another in one buffer.
#[derive(Default)]
pub struct Packets {
    /// Its length does not shrink below what is kept, so that memory is zeroed once and not for every packet.
    bytes: Vec<u8>,
    ends: Vec<usize>,
    shapes: Vec<Shape>,
}

impl Packets {
    /// An empty batch that has reserved its memory.
    pub fn new() -> Packets {
        Packets { bytes: vec![0; BATCH_BYTES], ends: Vec::with_capacity(256), shapes: Vec::with_capacity(256) }
    }

    /// Whether another packet of 64 KiB would no longer fit.
    pub fn is_full(&self) -> bool {
        self.used() + 65536 > BATCH_BYTES
    }

    /// How many packets are in it.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether no packet is in it.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Forgets all packets and keeps the memory, up to a bound.
    pub fn clear(&mut self) {
        self.ends.clear();
        self.shapes.clear();
        if self.bytes.len() > BATCH_KEPT {
            self.bytes.truncate(BATCH_KEPT);
            self.bytes.shrink_to_fit();
            self.ends.shrink_to(BATCH_KEPT / 1280);
            self.shapes.shrink_to(BATCH_KEPT / 1280);
        }
    }

    /// Appends a copy of one packet.
    pub fn push(&mut self, packet: &[u8]) {
        let copied: Result<(), core::convert::Infallible> = self.push_with(packet.len(), |room| {
            room.copy_from_slice(packet);
            Ok(packet.len())
        });
        match copied {
            Ok(()) => {}
            Err(never) => match never {},
        }
    }

    fn used(&self) -> usize {
        self.ends.last().copied().unwrap_or(0)
    }

    /// Appends one packet written in place: `write` gets a buffer of `room` bytes, in which anything may stand, and says
    /// how many it used; on an error nothing is appended.
    ///
    /// # Errors
    /// Whatever `write` returned.
    pub fn push_with<E>(&mut self, room: usize, write: impl FnOnce(&mut [u8]) -> Result<usize, E>) -> Result<(), E> {
        let start = self.used();
        if self.bytes.len() < start + room {
            self.bytes.resize(start + room, 0);
        }
        let used = write(&mut self.bytes[start..start + room])?;
        self.ends.push(start + used.min(room));
        self.shapes.push(Shape::default());
        Ok(())
    }

    /// Says what the packet appended last lacks.
    pub fn shape_last(&mut self, shape: Shape) {
        if let Some(last) = self.shapes.last_mut() {
            *last = shape;
        }
    }

    /// What the packet at `index` lacks.
    pub fn shape(&self, index: usize) -> Shape {
        self.shapes.get(index).copied().unwrap_or_default()
    }

    /// The packet at `index`, to be read; empty when there is none.
    pub fn get(&self, index: usize) -> &[u8] {
        let end = self.ends.get(index).copied().unwrap_or(0);
        let start = index.checked_sub(1).and_then(|before| self.ends.get(before).copied()).unwrap_or(0);
        self.bytes.get(start..end).unwrap_or_default()
    }

    /// The packet at `index`, to be read or changed in place; empty when there is none.
    pub fn packet(&mut self, index: usize) -> &mut [u8] {
        let end = self.ends.get(index).copied().unwrap_or(0);
        let start = index.checked_sub(1).and_then(|before| self.ends.get(before).copied()).unwrap_or(0);
        self.bytes.get_mut(start..end).unwrap_or_default()
    }

    /// All packets, in order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.ends.len()).map(|index| self.get(index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_great_batch_gives_its_memory_back() {
        let mut batch = Packets::new();
        for round in 0..3 {
            (0..8 * BATCH_BYTES / 1280).for_each(|_| batch.push(&[round; 1280]));
            assert!(batch.is_full() && batch.iter().all(|packet| packet == [round; 1280]));
            batch.clear();
            assert!(batch.is_empty() && batch.bytes.capacity() <= BATCH_KEPT && batch.ends.capacity() <= BATCH_KEPT);
        }
    }
}
