//! The layers of one path, at the client: it alone has a sealer and an opener for every hop. Layers nest in place, so
//! wrapping and unwrapping move no byte. Neighbours: `crypto::onion` is one layer, `live` holds these.

use crate::crypto::onion::{BODY_AT, Dropped, Opener, Order, Sealer, TYPE_AT};
use crate::crypto::seal::{Suite, TAG};
use crate::time::Time;
use crate::wire::cell::{Kind, Size};
use zeroize::Zeroizing;

/// A path's layers, first hop first.
pub struct Layers(Vec<(Sealer, Opener)>);

impl Layers {
    /// From each hop's suite and secrets (forward, backward).
    pub fn new(hops: impl Iterator<Item = (Suite, [Zeroizing<[u8; 32]>; 2])>) -> Layers {
        Layers(
            hops.map(|(suite, [forward, backward])| {
                (Sealer::new(suite, &forward, Order::Scrambled), Opener::new(suite, &backward))
            })
            .collect(),
        )
    }

    /// How many hops there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no hop.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Wraps a body for the hop at `index` (the last one for the pivot) into an onion, in which anything may stand before;
    /// `fill` writes the body, which is zeroed.
    pub fn wrap(
        &mut self,
        onion: &mut [u8],
        size: Size,
        index: usize,
        kind: Kind,
        now: Time,
        fill: impl FnOnce(&mut [u8]),
    ) {
        let hops = self.0.len();
        for i in 0..=index.min(hops.saturating_sub(1)) {
            onion[BODY_AT * i + TYPE_AT] = if i == index { kind as u8 } else { Kind::Pass as u8 };
        }
        let body = &mut onion[BODY_AT * (index + 1)..BODY_AT * index + size.layer(hops - index) - TAG];
        body.fill(0);
        fill(body);
        onion[size.layer(hops)..].fill(0);
        for i in (0..=index).rev() {
            self.0[i].0.seal(&mut onion[BODY_AT * i..BODY_AT * i + size.layer(hops - i)], now);
        }
    }

    /// Takes off every layer of a cell that came up: which hop spoke, what kind, and the body.
    ///
    /// # Errors
    /// Some layer is not what that hop made.
    pub fn unwrap<'a>(
        &mut self,
        onion: &'a mut [u8],
        size: Size,
        now: Time,
    ) -> Result<(usize, Kind, &'a mut [u8]), Dropped> {
        let hops = self.0.len();
        for i in 0..hops {
            let layer = onion.get_mut(BODY_AT * i..BODY_AT * i + size.layer(hops - i)).ok_or(Dropped::Short)?;
            self.0[i].1.open(layer, now)?;
            match Kind::from_byte(layer[TYPE_AT]).ok_or(Dropped::Forged)? {
                Kind::Pass if i + 1 < hops => {}
                Kind::Pass => return Err(Dropped::Forged),
                kind => return Ok((i, kind, &mut onion[BODY_AT * (i + 1)..BODY_AT * i + size.layer(hops - i) - TAG])),
            }
        }
        Err(Dropped::Short)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// The relays' side, as `transit::hop` does it, for a path of any length and both sizes.
    #[test]
    fn every_hop_opens_its_layer_and_only_the_addressed_one_sees_the_body() {
        let now = Time::from_nanos(1);
        for hops in 1..=4usize {
            for size in [Size::Small, Size::Full] {
                let secret = |i: usize, way: u8| Zeroizing::new([i as u8 * 2 + way; 32]);
                let mut layers = Layers::new((0..hops).map(|i| (Suite::Aes, [secret(i, 0), secret(i, 1)])));
                for target in 0..hops {
                    let mut onion = vec![0; size.onion()];
                    layers.wrap(&mut onion, size, target, Kind::Control, now, |body| body.fill(0xab));
                    for i in 0..=target {
                        let mut opener = Opener::new(Suite::Aes, &secret(i, 0));
                        let depth = hops - i;
                        opener.open(&mut onion[..size.layer(depth)], now).unwrap();
                        let kind = Kind::from_byte(onion[TYPE_AT]).unwrap();
                        assert_eq!(kind == Kind::Control, i == target);
                        let body = onion[BODY_AT..size.layer(depth) - TAG].to_vec();
                        if i == target {
                            assert!(body.iter().all(|b| *b == 0xab));
                        }
                        onion[..body.len()].copy_from_slice(&body);
                        onion[body.len()..].fill(0);
                    }
                }
            }
        }
    }
}
