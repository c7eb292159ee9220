//! Time as it is told to the machines. The core never asks a clock: every call brings a [`Now`]. Timers count on the
//! monotonic half (it goes on during suspend); signatures, periods and lifetimes of published things use the wall half.
//! Neighbours: everything above; the driver's `clock` makes these values, the simulated world invents them.

use core::time::Duration;

/// A point on the monotonic clock, in nanoseconds since an arbitrary start.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Time(u64);

impl Time {
    /// The point `nanos` nanoseconds after the clock's start.
    pub const fn from_nanos(nanos: u64) -> Time {
        Time(nanos)
    }

    /// Nanoseconds since the clock's start.
    pub const fn nanos(self) -> u64 {
        self.0
    }

    /// How long ago `earlier` was; zero when it lies in the future.
    pub const fn since(self, earlier: Time) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl core::ops::Add<Duration> for Time {
    type Output = Time;
    fn add(self, by: Duration) -> Time {
        Time(self.0.saturating_add(by.as_nanos().min(u128::from(u64::MAX)) as u64))
    }
}

/// A point on the wall clock, in milliseconds since 1970-01-01 UTC.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Wall(u64);

impl Wall {
    /// The point `millis` milliseconds after the Unix epoch.
    pub const fn from_millis(millis: u64) -> Wall {
        Wall(millis)
    }

    /// The point `secs` seconds after the Unix epoch.
    pub const fn from_secs(secs: u64) -> Wall {
        Wall(secs.saturating_mul(1000))
    }

    /// Milliseconds since the Unix epoch.
    pub const fn millis(self) -> u64 {
        self.0
    }

    /// Whole seconds since the Unix epoch.
    pub const fn secs(self) -> u64 {
        self.0 / 1000
    }

    /// The later time `by` from here.
    pub const fn plus(self, by: Duration) -> Wall {
        Wall(self.0.saturating_add(by.as_millis() as u64))
    }

    /// How far two points lie apart, whichever is first.
    pub const fn apart(self, other: Wall) -> Duration {
        Duration::from_millis(self.0.abs_diff(other.0))
    }
}

/// What time it is, on both clocks, at the moment an input happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Now {
    /// The clock timers run on.
    pub mono: Time,
    /// The clock the world agrees on.
    pub wall: Wall,
}

/// A token bucket: so many at once, then so many a second.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    tokens: u32,
    since: Time,
}

impl Bucket {
    /// A full one.
    pub fn full((burst, _): (u32, u32), now: Time) -> Bucket {
        Bucket { tokens: burst, since: now }
    }

    /// Takes one token, if there is one, from a bucket of so many, refilled at so many a second.
    pub fn take(&mut self, (burst, rate): (u32, u32), now: Time) -> bool {
        let earned = now.since(self.since).as_millis().saturating_mul(rate.into()) / 1000;
        let earned = u32::try_from(earned).unwrap_or(burst).min(burst);
        if earned > 0 {
            self.tokens = self.tokens.saturating_add(earned).min(burst);
            self.since = now;
        }
        let left = self.tokens.checked_sub(1);
        self.tokens = left.unwrap_or(0);
        left.is_some()
    }
}
