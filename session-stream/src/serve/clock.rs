//! The one place of the node that asks what time it is. Neighbours: `actor` asks before each input.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::node::io::Now;

/// A clock that began when it was made.
#[derive(Clone, Copy)]
pub struct Clock(Instant);

impl Clock {
    /// Begins now.
    #[allow(clippy::disallowed_methods)] // the driver's clock is where asking is allowed
    pub fn start() -> Clock {
        Clock(Instant::now())
    }

    /// What time it is. A host without a clock is in 1970, and every signature it checks says so.
    #[allow(clippy::disallowed_methods)]
    pub fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now { mono: self.0.elapsed(), wall: u64::try_from(wall.as_millis()).unwrap_or(u64::MAX) }
    }

    /// How long until a moment of the monotonic clock.
    pub fn until(&self, moment: Duration) -> Duration {
        moment.saturating_sub(self.0.elapsed())
    }
}
