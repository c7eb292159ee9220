//! The one place that asks what time it is. Timers count on the boot clock, which goes on while the machine sleeps, so
//! that a laptop opened after an hour does not believe its paths are still young; the wall clock is read beside it.
//! Neighbours: `driver` asks before each input; everything below the wall is told.

use crate::time::{Now, Time, Wall};
use rustix::time::{ClockId, clock_gettime};
use std::time::{SystemTime, UNIX_EPOCH};

#[cfg(any(target_os = "linux", target_os = "android"))]
const MONO: ClockId = ClockId::Boottime;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const MONO: ClockId = ClockId::Monotonic;

/// What time it is, on both clocks.
#[allow(clippy::disallowed_methods)] // the driver's clock is where asking is allowed (law 3)
pub fn now() -> Now {
    let mono = clock_gettime(MONO);
    let seconds = u64::try_from(mono.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(mono.tv_nsec).unwrap_or(0);
    // A wall clock before 1970 is a host without a battery: it reads as the epoch, and peers' clocks tell the rest.
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Now {
        mono: Time::from_nanos(seconds.saturating_mul(1_000_000_000).saturating_add(nanos)),
        wall: Wall::from_millis(u64::try_from(wall.as_millis()).unwrap_or(u64::MAX)),
    }
}
