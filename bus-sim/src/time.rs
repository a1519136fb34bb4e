//! Virtual time: nanoseconds since the start of the world.

use std::fmt;
use std::ops::{Add, AddAssign, Sub};
use std::time::Duration;

use bus_core::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::fault::text;

/// A point in virtual time: nanoseconds since the start of the world. Reaches 584 years.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SimTime(u64);

impl SimTime {
    /// The start of the world.
    pub const ZERO: Self = Self(0);

    /// What the clocks of the world show at its start: 2026-01-01T00:00:00Z.
    pub const EPOCH: Timestamp = Timestamp::from_millis(1_767_225_600_000);

    /// The time `nanos` nanoseconds after the start.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the start.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The time since the start.
    pub const fn elapsed(self) -> Duration {
        Duration::from_nanos(self.0)
    }

    /// What an exact clock shows at this time.
    pub fn timestamp(self) -> Timestamp {
        let millis = i64::try_from(self.0 / 1_000_000).unwrap_or(i64::MAX);
        Timestamp::from_millis(Self::EPOCH.as_millis() + millis)
    }

    /// The time from `earlier` to this, or zero if that is later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for SimTime {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(nanos(duration)))
    }
}

impl AddAssign<Duration> for SimTime {
    fn add_assign(&mut self, duration: Duration) {
        *self = *self + duration;
    }
}

impl Sub<Duration> for SimTime {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(nanos(duration)))
    }
}

/// Seconds with all nine digits, which sort and line up in a trace.
impl fmt::Display for SimTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09}", self.0 / 1_000_000_000, self.0 % 1_000_000_000)
    }
}

impl fmt::Debug for SimTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// As plans are written: `1500ms`.
impl Serialize for SimTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        text::duration::serialize(&self.elapsed(), serializer)
    }
}

impl<'de> Deserialize<'de> for SimTime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::ZERO + text::duration::deserialize(deserializer)?)
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
