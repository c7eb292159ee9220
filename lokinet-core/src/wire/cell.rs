//! Cells: the only shapes traffic has on a wire. Two sizes of UDP payload, full and small; inside the link's seal a
//! path id and an onion of exactly the rest. All sizes of the data plane are reckoned here, once (spec chapter 40).
//! Neighbours: `link::channel` seals the outside, `crypto::onion` the layers, `session` fills the payload.

use crate::crypto::onion::OVERHEAD;
use crate::crypto::seal::TAG;

/// Flag byte ‖ channel id (8) ‖ protected packet number (4), as a QUIC short header has them, in bytes.
pub const HEADER: usize = 1 + CHANNEL_ID + 4;
/// Length of a channel id, in bytes; the place and length of our QUIC connection ids.
pub const CHANNEL_ID: usize = 8;
/// Length of a path id, in bytes.
pub const PATH_ID: usize = 4;
/// The most hops a path has.
pub const MAX_HOPS: usize = 4;

/// The sizes of cells.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Size {
    /// 384 bytes: acknowledgements, voice.
    Small,
    /// 1440 bytes: everything else.
    Full,
}

impl Size {
    /// The UDP payload, in bytes.
    pub const fn datagram(self) -> usize {
        match self {
            Size::Small => 384,
            Size::Full => 1440,
        }
    }

    /// The size whose datagram has this length.
    pub const fn of_datagram(len: usize) -> Option<Size> {
        match len {
            384 => Some(Size::Small),
            1440 => Some(Size::Full),
            _ => None,
        }
    }

    /// The onion: what follows the path id inside the link's seal, in bytes.
    pub const fn onion(self) -> usize {
        self.datagram() - HEADER - TAG - PATH_ID
    }

    /// What the innermost layer carries, on paths of any length, in bytes.
    pub const fn payload(self) -> usize {
        self.onion() - MAX_HOPS * OVERHEAD
    }

    /// What a hop that is `depth` hops from the pivot's end (the pivot is 1) opens or makes, in bytes. The rest of the
    /// onion is padding.
    pub const fn layer(self, depth: usize) -> usize {
        self.payload() + depth * OVERHEAD
    }
}

/// What a layer's body is. The byte lies inside the seal: to everyone else all four look alike.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Kind {
    /// Another layer, for the next hop.
    Pass = 1,
    /// A session's bytes, for whoever is joined at the pivot.
    Data = 2,
    /// A message between the client and this hop.
    Control = 3,
    /// Nothing.
    Cover = 4,
}

impl Kind {
    /// The kind a byte stands for.
    pub const fn from_byte(byte: u8) -> Option<Kind> {
        match byte {
            1 => Some(Kind::Pass),
            2 => Some(Kind::Data),
            3 => Some(Kind::Control),
            4 => Some(Kind::Cover),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Spec chapter 40 prints these numbers.
    #[test]
    fn the_sizes_of_the_spec() {
        assert_eq!((Size::Full.onion(), Size::Full.payload()), (1407, 1319));
        assert_eq!((Size::Small.onion(), Size::Small.payload()), (351, 263));
        assert_eq!(Size::Full.layer(MAX_HOPS), Size::Full.onion());
        assert_eq!(Size::Small.layer(MAX_HOPS), Size::Small.onion());
    }
}
