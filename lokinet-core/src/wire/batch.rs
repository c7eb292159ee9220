//! IP packets in a row: one buffer, many packets, no allocation once warm. TUN reads fill it, the node reads it, and
//! what the node wants delivered comes back in another. Neighbours: `packet` looks inside one; the daemon's TUN file
//! and the driver move whole batches.

/// Most bytes a batch will take before it says it is full.
pub const BATCH_BYTES: usize = 1 << 18;

/// IP packets, one after another in one buffer.
#[derive(Default)]
pub struct Packets {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Packets {
    /// An empty batch that has reserved its memory.
    pub fn new() -> Packets {
        Packets { bytes: Vec::with_capacity(BATCH_BYTES), ends: Vec::with_capacity(256) }
    }

    /// Whether another packet of 64 KiB would no longer fit.
    pub fn is_full(&self) -> bool {
        self.bytes.len() + 65536 > BATCH_BYTES
    }

    /// How many packets are in it.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether no packet is in it.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Forgets all packets and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    /// Appends a copy of one packet.
    pub fn push(&mut self, packet: &[u8]) {
        self.bytes.extend_from_slice(packet);
        self.ends.push(self.bytes.len());
    }

    /// Appends one packet written in place: `write` gets a zeroed buffer of `room` bytes and says how many it used;
    /// on an error nothing is appended.
    ///
    /// # Errors
    /// Whatever `write` returned.
    pub fn push_with<E>(&mut self, room: usize, write: impl FnOnce(&mut [u8]) -> Result<usize, E>) -> Result<(), E> {
        let start = self.bytes.len();
        self.bytes.resize(start + room, 0);
        match write(&mut self.bytes[start..]) {
            Ok(used) => {
                self.bytes.truncate(start + used.min(room));
                self.ends.push(self.bytes.len());
                Ok(())
            }
            Err(error) => {
                self.bytes.truncate(start);
                Err(error)
            }
        }
    }

    /// The packet at `index`, to be read or changed in place; empty when there is none.
    pub fn packet(&mut self, index: usize) -> &mut [u8] {
        let end = self.ends.get(index).copied().unwrap_or(0);
        let start = index.checked_sub(1).and_then(|before| self.ends.get(before).copied()).unwrap_or(0);
        self.bytes.get_mut(start..end).unwrap_or_default()
    }

    /// All packets, in order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.ends.len()).map(|i| {
            let start = if i == 0 { 0 } else { self.ends[i - 1] };
            &self.bytes[start..self.ends[i]]
        })
    }
}
