//! An axis of time that is compressed where nothing happens.

use super::diagram::span;

/// Where times are on a line.
#[derive(Clone, Debug, Default)]
pub(super) struct Axis {
    /// Times and their places; both grow.
    points: Vec<(u64, i64)>,
    /// Where time was cut out: the place of the middle, and how much.
    pub(super) breaks: Vec<(i64, u64)>,
    /// The place of the last time.
    pub(super) length: i64,
}

/// How an axis is laid out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scale {
    /// The place of the first time.
    pub(super) begin: i64,
    /// What a break takes.
    pub(super) pause: i64,
    /// The least time that makes a break.
    pub(super) idle: u64,
}

impl Axis {
    /// An axis with nothing on it.
    pub(super) fn new(scale: Scale) -> Self {
        Self { points: Vec::new(), breaks: Vec::new(), length: scale.begin }
    }

    /// An axis of these times, each at least `gap` behind the one before it.
    pub(super) fn of(times: impl IntoIterator<Item = u64>, gap: i64, scale: Scale) -> Self {
        let mut times: Vec<u64> = times.into_iter().collect();
        times.sort_unstable();
        times.dedup();
        let mut axis = Self::new(scale);
        for time in times {
            axis.add(time, gap, scale);
        }
        axis
    }

    /// Adds a time that is not before the last one, at least `gap` behind it; returns its place.
    pub(super) fn add(&mut self, time: u64, gap: i64, scale: Scale) -> i64 {
        let place = match self.points.last() {
            None => scale.begin,
            Some((last, place)) => {
                let passed = time.saturating_sub(*last);
                if passed >= scale.idle {
                    self.breaks.push((place + scale.pause / 2, passed));
                    place + scale.pause.max(gap)
                } else {
                    place + gap + stretch(passed)
                }
            }
        };
        self.points.push((time, place));
        self.length = place;
        place
    }

    /// The first and the last time.
    pub(super) fn range(&self) -> (u64, u64) {
        let first = self.points.first().map_or(0, |(time, _)| *time);
        (first, self.points.last().map_or(first, |(time, _)| *time))
    }

    /// The place of a time; that of the nearest end if it is outside.
    pub(super) fn place(&self, time: u64) -> i64 {
        let behind = self.points.partition_point(|(point, _)| *point <= time);
        let (Some(before), Some(after)) =
            (behind.checked_sub(1).map(|index| self.points[index]), self.points.get(behind))
        else {
            let nearest = if behind == 0 { self.points.first() } else { self.points.last() };
            return nearest.map_or(self.length, |(_, place)| *place);
        };
        let part = u128::from(time - before.0) * width(before.1, after.1);
        let part = part / u128::from(after.0 - before.0).max(1);
        before.1 + i64::try_from(part).unwrap_or(0)
    }

    /// The breaks with how long they are, in words.
    pub(super) fn pauses(&self) -> impl Iterator<Item = (i64, String)> {
        self.breaks.iter().map(|(place, passed)| (*place, span(*passed)))
    }
}

fn width(from: i64, to: i64) -> u128 {
    u128::try_from(to - from).unwrap_or(0)
}

/// What time adds to a gap: a little for each power of ten from 10 µs on.
fn stretch(passed: u64) -> i64 {
    let decades = (passed / 10_000).checked_ilog10().map_or(0, |decades| i64::from(decades) + 1);
    decades * 4
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCALE: Scale = Scale { begin: 10, pause: 40, idle: 1_000_000_000 };

    #[test]
    fn idle_time_is_a_break() {
        let axis = Axis::of([0, 1_000, 60_000_000_000], 20, SCALE);
        assert_eq!([axis.place(0), axis.place(1_000), axis.place(60_000_000_000)], [10, 30, 70]);
        assert_eq!(axis.breaks, [(50, 59_999_999_000)]);
        assert_eq!(axis.length, 70);
    }

    #[test]
    fn times_between_and_outside_have_a_place() {
        let axis = Axis::of([1_000, 2_000], 20, SCALE);
        assert_eq!(axis.place(0), 10);
        assert_eq!(axis.place(1_500), 20);
        assert_eq!(axis.place(9_999), 30);
        assert_eq!(Axis::new(SCALE).place(5), 10, "an empty axis");
    }
}
