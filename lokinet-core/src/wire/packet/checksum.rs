//! The Internet checksum, and how it moves when some of the bytes it covers are replaced (RFC 1624, equation 3).
//! Neighbours: `packet` replaces addresses, `layout` finds where the sums lie.

use super::Refused;
use core::ops::Add;

/// What replaced words do to a one's complement sum; such changes add up.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Shift(u32);

impl Add for Shift {
    type Output = Shift;
    fn add(self, other: Shift) -> Shift {
        // Kept folded, so that no number of additions overflows.
        Shift(u32::from(fold(self.0 + other.0)))
    }
}

/// Adds the carries back in until 16 bits are left.
fn fold(sum: u32) -> u16 {
    let once = (sum & 0xffff) + (sum >> 16);
    ((once & 0xffff) + (once >> 16)) as u16
}

/// Overwrites the bytes at `at`, which is an even distance from where the checksum's cover begins.
pub(super) fn replace(packet: &mut [u8], at: usize, new: &[u8]) -> Shift {
    let Some(old) = packet.get_mut(at..at + new.len()) else { return Shift::default() };
    let mut sum = 0u32;
    for (old, new) in old.chunks_exact(2).zip(new.chunks_exact(2)) {
        sum += u32::from(!u16::from_be_bytes([old[0], old[1]])) + u32::from(u16::from_be_bytes([new[0], new[1]]));
    }
    old.copy_from_slice(new);
    Shift(u32::from(fold(sum)))
}

/// Moves the checksum at `field` by a shift; returns what that change does to sums which cover the field itself.
pub(super) fn apply(packet: &mut [u8], field: usize, shift: Shift) -> Shift {
    let Some(&[a, b]) = packet.get(field..field + 2) else { return Shift::default() };
    let moved = !fold(u32::from(!u16::from_be_bytes([a, b])) + shift.0);
    replace(packet, field, &moved.to_be_bytes())
}

/// The one's complement sum of `bytes`, continued from `start`; an odd last byte counts as the high half of a word.
fn sum(start: u16, bytes: &[u8]) -> u16 {
    let mut words = bytes.chunks_exact(2);
    let mut sum = u64::from(start);
    for word in &mut words {
        sum += u64::from(u16::from_be_bytes([word[0], word[1]]));
    }
    if let [last] = words.remainder() {
        sum += u64::from(*last) << 8;
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// The checksum of `parts` laid end to end; each but the last must have an even length.
pub fn checksum(parts: &[&[u8]]) -> u16 {
    !parts.iter().fold(0, |so_far, part| sum(so_far, part))
}

/// The sum of a pseudo-header, not complemented: both addresses, the protocol and the transport's length.
pub fn pseudo(addresses: &[u8], protocol: u8, length: usize) -> u16 {
    let length = (length as u32).to_be_bytes();
    sum(sum(sum(0, addresses), &[0, protocol]), &length)
}

/// Completes a checksum that the kernel left to the network card: the field at `start + offset` holds the sum of the
/// pseudo-header, and the cover runs from `start` to the packet's end (virtio's `csum_start` and `csum_offset`).
///
/// # Errors
/// The field does not lie inside the packet.
pub fn finish_checksum(packet: &mut [u8], start: usize, offset: usize) -> Result<(), Refused> {
    let cover = packet.get_mut(start..).ok_or(Refused::Length)?;
    let done = match checksum(&[cover]) {
        // Zero would mean "no checksum" to UDP; all ones are the same number to everybody.
        0 => 0xffff,
        other => other,
    };
    let field = offset.checked_add(2).and_then(|end| cover.get_mut(offset..end)).ok_or(Refused::Length)?;
    field.copy_from_slice(&done.to_be_bytes());
    Ok(())
}
