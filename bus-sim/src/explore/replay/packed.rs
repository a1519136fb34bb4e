//! Packed replay files: those whose text would be large, because many choices are listed.
//!
//! `busplay` and a zero byte, the version and a digest of the rest in little-endian order, and then
//! in [bincode](https://docs.rs/bincode) the text without its choices, and the choices. Plans leave
//! out what is not there, which bincode cannot read; so they stay text, of a few kilobytes.

use serde::{Deserialize, Serialize};

use super::{Replay, ReplayError, VERSION};
use crate::choice::ChoiceKey;
use crate::digest::Digest;

/// What no text begins with.
const MAGIC: &[u8; 8] = b"busplay\0";
/// Where the body begins: behind magic, version, and digest.
const BODY: usize = MAGIC.len() + size_of::<u32>() + size_of::<u64>();

#[derive(Deserialize, Serialize)]
struct Body {
    /// The replay without its choices.
    text: String,
    /// Keys, values, and what asked for them.
    choices: Vec<(u64, u64, String)>,
}

/// Packs a replay.
pub(super) fn pack(replay: &Replay) -> Vec<u8> {
    let mut rest = replay.clone();
    let cause = |key| replay.causes.get(key).cloned().unwrap_or_default();
    let values = std::mem::take(&mut rest.case.overrides.values);
    let choices = values.iter().map(|(key, value)| (key.0, *value, cause(key)));
    let body = Body { choices: choices.collect(), text: rest.to_text() };
    let body = match bincode::serde::encode_to_vec(&body, bincode::config::standard()) {
        Ok(body) => body,
        // Strings and numbers are all that it holds, and writing to memory cannot fail.
        Err(error) => unreachable!("a replay cannot be packed: {error}"),
    };
    let mut packed = MAGIC.to_vec();
    packed.extend(VERSION.to_le_bytes());
    packed.extend(Digest::of(body.as_slice()).to_le_bytes());
    packed.extend(body);
    packed
}

/// Whether these bytes are, or once were, a packed replay.
pub(super) fn is_packed(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

/// Unpacks a replay.
pub(super) fn unpack(bytes: &[u8]) -> Result<Replay, ReplayError> {
    let damaged = |message: &str| ReplayError::Damaged { message: message.to_owned() };
    let head = bytes.get(MAGIC.len()..BODY).ok_or_else(|| damaged("it ends in its header"))?;
    let (version, digest) = head.split_at(size_of::<u32>());
    let found = little_endian(version);
    if found != u64::from(VERSION) {
        return Err(ReplayError::Version { found: u32::try_from(found).unwrap_or(u32::MAX) });
    }
    let body = &bytes[BODY..];
    if Digest::of(body) != little_endian(digest) {
        return Err(damaged("it was cut off or changed: the digest is not that of its content"));
    }
    let unpacked = bincode::serde::decode_from_slice(body, bincode::config::standard());
    let (Body { text, choices }, _) =
        unpacked.map_err(|error| damaged(&format!("its content cannot be read: {error}")))?;
    let mut replay = Replay::from_text(&text)?;
    for (key, value, cause) in choices {
        replay.case.overrides.values.insert(ChoiceKey(key), value);
        if !cause.is_empty() {
            replay.causes.insert(ChoiceKey(key), cause);
        }
    }
    Ok(replay)
}

fn little_endian(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| (number << 8) | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::explore::{Case, Expected, Shrunk};

    /// A replay with so many choices.
    fn replay(choices: u64) -> Replay {
        let mut case = Case::default();
        let keys = || (0..choices).map(|n| ChoiceKey(Digest::of(&n)));
        case.overrides.values = keys().zip(1..).collect();
        Replay {
            busplay: VERSION,
            name: "orders".to_owned(),
            with: BTreeMap::from([("form".to_owned(), "sound".to_owned())]),
            expect: Expected {
                guarantee: "order arrives".to_owned(),
                sentence: "it did not".to_owned(),
                trace: "0123456789abcdef".to_owned(),
                events: 7,
            },
            shrunk: Shrunk::default(),
            case,
            causes: keys().map(|key| (key, format!("Latency: message {key}"))).collect(),
        }
    }

    #[test]
    fn a_large_replay_is_packed_and_both_are_read() {
        let (small, large) = (replay(10), replay(20_000));
        assert_eq!(small.to_bytes(), small.to_text().into_bytes());
        let packed = large.to_bytes();
        let (length, text) = (packed.len(), large.to_text());
        assert!(is_packed(&packed) && length * 3 < text.len() * 2, "{length} of {}", text.len());
        assert_eq!(Replay::from_bytes(&packed).unwrap(), large);
        let without_comments = Replay { causes: BTreeMap::new(), ..small.clone() };
        assert_eq!(Replay::from_bytes(&small.to_bytes()).unwrap(), without_comments);
        // And back to text.
        assert_eq!(Replay::from_bytes(&packed).unwrap().to_text(), text);
    }

    #[test]
    fn what_is_cut_off_changed_foreign_or_of_another_version_is_refused() {
        let packed = pack(&replay(100));
        let refused = |bytes: &[u8]| Replay::from_bytes(bytes).unwrap_err();
        for end in [8, 12, BODY - 1, BODY, packed.len() - 1] {
            let error = refused(&packed[..end]);
            assert!(matches!(error, ReplayError::Damaged { .. }), "{end}: {error}");
        }
        let mut changed = packed.clone();
        changed[BODY + 40] ^= 1;
        assert!(matches!(refused(&changed), ReplayError::Damaged { .. }));
        let mut longer = packed.clone();
        longer.push(0);
        assert!(matches!(refused(&longer), ReplayError::Damaged { .. }));
        let mut other = packed;
        other[MAGIC.len()] = 7;
        assert!(matches!(refused(&other), ReplayError::Version { found: 7 }));
        assert!(matches!(refused(b"\x89PNG\r\n\x1a\n\0\0"), ReplayError::Foreign));
        assert!(matches!(refused(b"\xff\xfe"), ReplayError::Foreign));
    }
}
