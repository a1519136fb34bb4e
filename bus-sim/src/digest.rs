//! A fast 64-bit hash with a fixed start, for traces and choices. Not for untrusted input.

use std::hash::{Hash, Hasher};

/// Hashes what is written to it; equal input gives an equal digest in every process.
#[derive(Clone, Copy, Debug)]
pub struct Digest(u64);

impl Digest {
    /// The empty digest.
    pub const fn new() -> Self {
        Self(0x9e37_79b9_7f4a_7c15)
    }

    /// The digest of one value.
    pub fn of(value: &(impl Hash + ?Sized)) -> u64 {
        let mut digest = Self::new();
        value.hash(&mut digest);
        digest.finish()
    }

    const fn mix(&mut self, word: u64) {
        // Folded multiplication, as in wyhash: one multiplication spreads every bit.
        let product = (self.0 ^ word) as u128 * 0xa076_1d64_78bd_642f_u128;
        #[expect(clippy::cast_possible_truncation, reason = "both halves are folded together")]
        let folded = (product as u64) ^ ((product >> 64) as u64);
        self.0 = folded ^ word.rotate_left(32);
    }
}

impl Default for Digest {
    fn default() -> Self {
        Self::new()
    }
}

impl Hasher for Digest {
    fn write(&mut self, bytes: &[u8]) {
        let mut words = bytes.chunks_exact(8);
        for word in &mut words {
            let mut array = [0; 8];
            array.copy_from_slice(word);
            self.mix(u64::from_le_bytes(array));
        }
        let rest = words.remainder();
        if !rest.is_empty() {
            let mut array = [0; 8];
            array[..rest.len()].copy_from_slice(rest);
            self.mix(u64::from_le_bytes(array) ^ ((rest.len() as u64) << 56));
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.mix(value.into());
    }

    fn write_u16(&mut self, value: u16) {
        self.mix(value.into());
    }

    fn write_u32(&mut self, value: u32) {
        self.mix(value.into());
    }

    fn write_u64(&mut self, value: u64) {
        self.mix(value);
    }

    fn write_usize(&mut self, value: usize) {
        self.mix(value as u64);
    }

    fn finish(&self) -> u64 {
        let mut last = *self;
        last.mix(0x1d8e_4e27_c47d_124f);
        last.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_do_not_change_between_versions() {
        // Golden traces depend on it.
        assert_eq!(Digest::of(&(1_u32, "orders", [1_u8, 2, 3])), 4_557_271_360_141_114_599);
    }

    #[test]
    fn the_length_of_the_tail_counts() {
        let digest = |bytes: &[u8]| {
            let mut digest = Digest::new();
            digest.write(bytes);
            digest.finish()
        };
        assert_ne!(digest(b"a"), digest(b"a\0"));
        assert_ne!(digest(b"12345678"), digest(b"12345678\0"));
    }
}
