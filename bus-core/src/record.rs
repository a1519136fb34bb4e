//! Records and where they live: topic, partition, offset, timestamp, headers.
//!
//! Keys, values, and header values are bytes. A null value (a *tombstone*) and an empty value are
//! different things, as they are in Kafka, so both are `Option<Bytes>`.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};

/// The place of a record in a partition: 0, 1, 2, and so on, with holes.
///
/// Signed because Kafka's is. Offsets that the application hands in are checked; a negative one is
/// [`ErrorKind::InvalidArgument`].
pub type Offset = i64;

/// The number of a partition in its topic, from 0.
pub type Partition = i32;

/// The name of a topic: 1 to 249 of the characters `a-z A-Z 0-9 . _ -`, and neither `.` nor `..`.
///
/// Cheap to clone. A name is not checked when it is made, because Kafka does not either: an invalid
/// one is [`ErrorKind::InvalidTopic`] from the operation that uses it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Topic(Arc<str>);

impl Topic {
    /// The longest name that Kafka accepts, in characters.
    pub const NAME_MAX: usize = 249;

    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Checks the name by Kafka's rules.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidTopic`], saying which rule the name breaks.
    pub fn validate(&self) -> Result<()> {
        let name = self.as_str();
        let broken = if name.is_empty() {
            "is empty".to_owned()
        } else if name == "." || name == ".." {
            "is a path component".to_owned()
        } else if name.len() > Self::NAME_MAX {
            format!("has {} characters; {} are allowed", name.len(), Self::NAME_MAX)
        } else if let Some(bad) =
            name.chars().find(|c| !(c.is_ascii_alphanumeric() || "._-".contains(*c)))
        {
            format!("contains {bad:?}; allowed are ASCII letters, digits, '.', '_', and '-'")
        } else {
            return Ok(());
        };
        Err(Error::new(ErrorKind::InvalidTopic, format!("topic name {name:?} {broken}")))
    }
}

impl From<&str> for Topic {
    fn from(name: &str) -> Self {
        Self(name.into())
    }
}

impl From<String> for Topic {
    fn from(name: String) -> Self {
        Self(name.into())
    }
}

impl From<&Self> for Topic {
    fn from(topic: &Self) -> Self {
        topic.clone()
    }
}

impl PartialEq<str> for Topic {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl PartialEq<&str> for Topic {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// One partition of a topic. Displays as `orders-0`, as Kafka's own tools do.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TopicPartition {
    /// The topic.
    pub topic: Topic,
    /// The partition of the topic.
    pub partition: Partition,
}

impl TopicPartition {
    /// Names partition `partition` of `topic`.
    pub fn new(topic: impl Into<Topic>, partition: Partition) -> Self {
        Self { topic: topic.into(), partition }
    }

    /// Checks what can be checked without the cluster.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidTopic`] for an invalid name, [`ErrorKind::InvalidArgument`] for a
    /// negative partition.
    pub fn validate(&self) -> Result<()> {
        self.topic.validate()?;
        if self.partition < 0 {
            let message = format!("partition {} is negative; they start at 0", self.partition);
            return Err(
                Error::new(ErrorKind::InvalidArgument, message).with_topic_partition(self.clone())
            );
        }
        Ok(())
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

impl fmt::Debug for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A time of day: milliseconds since the Unix epoch, which is what Kafka stores.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The Unix epoch.
    pub const EPOCH: Self = Self(0);

    /// The time `millis` milliseconds after the Unix epoch.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the Unix epoch.
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// Formats as RFC 3339 in UTC with milliseconds, as CloudEvents and the documents want it.
    ///
    /// A time outside the years -9999 to 9999 is given as its milliseconds.
    pub fn to_rfc3339(self) -> String {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(time) => format!("{time:.3}"),
            Err(_) => self.0.to_string(),
        }
    }

    /// Parses RFC 3339.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] when `text` is not a time with an offset.
    pub fn parse_rfc3339(text: &str) -> Result<Self> {
        let time: jiff::Timestamp = text.parse().map_err(|error| {
            Error::new(ErrorKind::InvalidArgument, format!("{text:?} is not an RFC 3339 time"))
                .with_source(error)
        })?;
        Ok(Self(time.as_millisecond()))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_rfc3339())
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Who set the timestamp of a record (`message.timestamp.type` of its topic).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum TimestampType {
    /// The producer, when it sent the record. Kafka's default.
    #[default]
    CreateTime,
    /// The leader, when it appended the record.
    LogAppendTime,
}

/// One header of a record: a name and a value that may be null.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Header {
    /// The name; not unique within a record, and not empty by convention only.
    pub name: Arc<str>,
    /// The value: any bytes, or null.
    pub value: Option<Bytes>,
}

/// The headers of a record: an ordered list in which names may repeat.
///
/// ```
/// use bus_core::Headers;
///
/// let headers = Headers::new().with("trace", "a").with("trace", "b").with_null("empty");
/// assert_eq!(headers.last("trace"), Some(&b"b"[..]));
/// assert_eq!(headers.all("trace").count(), 2);
/// assert_eq!(headers.last("empty"), None);
/// assert_eq!(headers.len(), 3);
/// ```
#[derive(Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Headers(Vec<Header>);

impl Headers {
    /// No headers.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Adds a header behind those that are there.
    #[must_use]
    pub fn with(mut self, name: impl Into<Arc<str>>, value: impl Into<Bytes>) -> Self {
        self.push(name, Some(value.into()));
        self
    }

    /// Adds a header with a null value behind those that are there.
    #[must_use]
    pub fn with_null(mut self, name: impl Into<Arc<str>>) -> Self {
        self.push(name, None);
        self
    }

    /// Adds a header behind those that are there.
    pub fn push(&mut self, name: impl Into<Arc<str>>, value: Option<Bytes>) {
        self.0.push(Header { name: name.into(), value });
    }

    /// The value of the last header of that name, unless it is null (Kafka's `lastHeader`).
    pub fn last(&self, name: &str) -> Option<&[u8]> {
        self.0.iter().rev().find(|header| &*header.name == name)?.value.as_deref()
    }

    /// The value of the last header of that name, if it is UTF-8.
    pub fn last_str(&self, name: &str) -> Option<&str> {
        std::str::from_utf8(self.last(name)?).ok()
    }

    /// All headers of that name, in order.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Header> {
        self.0.iter().filter(move |header| &*header.name == name)
    }

    /// All headers, in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Header> {
        self.0.iter()
    }

    /// How many headers there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.0.iter().map(|header| (&header.name, &header.value))).finish()
    }
}

impl FromIterator<Header> for Headers {
    fn from_iter<I: IntoIterator<Item = Header>>(headers: I) -> Self {
        Self(headers.into_iter().collect())
    }
}

impl<'a> IntoIterator for &'a Headers {
    type Item = &'a Header;
    type IntoIter = std::slice::Iter<'a, Header>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl IntoIterator for Headers {
    type Item = Header;
    type IntoIter = std::vec::IntoIter<Header>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// A record to be sent.
///
/// ```
/// use bus_core::ProducerRecord;
///
/// let record = ProducerRecord::to("orders").key("order-1").value("{}").header("ce_id", "17");
/// assert_eq!(record.topic, "orders");
/// assert_eq!(record.partition, None);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ProducerRecord {
    /// The topic that it goes to.
    pub topic: Topic,
    /// The partition, or `None` to let the partitioner choose (see [`crate::partitioner`]).
    pub partition: Option<Partition>,
    /// The key: records of one key go to one partition and so keep their order.
    pub key: Option<Bytes>,
    /// The value; `None` is a tombstone.
    pub value: Option<Bytes>,
    /// The headers.
    pub headers: Headers,
    /// The timestamp, or `None` for the time of the call to `send`.
    pub timestamp: Option<Timestamp>,
}

impl ProducerRecord {
    /// An empty record (null key, null value) for `topic`.
    pub fn to(topic: impl Into<Topic>) -> Self {
        Self {
            topic: topic.into(),
            partition: None,
            key: None,
            value: None,
            headers: Headers::new(),
            timestamp: None,
        }
    }

    /// Sets the partition; the partitioner is not asked then.
    #[must_use]
    pub fn partition(mut self, partition: Partition) -> Self {
        self.partition = Some(partition);
        self
    }

    /// Sets the key.
    #[must_use]
    pub fn key(mut self, key: impl Into<Bytes>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Sets the value.
    #[must_use]
    pub fn value(mut self, value: impl Into<Bytes>) -> Self {
        self.value = Some(value.into());
        self
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: impl Into<Arc<str>>, value: impl Into<Bytes>) -> Self {
        self.headers.push(name, Some(value.into()));
        self
    }

    /// Sets the timestamp.
    #[must_use]
    pub const fn timestamp(mut self, timestamp: Timestamp) -> Self {
        self.timestamp = Some(timestamp);
        self
    }
}

/// A record as it was read from a partition.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Record {
    /// The topic that it came from.
    pub topic: Topic,
    /// The partition that it came from.
    pub partition: Partition,
    /// Its place there.
    pub offset: Offset,
    /// Its timestamp.
    pub timestamp: Timestamp,
    /// Who set the timestamp.
    pub timestamp_type: TimestampType,
    /// The epoch of the leader that appended it, where the backend knows it.
    pub leader_epoch: Option<i32>,
    /// The key.
    pub key: Option<Bytes>,
    /// The value; `None` is a tombstone.
    pub value: Option<Bytes>,
    /// The headers.
    pub headers: Headers,
}

impl Record {
    /// The partition that the record came from.
    pub fn topic_partition(&self) -> TopicPartition {
        TopicPartition { topic: self.topic.clone(), partition: self.partition }
    }

    /// The offset to commit once this record is done: that of the next one.
    pub const fn next_offset(&self) -> Offset {
        self.offset + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topic_names_are_checked_by_kafkas_rules() {
        for good in ["a", "orders.v1_x-y", &"n".repeat(249)] {
            assert!(Topic::from(good).validate().is_ok(), "{good} is a valid name");
        }
        for bad in ["", ".", "..", "a b", "주문", "a/b", &"n".repeat(250)] {
            let error = Topic::from(bad).validate().expect_err(bad);
            assert_eq!(error.kind(), ErrorKind::InvalidTopic);
        }
    }

    #[test]
    fn timestamps_round_trip_through_rfc3339() {
        let time = Timestamp::from_millis(1_767_225_600_123);
        assert_eq!(time.to_rfc3339(), "2026-01-01T00:00:00.123Z");
        assert_eq!(Timestamp::parse_rfc3339("2026-01-01T00:00:00.123Z").unwrap(), time);
        assert_eq!(
            Timestamp::parse_rfc3339("yesterday").unwrap_err().kind(),
            ErrorKind::InvalidArgument
        );
        assert_eq!(Timestamp::from_millis(i64::MAX).to_rfc3339(), i64::MAX.to_string());
    }
}
