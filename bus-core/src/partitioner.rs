//! Which partition a record goes to: the explicit one, Kafka's murmur2 of its key, or a sticky one.
//!
//! Every backend hashes with [`murmur2`], so a key lands in the same partition everywhere
//! (librdkafka calls this partitioner `murmur2_random`, Java's producer has it built in). A record
//! with neither partition nor key goes to a *sticky* partition: one that stays until a batch is
//! full or lingered out, because that makes fewer and larger batches (KIP-480).

use crate::record::Partition;

/// Kafka's hash of keys: murmur2, 32 bits, with Kafka's seed.
///
/// Source: `org.apache.kafka.common.utils.Utils.murmur2`.
///
/// ```
/// assert_eq!(bus_core::partitioner::murmur2(b"abc"), 479470107);
/// ```
#[expect(clippy::cast_possible_wrap, reason = "Kafka's hash is a signed number of the same bits")]
pub fn murmur2(data: &[u8]) -> i32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    const R: u32 = 24;

    #[expect(clippy::cast_possible_truncation, reason = "a key of 4 GiB does not fit in a record")]
    let mut hash = SEED ^ data.len() as u32;
    let mut words = data.chunks_exact(4);
    for word in &mut words {
        let mut k = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
        k = k.wrapping_mul(M);
        k ^= k >> R;
        k = k.wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ k;
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        for (i, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * i);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^= hash >> 15;
    hash as i32
}

/// The partition of a key in a topic of `partitions` partitions.
///
/// An empty key is a key; only a null key has none.
///
/// # Panics
/// If `partitions` is not positive: a topic has at least one.
pub fn partition_for_key(key: &[u8], partitions: Partition) -> Partition {
    assert!(partitions > 0, "a topic has at least one partition");
    (murmur2(key) & 0x7fff_ffff) % partitions
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors of Kafka's own `UtilsTest.testMurmur2`.
    #[test]
    fn murmur2_equals_kafkas_vectors() {
        for (key, hash) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(key.as_bytes()), hash, "{key}");
        }
    }

    #[test]
    fn partitions_of_negative_hashes_are_in_range() {
        assert!(murmur2(b"21") < 0);
        for partitions in 1..50 {
            assert!((0..partitions).contains(&partition_for_key(b"21", partitions)));
        }
    }
}
