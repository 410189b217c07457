//! The Mersenne Twister MT19937 (Matsumoto and Nishimura, 1998), as torch's CPU generator seeds it.

/// Words of the state.
pub(crate) const STATE_WORDS: usize = 624;
const SHIFT_WORDS: usize = 397;
const UPPER_BIT: u32 = 0x8000_0000;
const TWIST: u32 = 0x9908_b0df;

/// Generator of uniform 32-bit words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mt19937 {
    words: [u32; STATE_WORDS],
    /// Next word to be given out; `STATE_WORDS` when the block is used up.
    next: usize,
}

impl Mt19937 {
    pub(crate) fn seed(seed: u32) -> Self {
        let mut words = [0; STATE_WORDS];
        words[0] = seed;
        for j in 1..STATE_WORDS {
            let previous = words[j - 1];
            words[j] = 1_812_433_253_u32.wrapping_mul(previous ^ (previous >> 30)).wrapping_add(j as u32);
        }
        Self { words, next: STATE_WORDS }
    }

    /// The state words and the index of the next one.
    pub(crate) fn parts(&self) -> (&[u32], usize) {
        (&self.words, self.next)
    }

    /// The inverse of [`Self::parts`]; `None` unless there are 624 words and `next` is at most 624.
    pub(crate) fn from_parts(words: &[u32], next: usize) -> Option<Self> {
        let words = words.try_into().ok()?;
        (next <= STATE_WORDS).then_some(Self { words, next })
    }

    pub(crate) fn next_u32(&mut self) -> u32 {
        if self.next == STATE_WORDS {
            self.twist();
        }
        let mut y = self.words[self.next];
        self.next += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    /// Two words, the first one in the upper half.
    pub(crate) fn next_u64(&mut self) -> u64 {
        let high = u64::from(self.next_u32());
        high << 32 | u64::from(self.next_u32())
    }

    fn twist(&mut self) {
        for j in 0..STATE_WORDS {
            let joined = (self.words[j] & UPPER_BIT) | (self.words[(j + 1) % STATE_WORDS] & !UPPER_BIT);
            let twist = if joined & 1 == 1 { TWIST } else { 0 };
            self.words[j] = self.words[(j + SHIFT_WORDS) % STATE_WORDS] ^ (joined >> 1) ^ twist;
        }
        self.next = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_check_values() {
        assert_eq!(Mt19937::seed(42).next_u32(), 1_608_637_542);
        // The 10,000th word for the default seed, stated in the C++ standard, [rand.predef].
        let mut rng = Mt19937::seed(5489);
        let last = (0..10_000).map(|_| rng.next_u32()).last();
        assert_eq!(last, Some(4_123_659_995));
    }

    #[test]
    fn parts_restore_mid_block() {
        let mut rng = Mt19937::seed(7);
        for _ in 0..1000 {
            rng.next_u32();
        }
        let (words, next) = rng.parts();
        let mut restored = Mt19937::from_parts(words, next).unwrap();
        for _ in 0..1000 {
            assert_eq!(restored.next_u32(), rng.next_u32());
        }
        assert!(Mt19937::from_parts(&[0; 623], 0).is_none());
        assert!(Mt19937::from_parts(&[0; 624], 625).is_none());
    }
}
