//! Times in words, and what is near to one.

/// The `most` of some things in the order of time that are nearest to a time, still in order.
pub(in crate::picture) fn nearest<T>(
    things: Vec<T>,
    most: usize,
    at: impl Fn(&T) -> u64,
    to: u64,
) -> Vec<T> {
    let mut begin = 0;
    while things.len() - begin > most {
        let last = begin + most;
        // The window moves on while what comes next is nearer than what it leaves.
        if at(&things[last]).abs_diff(to) > at(&things[begin]).abs_diff(to) {
            break;
        }
        begin += 1;
    }
    things.into_iter().skip(begin).take(most).collect()
}

/// A time in seconds, to the microsecond where that says something.
pub fn seconds(at: u64) -> String {
    let micros = at / 1_000;
    let (whole, part) = (micros / 1_000_000, micros % 1_000_000);
    if part % 1_000 == 0 {
        format!("{whole}.{:03}", part / 1_000)
    } else {
        format!("{whole}.{part:06}")
    }
}

/// How long something takes, in the unit that suits it.
pub fn span(nanos: u64) -> String {
    let tenths = |unit: u64| {
        let tenths = nanos.saturating_mul(10) / unit;
        if tenths >= 100 {
            format!("{}", tenths / 10)
        } else {
            format!("{}.{}", tenths / 10, tenths % 10)
        }
    };
    match nanos {
        0..1_000_000 => format!("{} µs", nanos / 1_000),
        1_000_000..1_000_000_000 => format!("{} ms", tenths(1_000_000)),
        1_000_000_000..120_000_000_000 => format!("{} s", tenths(1_000_000_000)),
        _ => format!("{} min", tenths(60_000_000_000)),
    }
}
