//! Topic properties: which ones there are, which values they take, and those that have an effect.
//!
//! Has effect: `max.message.bytes`, `message.timestamp.type`, `message.timestamp.before.max.ms`,
//! `message.timestamp.after.max.ms`, `min.insync.replicas`, `unclean.leader.election.enable`,
//! `flush.messages`; and of `cleanup.policy=compact` only
//! that records without a key are refused.
//!
//! Absent: the mechanisms of all others; they are checked and stored. See `docs/fidelity.md`.

use std::collections::BTreeMap;

use crate::config::BrokerConfig;

/// The properties of a topic that have an effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TopicConfig {
    /// `max.message.bytes`; `None` for the broker's `message.max.bytes`.
    pub(super) max_message_bytes: Option<u32>,
    /// `message.timestamp.type=LogAppendTime`.
    pub(super) is_log_append_time: bool,
    /// `message.timestamp.before.max.ms`.
    pub(super) timestamp_before_max: i64,
    /// `message.timestamp.after.max.ms`.
    pub(super) timestamp_after_max: i64,
    /// `min.insync.replicas`.
    pub(super) min_insync_replicas: usize,
    /// `unclean.leader.election.enable`.
    pub(super) is_unclean_election: bool,
    /// `flush.messages`.
    pub(super) flush_messages: u64,
    /// `cleanup.policy` has `compact`.
    pub(super) is_compacted: bool,
}

impl Default for TopicConfig {
    fn default() -> Self {
        Self {
            max_message_bytes: None,
            is_log_append_time: false,
            timestamp_before_max: i64::MAX,
            timestamp_after_max: 3_600_000,
            min_insync_replicas: 1,
            is_unclean_election: false,
            flush_messages: u64::MAX,
            is_compacted: false,
        }
    }
}

impl TopicConfig {
    /// What brokers are configured with for topics that say nothing else.
    pub(super) fn of_brokers(config: &BrokerConfig) -> Self {
        Self {
            min_insync_replicas: config.min_insync_replicas,
            is_unclean_election: config.unclean_leader_election,
            ..Self::default()
        }
    }

    /// Sets a property to a checked value, or back to its default.
    pub(super) fn set(&mut self, name: &str, value: Option<&str>, default: &Self) {
        match name {
            "max.message.bytes" => self.max_message_bytes = value.and_then(|v| v.parse().ok()),
            "message.timestamp.type" => {
                self.is_log_append_time = value == Some("LogAppendTime");
            }
            "message.timestamp.before.max.ms" => {
                self.timestamp_before_max = number(value, default.timestamp_before_max);
            }
            "message.timestamp.after.max.ms" => {
                self.timestamp_after_max = number(value, default.timestamp_after_max);
            }
            "min.insync.replicas" => {
                self.min_insync_replicas = number(value, default.min_insync_replicas);
            }
            "unclean.leader.election.enable" => {
                self.is_unclean_election = value.map_or(default.is_unclean_election, |value| {
                    value.trim().eq_ignore_ascii_case("true")
                });
            }
            "flush.messages" => self.flush_messages = number(value, default.flush_messages),
            "cleanup.policy" => {
                self.is_compacted =
                    value.is_some_and(|list| list.split(',').any(|v| v.trim() == "compact"));
            }
            _ => {}
        }
    }
}

/// Checks properties by Kafka's rules, and says what is wrong.
pub(super) fn check(config: &BTreeMap<String, String>) -> Result<(), String> {
    config.iter().try_for_each(|(name, value)| {
        let known = PROPERTIES.iter().find(|(known, _)| known == name);
        let (_, kind) = known.ok_or_else(|| format!("Unknown topic config name: {name}"))?;
        kind.check(value.trim())
            .map_err(|why| format!("Invalid value {value} for configuration {name}: {why}"))
    })
}

/// Which values a property takes.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Int(i64),
    Long(i64),
    Ratio,
    Bool,
    OneOf(&'static [&'static str]),
    ListOf(&'static [&'static str]),
    /// A number from the first to the second.
    Level(i64, i64),
    Any,
}

impl Kind {
    fn check(self, value: &str) -> Result<(), String> {
        let at_least = |number: i64, least: i64| {
            if number < least { Err(format!("Value must be at least {least}")) } else { Ok(()) }
        };
        match self {
            Self::Int(least) => match value.parse::<i32>() {
                Ok(number) => at_least(number.into(), least),
                Err(_) => Err("Not a number of type INT".to_owned()),
            },
            Self::Long(least) => match value.parse() {
                Ok(number) => at_least(number, least),
                Err(_) => Err("Not a number of type LONG".to_owned()),
            },
            Self::Ratio => match value.parse::<f64>() {
                Ok(number) if number < 0.0 => Err("Value must be at least 0".to_owned()),
                Ok(number) if number > 1.0 => Err("Value must be no more than 1".to_owned()),
                Ok(_) => Ok(()),
                Err(_) => Err("Not a number of type DOUBLE".to_owned()),
            },
            Self::Bool if value.eq_ignore_ascii_case("true") => Ok(()),
            Self::Bool if value.eq_ignore_ascii_case("false") => Ok(()),
            Self::Bool => Err("Expected value to be either true or false".to_owned()),
            Self::OneOf(values) if values.contains(&value) => Ok(()),
            Self::OneOf(values) => Err(format!("String must be one of: {}", values.join(", "))),
            Self::ListOf(values) => {
                let mut items = value.split(',').map(str::trim).filter(|item| !item.is_empty());
                match items.find(|item| !values.contains(item)) {
                    Some(_) => Err(format!("String must be one of: {}", values.join(", "))),
                    None => Ok(()),
                }
            }
            Self::Level(least, most) => match value.parse::<i64>() {
                Ok(number) if number < least => Err(format!("Value must be at least {least}")),
                Ok(number) if number > most => Err(format!("Value must be no more than {most}")),
                Ok(_) => Ok(()),
                Err(_) => Err("Not a number of type INT".to_owned()),
            },
            Self::Any => Ok(()),
        }
    }
}

fn number<N: std::str::FromStr>(value: Option<&str>, default: N) -> N {
    value.and_then(|value| value.trim().parse().ok()).unwrap_or(default)
}

/// All properties of Kafka 4, sorted.
const PROPERTIES: &[(&str, Kind)] = &[
    ("cleanup.policy", Kind::ListOf(&["compact", "delete"])),
    ("compression.gzip.level", Kind::Level(-1, 9)),
    ("compression.lz4.level", Kind::Level(1, 17)),
    (
        "compression.type",
        Kind::OneOf(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]),
    ),
    ("compression.zstd.level", Kind::Level(-131_072, 22)),
    ("delete.retention.ms", Kind::Long(0)),
    ("file.delete.delay.ms", Kind::Long(0)),
    ("flush.messages", Kind::Long(1)),
    ("flush.ms", Kind::Long(0)),
    ("follower.replication.throttled.replicas", Kind::Any),
    ("index.interval.bytes", Kind::Int(0)),
    ("leader.replication.throttled.replicas", Kind::Any),
    ("local.retention.bytes", Kind::Long(-2)),
    ("local.retention.ms", Kind::Long(-2)),
    ("max.compaction.lag.ms", Kind::Long(1)),
    ("max.message.bytes", Kind::Int(0)),
    ("message.timestamp.after.max.ms", Kind::Long(0)),
    ("message.timestamp.before.max.ms", Kind::Long(0)),
    ("message.timestamp.type", Kind::OneOf(&["CreateTime", "LogAppendTime"])),
    ("min.cleanable.dirty.ratio", Kind::Ratio),
    ("min.compaction.lag.ms", Kind::Long(0)),
    ("min.insync.replicas", Kind::Int(1)),
    ("preallocate", Kind::Bool),
    ("remote.log.copy.disable", Kind::Bool),
    ("remote.log.delete.on.disable", Kind::Bool),
    ("remote.storage.enable", Kind::Bool),
    ("retention.bytes", Kind::Long(i64::MIN)),
    ("retention.ms", Kind::Long(-1)),
    ("segment.bytes", Kind::Int(1_048_576)),
    ("segment.index.bytes", Kind::Int(4)),
    ("segment.jitter.ms", Kind::Long(0)),
    ("segment.ms", Kind::Long(1)),
    ("unclean.leader.election.enable", Kind::Bool),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(name: &str, value: &str) -> Result<(), String> {
        check(&BTreeMap::from([(name.to_owned(), value.to_owned())]))
    }

    #[test]
    fn unknown_names_and_bad_values_are_refused() {
        assert!(checked("retention.ms", "-1").is_ok());
        assert!(checked("cleanup.policy", "compact, delete").is_ok());
        for (name, value) in [
            ("retention.mss", "1"),
            ("retention.ms", "-2"),
            ("retention.ms", "a day"),
            ("cleanup.policy", "shred"),
            ("min.insync.replicas", "0"),
            ("min.cleanable.dirty.ratio", "1.5"),
            ("preallocate", "maybe"),
        ] {
            let error = checked(name, value).expect_err(name);
            assert!(error.contains(name), "{error}");
        }
    }

    #[test]
    fn a_property_goes_back_to_its_default() {
        let mut config = TopicConfig::default();
        let default = TopicConfig::default();
        config.set("max.message.bytes", Some("100"), &default);
        assert_eq!(config.max_message_bytes, Some(100));
        config.set("max.message.bytes", None, &default);
        assert_eq!(config, default);
    }
}
