//! Times in files, as people write them: `2s`, `1500ms`, `200us`, `17ns`. Exact: whole numbers, in
//! the largest unit that has one.

use std::time::Duration;

/// The units, with their nanoseconds; the largest first.
const UNITS: [(&str, u128); 6] = [
    ("h", 3_600_000_000_000),
    ("min", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// Writes a time.
pub(crate) fn format(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    let fits = |(_, unit): &&(&str, u128)| nanos.is_multiple_of(*unit);
    // Minutes and hours are only read: `90s` is easier to compare than `90min` to `2h`.
    let found = UNITS[2..].iter().find(fits);
    let (name, unit) = if nanos == 0 { &UNITS[2] } else { found.unwrap_or(&UNITS[5]) };
    format!("{}{name}", nanos / unit)
}

/// Reads a time.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || format!("a time is a whole number with h, min, s, ms, us, or ns, not {text:?}");
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let (_, unit) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
    let nanos = u64::try_from(u128::from(number) * unit).map_err(|_| wrong())?;
    Ok(Duration::from_nanos(nanos))
}

/// For `#[serde(with)]` of a [`Duration`].
pub(crate) mod duration {
    use std::time::Duration;

    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(
        duration: &Duration,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&super::format(*duration))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Duration, D::Error> {
        super::parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// The same of an `Option`, of which `None` is left out.
pub(crate) mod optional_duration {
    use std::time::Duration;

    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[expect(clippy::ref_option, reason = "serde passes references")]
    pub(crate) fn serialize<S: Serializer>(
        duration: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        duration.map(super::format).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| super::parse(&text).map_err(D::Error::custom)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_exactly_and_read_back() {
        for (text, nanos) in [
            ("0s", 0),
            ("2s", 2_000_000_000),
            ("90s", 90_000_000_000),
            ("1500ms", 1_500_000_000),
            ("200us", 200_000),
            ("17ns", 17),
        ] {
            let duration = Duration::from_nanos(nanos);
            assert_eq!(format(duration), text);
            assert_eq!(parse(text), Ok(duration));
        }
        assert_eq!(parse("2min"), Ok(Duration::from_mins(2)));
        assert_eq!(parse("1h"), Ok(Duration::from_hours(1)));
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in ["", "2", "s", "-2s", "2.5s", "2 s", "2m", "99999999999999999999s"] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(parse("9999999999h").is_err());
    }
}
