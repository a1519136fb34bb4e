//! Slots: the few names that a program has for topics, groups, and clients.
//!
//! A program says `T0` and `G1`; each run of it puts a prefix of its own before them, so that
//! many programs can run on one Kafka, and takes it away from the outcomes again.

use std::fmt;
use std::str::FromStr;

use bus_core::{Partition, Topic, TopicPartition};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Makes an enum of slots with a list of all.
macro_rules! slots {
    ($(#[doc = $doc:literal])+ $name:ident: $($(#[doc = $of:literal])+ $slot:ident),+) => {
        $(#[doc = $doc])+
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        pub enum $name { $($(#[doc = $of])+ $slot),+ }

        impl $name {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$slot),+];

            /// The name, as programs write it.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$slot => stringify!($slot),)+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}

slots! {
    /// A topic.
    TopicSlot:
    /// The first.
    T0,
    /// The second.
    T1,
    /// The third.
    T2,
    /// A good name that no program creates.
    Missing,
    /// A name that breaks Kafka's rules.
    Invalid
}

slots! {
    /// A group of consumers.
    GroupSlot:
    /// The first.
    G0,
    /// The second.
    G1,
    /// One that no consumer is in.
    Nobody
}

slots! {
    /// A producer.
    ProducerSlot:
    /// The first.
    P0,
    /// The second.
    P1,
    /// The third.
    P2
}

slots! {
    /// A transactional producer.
    TransactorSlot:
    /// The first.
    X0,
    /// The second.
    X1
}

slots! {
    /// A transactional id.
    IdSlot:
    /// The first.
    I0,
    /// The second.
    I1
}

slots! {
    /// A consumer.
    ConsumerSlot:
    /// The first.
    C0,
    /// The second.
    C1,
    /// The third.
    C2
}

/// A partition of a topic; written as `"T0-1"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The topic.
    pub topic: TopicSlot,
    /// Its partition.
    pub partition: Partition,
}

impl Place {
    /// Partition `partition` of `topic`.
    pub const fn new(topic: TopicSlot, partition: Partition) -> Self {
        Self { topic, partition }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            let topics = TopicSlot::ALL.iter().map(|slot| slot.name()).collect::<Vec<_>>();
            let topics = topics.join(", ");
            format!("a partition is written as \"T0-1\", with one of {topics}; found {text:?}")
        };
        let (topic, partition) = text.split_once('-').ok_or_else(wrong)?;
        let slot = TopicSlot::ALL.iter().find(|slot| slot.name() == topic).ok_or_else(wrong)?;
        Ok(Self { topic: *slot, partition: partition.parse().map_err(|_| wrong())? })
    }
}

impl Serialize for Place {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Place {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The real names of one run of one program.
#[derive(Clone, Debug)]
pub struct Names {
    prefix: String,
}

impl Names {
    /// Names that begin with `prefix`, which no other run has.
    pub fn new(prefix: impl Into<String>) -> Self {
        Self { prefix: prefix.into() }
    }

    /// The name of a topic.
    pub fn topic(&self, slot: TopicSlot) -> Topic {
        match slot {
            TopicSlot::Invalid => Topic::from("not a topic!"),
            _ => Topic::from(format!("{}-{slot}", self.prefix)),
        }
    }

    /// The name of a partition.
    pub fn place(&self, place: Place) -> TopicPartition {
        TopicPartition::new(self.topic(place.topic), place.partition)
    }

    /// A pattern that matches these topics and no other.
    pub fn pattern(&self, slots: &[TopicSlot]) -> String {
        let slots = slots.iter().map(|slot| slot.name()).collect::<Vec<_>>();
        format!("^{}-({})$", self.prefix, slots.join("|"))
    }

    /// The id of a group.
    pub fn group(&self, slot: GroupSlot) -> String {
        format!("{}-{slot}", self.prefix)
    }

    /// A transactional id.
    pub fn transactional_id(&self, slot: IdSlot) -> String {
        format!("{}-{slot}", self.prefix)
    }

    /// The slot of a topic; `None` if it is not of this run.
    pub fn slot_of(&self, topic: &Topic) -> Option<TopicSlot> {
        TopicSlot::ALL.iter().copied().find(|slot| self.topic(*slot) == *topic)
    }

    /// The slot of a partition; `None` if it is not of this run.
    pub fn place_of(&self, place: &TopicPartition) -> Option<Place> {
        Some(Place::new(self.slot_of(&place.topic)?, place.partition))
    }

    /// The slot of a group; `None` if it is not of this run.
    pub fn group_of(&self, group_id: &str) -> Option<GroupSlot> {
        GroupSlot::ALL.iter().copied().find(|slot| self.group(*slot) == group_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_round_trip_and_errors_say_what_is_right() {
        let place: Place = "T1-3".parse().unwrap();
        assert_eq!((place.to_string().as_str(), place.partition), ("T1-3", 3));
        assert_eq!("T0--1".parse::<Place>().unwrap().partition, -1);
        for wrong in ["T1", "T9-0", "T0-x", ""] {
            let error = wrong.parse::<Place>().unwrap_err();
            assert!(error.contains("\"T0-1\"") && error.contains("T0, T1, T2"), "{error}");
        }
    }

    #[test]
    fn names_are_found_again() {
        let names = Names::new("d1");
        for slot in TopicSlot::ALL {
            assert_eq!(names.slot_of(&names.topic(*slot)), Some(*slot));
        }
        assert_eq!(names.slot_of(&"d2-T0".into()), None);
        assert!(names.topic(TopicSlot::Invalid).validate().is_err());
        assert!(names.topic(TopicSlot::Missing).validate().is_ok());
    }
}
