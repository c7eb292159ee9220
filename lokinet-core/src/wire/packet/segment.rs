//! Super-packets: a kernel whose network card can cut (TSO, USO) hands down one packet of up to 64 KiB where it would
//! have made fifty. Here it is cut into packets that fit a cell, without addresses and without transport checksums:
//! those nobody needs on the way, since cells are authentic, and the other end's kernel need not check them either.
//! Neighbours: `packet` strips single packets, `coalesce` is the way back, the daemon's TUN file brings the super-packets.

use super::checksum::checksum;
use super::layout::{Layout, Version};
use super::{Refused, TCP, UDP, V4_CHECKSUM_AT, lay_out_ours};
use crate::wire::batch::Shape;

/// Most pieces one super-packet may make. 64 KiB in the smallest segments that TCP speaks are fewer, but for odd options;
/// what asks for more asks for work.
pub const PIECES_MAX: usize = 2048;

const V4_ID_AT: usize = 4;
const V4_LENGTH_AT: usize = 2;
const V6_LENGTH_AT: usize = 4;
const TCP_SEQUENCE_AT: usize = 4;
const TCP_OFFSET_AT: usize = 12;
const TCP_FLAGS_AT: usize = 13;
const UDP_HEADER: usize = 8;
const UDP_LENGTH_AT: usize = 4;
const FIN: u8 = 0x01;
const PUSH: u8 = 0x08;
const REDUCED: u8 = 0x80;

/// Cuts a packet whose checksum is partial into stripped packets and gives each to `each`; `room` is a buffer to make
/// them in. One that need not be cut gives one.
///
/// # Errors
/// Why it cannot be sent; nothing has been given then.
pub fn cut(packet: &[u8], shape: Shape, room: &mut Vec<u8>, mut each: impl FnMut(&[u8])) -> Result<(), Refused> {
    let layout = lay_out_ours(packet)?;
    let (transport, field) = layout.offloadable().ok_or(Refused::Transport)?;
    let header = match layout.protocol {
        TCP => transport + usize::from(packet.get(transport + TCP_OFFSET_AT).ok_or(Refused::Transport)? >> 4) * 4,
        _ => transport + UDP_HEADER,
    };
    if header < field + 2 {
        return Err(Refused::Transport);
    }
    let (head, payload) = packet.split_at_checked(header).ok_or(Refused::Transport)?;
    let size = match shape.segment {
        0 => payload.len().max(1),
        size => usize::from(size),
    };
    let count = payload.len().div_ceil(size).max(1);
    if count > PIECES_MAX {
        return Err(Refused::Pieces);
    }
    let (at, addresses) = layout.version.addresses();
    for index in 0..count {
        let part = payload.get(index * size..payload.len().min((index + 1) * size)).unwrap_or_default();
        room.clear();
        room.extend_from_slice(&head[..at]);
        room.extend_from_slice(&head[at + addresses..]);
        mend(room, &layout, Cut { index, last: index + 1 == count, size, payload: part.len(), header });
        room.extend_from_slice(part);
        each(room);
    }
    Ok(())
}

/// One piece of a super-packet.
struct Cut {
    index: usize,
    last: bool,
    size: usize,
    payload: usize,
    /// Of the whole packet, addresses included.
    header: usize,
}

/// Makes a copy of the super-packet's stripped headers those of one piece.
fn mend(head: &mut [u8], layout: &Layout, cut: Cut) {
    let (_, addresses) = layout.version.addresses();
    let transport = layout.transport.unwrap_or(0) - addresses;
    let length = cut.header + cut.payload;
    match layout.version {
        Version::V4 => {
            let id = word(head, V4_ID_AT).wrapping_add(cut.index as u16);
            put(head, V4_ID_AT, id);
            put(head, V4_LENGTH_AT, length as u16);
            put(head, V4_CHECKSUM_AT, 0);
            let sum = checksum(&[&head[..transport]]);
            put(head, V4_CHECKSUM_AT, sum);
        }
        Version::V6 => put(head, V6_LENGTH_AT, (length - super::V6_HEADER) as u16),
    }
    if let Some(field) = layout.checksum {
        put(head, field - addresses, 0);
    }
    if layout.protocol == UDP {
        return put(head, transport + UDP_LENGTH_AT, (UDP_HEADER + cut.payload) as u16);
    }
    if let Some(sequence) = head[transport..].get_mut(TCP_SEQUENCE_AT..TCP_SEQUENCE_AT + 4) {
        let first = sequence.try_into().map_or(0, u32::from_be_bytes);
        sequence.copy_from_slice(&first.wrapping_add((cut.index * cut.size) as u32).to_be_bytes());
    }
    if let Some(flags) = head.get_mut(transport + TCP_FLAGS_AT) {
        if !cut.last {
            *flags &= !(FIN | PUSH);
        }
        if cut.index > 0 {
            *flags &= !REDUCED;
        }
    }
}

fn word(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).and_then(|word| word.try_into().ok()).map_or(0, u16::from_be_bytes)
}

fn put(bytes: &mut [u8], at: usize, value: u16) {
    if let Some(word) = bytes.get_mut(at..at + 2) {
        word.copy_from_slice(&value.to_be_bytes());
    }
}
