//! Typed events: a codec for the data and an envelope in CloudEvents headers.
//!
//! The envelope uses the Kafka binding of CloudEvents 1.0 in binary mode: attributes as headers
//! `ce_id`, `ce_source`, `ce_specversion`, `ce_type`, `ce_time`, `ce_subject`, the data's media
//! type as `content-type`, the data as the value. An event without data is a tombstone.

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::bus::Bus;
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::record::{Headers, ProducerRecord, Record, Timestamp, Topic};

/// Header names of the CloudEvents Kafka binding.
pub mod header {
    /// The id of the event; with the source it is unique, and so the key to deduplicate by.
    pub const ID: &str = "ce_id";
    /// The context in which the event happened, a URI reference.
    pub const SOURCE: &str = "ce_source";
    /// The version of CloudEvents: `1.0`.
    pub const SPEC_VERSION: &str = "ce_specversion";
    /// The type of the event.
    pub const TYPE: &str = "ce_type";
    /// When it happened, RFC 3339.
    pub const TIME: &str = "ce_time";
    /// What it happened to; here the id of the aggregate.
    pub const SUBJECT: &str = "ce_subject";
    /// The media type of the data.
    pub const CONTENT_TYPE: &str = "content-type";
}

/// Turns data into bytes and back. The room for Avro and Protobuf.
pub trait Codec {
    /// The media type of the bytes.
    const CONTENT_TYPE: &'static str;

    /// Encodes.
    ///
    /// # Errors
    /// [`ErrorKind::Serialization`].
    fn encode<T: Serialize>(data: &T) -> Result<Bytes>;

    /// Decodes; every byte must be used.
    ///
    /// # Errors
    /// [`ErrorKind::Serialization`], definite, with the codec's own error as its source.
    fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T>;
}

/// JSON: the default, because people and other languages can read it.
#[derive(Clone, Copy, Debug)]
pub struct Json;

impl Codec for Json {
    const CONTENT_TYPE: &'static str = "application/json";

    fn encode<T: Serialize>(data: &T) -> Result<Bytes> {
        let bytes = serde_json::to_vec(data).map_err(|error| {
            failed(Operation::Encode, "the data cannot be written as JSON").with_source(error)
        })?;
        Ok(bytes.into())
    }

    fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
        serde_json::from_slice(bytes).map_err(|error| {
            failed(Operation::Decode, "the payload is not the expected JSON").with_source(error)
        })
    }
}

/// bincode 2 in its standard configuration: small and fast, between Rust services that are
/// deployed together.
#[derive(Clone, Copy, Debug)]
pub struct Bincode;

impl Codec for Bincode {
    const CONTENT_TYPE: &'static str = "application/x-bincode";

    fn encode<T: Serialize>(data: &T) -> Result<Bytes> {
        let bytes = bincode::serde::encode_to_vec(data, bincode::config::standard());
        let bytes = bytes.map_err(|error| {
            failed(Operation::Encode, format!("the data cannot be written as bincode: {error}"))
        })?;
        Ok(bytes.into())
    }

    fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
        // The limit keeps a corrupt length from asking for all memory.
        const LIMIT: usize = 64 << 20;
        let config = bincode::config::standard().with_limit::<LIMIT>();
        let (data, used) = bincode::serde::decode_from_slice(bytes, config).map_err(|error| {
            failed(Operation::Decode, format!("the payload is not the expected bincode: {error}"))
        })?;
        if used != bytes.len() {
            let rest = bytes.len() - used;
            return Err(failed(
                Operation::Decode,
                format!("the payload has {rest} bytes behind the bincode data"),
            ));
        }
        Ok(data)
    }
}

/// A type of data with a name that travels with it.
///
/// ```
/// use bus_core::{Envelope, Event, Json, ProducerRecord, Timestamp, Topic};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Debug, PartialEq, Serialize, Deserialize)]
/// struct OrderConfirmed {
///     order_id: u64,
/// }
///
/// impl Event for OrderConfirmed {
///     const TYPE: &'static str = "order.confirmed.v1";
///
///     fn subject(&self) -> Option<String> {
///         Some(self.order_id.to_string())
///     }
/// }
///
/// let event = Envelope {
///     id: uuid::Uuid::nil(),
///     source: "/orders".to_owned(),
///     time: Timestamp::EPOCH,
///     data: OrderConfirmed { order_id: 7 },
/// };
/// let record = event.to_record::<Json>("order-export")?;
/// assert_eq!(record.key.as_deref(), Some(&b"7"[..]));
/// assert_eq!(record.headers.last_str("ce_type"), Some("order.confirmed.v1"));
/// let (value, headers) = (record.value.as_deref(), &record.headers);
/// assert_eq!(Envelope::<OrderConfirmed>::decode::<Json>(value, headers)?, event);
/// # Ok::<_, bus_core::Error>(())
/// ```
pub trait Event: Serialize + DeserializeOwned {
    /// The name of the type, with a version: `order.confirmed.v1`.
    const TYPE: &'static str;

    /// The id of the aggregate that it happened to. It is the record's key too, so events of one
    /// aggregate keep their order.
    fn subject(&self) -> Option<String> {
        None
    }
}

/// An event with its identity, origin, and time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope<T> {
    /// The id; with the source it is unique.
    pub id: Uuid,
    /// The context in which it happened, a URI reference such as `/orders`.
    pub source: String,
    /// When it happened.
    pub time: Timestamp,
    /// What happened.
    pub data: T,
}

impl<T: Event> Envelope<T> {
    /// Wraps data that happened now; id and time come from the bus.
    pub fn new(bus: &Bus, source: impl Into<String>, data: T) -> Self {
        Self { id: bus.new_id(), source: source.into(), time: bus.now(), data }
    }

    /// The record of this event, with the subject as its key.
    ///
    /// # Errors
    /// [`ErrorKind::Serialization`].
    pub fn to_record<C: Codec>(&self, topic: impl Into<Topic>) -> Result<ProducerRecord> {
        let mut record = ProducerRecord::to(topic)
            .value(C::encode(&self.data)?)
            .timestamp(self.time)
            .header(header::SPEC_VERSION, "1.0")
            .header(header::ID, self.id.to_string())
            .header(header::SOURCE, self.source.clone())
            .header(header::TYPE, T::TYPE)
            .header(header::TIME, self.time.to_rfc3339())
            .header(header::CONTENT_TYPE, C::CONTENT_TYPE);
        if let Some(subject) = self.data.subject() {
            record = record.header(header::SUBJECT, subject.clone()).key(subject);
        }
        Ok(record)
    }

    /// Reads the event that a record holds.
    ///
    /// # Errors
    /// As [`decode`](Self::decode), naming the partition.
    pub fn from_record<C: Codec>(record: &Record) -> Result<Self> {
        Self::decode::<C>(record.value.as_deref(), &record.headers)
            .map_err(|error| error.with_topic_partition(record.topic_partition()))
    }

    /// Reads the event that a value and its headers hold.
    ///
    /// # Errors
    /// [`ErrorKind::Serialization`]: a header is missing or malformed, the type is another one, the
    /// value is null or undecodable.
    pub fn decode<C: Codec>(value: Option<&[u8]>, headers: &Headers) -> Result<Self> {
        let found = required(headers, header::TYPE)?;
        if found != T::TYPE {
            return Err(failed(
                Operation::Decode,
                format!("the event is of type {found:?}; expected is {:?}", T::TYPE),
            ));
        }
        let id = required(headers, header::ID)?;
        let id = id.parse().map_err(|error: uuid::Error| {
            failed(Operation::Decode, format!("header ce_id {id:?} is no UUID")).with_source(error)
        })?;
        let time = Timestamp::parse_rfc3339(required(headers, header::TIME)?).map_err(|error| {
            failed(Operation::Decode, "header ce_time is no time").with_source(error)
        })?;
        let source = required(headers, header::SOURCE)?.to_owned();
        let value = value.ok_or_else(|| {
            failed(Operation::Decode, "the record is a tombstone: it holds no data")
        })?;
        Ok(Self { id, source, time, data: C::decode(value)? })
    }
}

fn required<'a>(headers: &'a Headers, name: &str) -> Result<&'a str> {
    headers
        .last_str(name)
        .ok_or_else(|| failed(Operation::Decode, format!("header {name} is missing or not UTF-8")))
}

fn failed(operation: Operation, message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Serialization, message).with_operation(operation)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Paid {
        amount: u32,
    }

    impl Event for Paid {
        const TYPE: &'static str = "paid.v1";
    }

    fn paid() -> Envelope<Paid> {
        Envelope {
            id: Uuid::from_u128(7),
            source: "/payment".to_owned(),
            time: Timestamp::from_millis(1_000),
            data: Paid { amount: 3 },
        }
    }

    #[test]
    fn events_round_trip_in_each_codec() {
        fn round_trip<C: Codec>() {
            let record = paid().to_record::<C>("payments").unwrap();
            let read = Envelope::decode::<C>(record.value.as_deref(), &record.headers).unwrap();
            assert_eq!(read, paid());
        }
        round_trip::<Json>();
        round_trip::<Bincode>();
    }

    #[test]
    fn what_is_wrong_is_named() {
        let record = paid().to_record::<Json>("payments").unwrap();
        let decode = |value: Option<&[u8]>, headers: &Headers| {
            let error = Envelope::<Paid>::decode::<Json>(value, headers).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Serialization);
            assert!(!error.is_indeterminate());
            error.to_string()
        };
        assert!(decode(None, &record.headers).contains("tombstone"));
        assert!(decode(Some(b"{"), &record.headers).contains("not the expected JSON"));
        assert!(decode(Some(b"{}"), &Headers::new()).contains("ce_type is missing"));
        let mut other = record.headers.clone();
        other.push(header::TYPE, Some("refunded.v1".into()));
        assert!(decode(record.value.as_deref(), &other).contains("refunded.v1"));
    }

    #[test]
    fn bincode_refuses_bytes_that_are_left_over() {
        let mut bytes = Bincode::encode(&Paid { amount: 3 }).unwrap().to_vec();
        bytes.push(0);
        let error = Bincode::decode::<Paid>(&bytes).unwrap_err();
        assert!(error.to_string().contains("1 bytes behind"), "{error}");
    }
}
