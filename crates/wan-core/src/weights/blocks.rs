//! GGUF's quantised blocks: runs of values that share factors.
//!
//! Source: ggml `ggml-common.h` for the layouts, which candle opens.

use candle_core::CpuStorage;
use candle_core::quantized::GgmlDType;

/// Blocks that are opened at once, to bound the memory that it takes.
const CHUNK: usize = 64;

/// A quantisation whose tensors are whole blocks, each of as many values in as many bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are ggml's")]
pub enum BlockFormat {
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2K,
    Q3K,
    Q4K,
    Q5K,
    Q6K,
}

impl BlockFormat {
    /// All formats that can be read.
    pub const ALL: [Self; 10] = [
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q8_0,
        Self::Q2K,
        Self::Q3K,
        Self::Q4K,
        Self::Q5K,
        Self::Q6K,
    ];

    /// Name as in GGUF, such as `Q4_K`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Q4_0 => "Q4_0",
            Self::Q4_1 => "Q4_1",
            Self::Q5_0 => "Q5_0",
            Self::Q5_1 => "Q5_1",
            Self::Q8_0 => "Q8_0",
            Self::Q2K => "Q2_K",
            Self::Q3K => "Q3_K",
            Self::Q4K => "Q4_K",
            Self::Q5K => "Q5_K",
            Self::Q6K => "Q6_K",
        }
    }

    /// Values of a block.
    pub fn values(self) -> usize {
        self.ggml().block_size()
    }

    /// Bytes of a block.
    pub fn bytes(self) -> usize {
        self.ggml().type_size()
    }

    /// Bytes of `count` values; `None` where they are no whole blocks.
    pub(super) fn size(self, count: usize) -> Option<usize> {
        count.is_multiple_of(self.values()).then(|| count / self.values())?.checked_mul(self.bytes())
    }

    /// The values of whole `blocks` from flat index `start` on, as f32.
    pub(super) fn widen(self, blocks: &[u8], start: usize, out: &mut [f32]) {
        let (values, bytes) = (self.values(), self.bytes());
        let (mut at, mut rest) = (start, out);
        while !rest.is_empty() {
            let (first, inside) = (at / values, at % values);
            let count = (inside + rest.len()).div_ceil(values).min(CHUNK);
            let opened = self.open(&blocks[first * bytes..(first + count) * bytes]);
            let (part, after) = rest.split_at_mut((count * values - inside).min(rest.len()));
            part.copy_from_slice(&opened[inside..inside + part.len()]);
            (at, rest) = (at + part.len(), after);
        }
    }

    fn open(self, blocks: &[u8]) -> Vec<f32> {
        let count = blocks.len() / self.bytes() * self.values();
        let storage = match blocks.as_ptr().cast::<u16>().is_aligned() {
            true => self.ggml().from_data(blocks.into()),
            false => {
                // Blocks begin with or hold an f16, which a file need not align.
                let mut copy = Vec::<u8>::with_capacity(blocks.len() + 1);
                let gap = usize::from(!copy.as_ptr().cast::<u16>().is_aligned());
                copy.resize(gap, 0);
                copy.extend_from_slice(blocks);
                self.ggml().from_data(copy[gap..].into())
            }
        };
        match storage.dequantize(count) {
            Ok(CpuStorage::F32(values)) => values,
            other => unreachable!("blocks of {} became {other:?}", self.name()),
        }
    }

    pub(super) fn ggml(self) -> GgmlDType {
        match self {
            Self::Q4_0 => GgmlDType::Q4_0,
            Self::Q4_1 => GgmlDType::Q4_1,
            Self::Q5_0 => GgmlDType::Q5_0,
            Self::Q5_1 => GgmlDType::Q5_1,
            Self::Q8_0 => GgmlDType::Q8_0,
            Self::Q2K => GgmlDType::Q2K,
            Self::Q3K => GgmlDType::Q3K,
            Self::Q4K => GgmlDType::Q4K,
            Self::Q5K => GgmlDType::Q5K,
            Self::Q6K => GgmlDType::Q6K,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_ggml() {
        let sizes = BlockFormat::ALL.map(|format| (format.name(), format.values(), format.bytes()));
        let want = [
            ("Q4_0", 32, 18),
            ("Q4_1", 32, 20),
            ("Q5_0", 32, 22),
            ("Q5_1", 32, 24),
            ("Q8_0", 32, 34),
            ("Q2_K", 256, 84),
            ("Q3_K", 256, 110),
            ("Q4_K", 256, 144),
            ("Q5_K", 256, 176),
            ("Q6_K", 256, 210),
        ];
        assert_eq!(sizes, want);
    }

    /// Blocks may lie anywhere, and parts of them begin and end anywhere.
    #[test]
    fn values_are_read_from_any_place() {
        for format in BlockFormat::ALL {
            let blocks = CHUNK + 3;
            let bytes: Vec<u8> = (0..blocks * format.bytes()).map(|i| (i * 37 % 113) as u8).collect();
            let mut all = vec![0f32; blocks * format.values()];
            format.widen(&bytes, 0, &mut all);
            let moved = [&[0][..], &bytes].concat();
            for (from, to) in [(0, all.len()), (1, 2), (30, 300), (255, all.len() - 1)] {
                let mut part = vec![0f32; to - from];
                format.widen(&moved[1..], from, &mut part);
                assert!(
                    part.iter().zip(&all[from..to]).all(|(a, b)| a.to_bits() == b.to_bits()),
                    "{format:?}"
                );
            }
        }
    }
}
