//! Data: bytes as programs write them, and as outcomes tell of them.

use std::fmt;

use bus_core::Bytes;
use serde::{Deserialize, Serialize};

/// Bytes that a program sends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Data {
    /// No bytes, which differs from zero bytes.
    #[default]
    Null,
    /// Text.
    Text(String),
    /// Any bytes.
    Raw(Vec<u8>),
    /// So many bytes.
    Size(usize),
}

impl Data {
    /// The bytes.
    pub fn to_bytes(&self) -> Option<Bytes> {
        match self {
            Self::Null => None,
            Self::Text(text) => Some(Bytes::copy_from_slice(text.as_bytes())),
            Self::Raw(bytes) => Some(Bytes::copy_from_slice(bytes)),
            // Bytes of a pattern, so that a part that is missing or out of place shows.
            Self::Size(size) => Some(PATTERN.iter().copied().cycle().take(*size).collect()),
        }
    }

    /// How many bytes.
    pub const fn len(&self) -> usize {
        match self {
            Self::Null => 0,
            Self::Text(text) => text.len(),
            Self::Raw(bytes) => bytes.len(),
            Self::Size(size) => *size,
        }
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

const PATTERN: &[u8; 23] = b"abcdefghijklmnopqrstuvw";

/// Bytes that were read: short text as it is, all else by length and hash.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Seen {
    /// No bytes.
    Null,
    /// Text.
    Text(String),
    /// How many bytes, and their hash (FNV-1a).
    Hash(usize, String),
}

impl Seen {
    /// Tells of bytes.
    pub fn of(bytes: Option<&Bytes>) -> Self {
        const TEXT_MAX: usize = 40;

        let Some(bytes) = bytes else { return Self::Null };
        match std::str::from_utf8(bytes) {
            Ok(text) if text.len() <= TEXT_MAX && !text.chars().any(char::is_control) => {
                Self::Text(text.to_owned())
            }
            _ => Self::Hash(bytes.len(), format!("{:016x}", fnv(bytes))),
        }
    }
}

impl fmt::Debug for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Text(text) => write!(f, "{text:?}"),
            Self::Hash(size, hash) => write!(f, "{size} bytes {hash}"),
        }
    }
}

fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_empty_and_text_differ() {
        assert_eq!(Seen::of(None), Seen::Null);
        assert_eq!(Seen::of(Some(&Bytes::new())), Seen::Text(String::new()));
        let seen = |data: &Data| Seen::of(data.to_bytes().as_ref());
        assert_eq!(seen(&Data::Text("a".into())), Seen::Text("a".into()));
        assert_ne!(seen(&Data::Size(1000)), seen(&Data::Size(1001)));
        assert!(matches!(seen(&Data::Raw(vec![255])), Seen::Hash(1, _)));
    }
}
