//! What members tell the leader of their group, and what the leader tells them: Kafka's embedded
//! `ConsumerProtocol` (subscription version 2, assignment version 0), as bytes.

use std::collections::BTreeMap;

use bus_core::{Bytes, Topic, TopicPartition};

/// A member's subscription, with what it owns for cooperative assignors (KIP-429).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MemberSubscription {
    pub(crate) topics: Vec<Topic>,
    pub(crate) owned: Vec<TopicPartition>,
    /// The generation in which it owned them; -1 for none (KIP-792).
    pub(crate) generation: i32,
}

impl MemberSubscription {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = Writer::default();
        out.i16(2);
        out.count(self.topics.len());
        for topic in &self.topics {
            out.string(topic.as_str());
        }
        out.i32(-1);
        out.partitions(&self.owned);
        out.i32(self.generation);
        out.0.into()
    }

    /// Reads a subscription; `None` if the bytes are none.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut input = Reader(bytes);
        let version = input.i16()?;
        let topics = (0..input.count()?).map(|_| input.topic()).collect::<Option<_>>()?;
        input.skip_bytes()?;
        let owned = if version >= 1 { input.partitions()? } else { Vec::new() };
        let generation = if version >= 2 { input.i32()? } else { -1 };
        Some(Self { topics, owned, generation })
    }
}

/// Writes the assignment of a member.
pub(crate) fn encode_assignment(partitions: &[TopicPartition]) -> Bytes {
    let mut out = Writer::default();
    out.i16(0);
    out.partitions(partitions);
    out.i32(-1);
    out.0.into()
}

/// Reads the assignment of a member, sorted. No bytes are no partitions.
pub(crate) fn decode_assignment(bytes: &[u8]) -> Option<Vec<TopicPartition>> {
    if bytes.is_empty() {
        return Some(Vec::new());
    }
    let mut input = Reader(bytes);
    input.i16()?;
    let mut partitions = input.partitions()?;
    partitions.sort();
    Some(partitions)
}

#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn i16(&mut self, value: i16) {
        self.0.extend(value.to_be_bytes());
    }

    fn i32(&mut self, value: i32) {
        self.0.extend(value.to_be_bytes());
    }

    fn count(&mut self, count: usize) {
        self.i32(i32::try_from(count).unwrap_or(i32::MAX));
    }

    fn string(&mut self, text: &str) {
        self.i16(i16::try_from(text.len()).unwrap_or(i16::MAX));
        self.0.extend(text.as_bytes());
    }

    fn partitions(&mut self, partitions: &[TopicPartition]) {
        let mut topics = BTreeMap::<&Topic, Vec<i32>>::new();
        for TopicPartition { topic, partition } in partitions {
            topics.entry(topic).or_default().push(*partition);
        }
        self.count(topics.len());
        for (topic, partitions) in topics {
            self.string(topic.as_str());
            self.count(partitions.len());
            for partition in partitions {
                self.i32(partition);
            }
        }
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn i16(&mut self) -> Option<i16> {
        Some(i16::from_be_bytes(self.take()?))
    }

    fn i32(&mut self) -> Option<i32> {
        Some(i32::from_be_bytes(self.take()?))
    }

    fn count(&mut self) -> Option<usize> {
        usize::try_from(self.i32()?).ok()
    }

    fn topic(&mut self) -> Option<Topic> {
        let len = usize::try_from(self.i16()?).ok()?;
        let (text, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(std::str::from_utf8(text).ok()?.into())
    }

    fn skip_bytes(&mut self) -> Option<()> {
        let len = usize::try_from(self.i32()?.max(0)).ok()?;
        self.0 = self.0.get(len..)?;
        Some(())
    }

    fn partitions(&mut self) -> Option<Vec<TopicPartition>> {
        let mut partitions = Vec::new();
        for _ in 0..self.count()? {
            let topic = self.topic()?;
            for _ in 0..self.count()? {
                partitions.push(TopicPartition { topic: topic.clone(), partition: self.i32()? });
            }
        }
        Some(partitions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subscriptions_and_assignments_round_trip() {
        let owned = vec![TopicPartition::new("a", 1), TopicPartition::new("b", 0)];
        let topics = vec!["a".into(), "b".into()];
        let subscription = MemberSubscription { topics, owned: owned.clone(), generation: 7 };
        assert_eq!(MemberSubscription::decode(&subscription.encode()), Some(subscription));
        assert_eq!(decode_assignment(&encode_assignment(&owned)), Some(owned));
        assert_eq!(decode_assignment(&[]), Some(Vec::new()));
    }

    #[test]
    fn foreign_bytes_are_refused() {
        assert_eq!(MemberSubscription::decode(b"x"), None);
        assert_eq!(decode_assignment(&[0, 0, 0, 0, 0, 9]), None);
    }
}
