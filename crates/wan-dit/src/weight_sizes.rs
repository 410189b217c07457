use wan_core::memory::device_bytes;
use wan_core::{Result, Stored, WeightSet};

use crate::names::canonical;

/// Bytes of a DiT's weights: as its file stores them, and as they lie on a GPU.
///
/// A GPU takes a matrix as stored, FP8 and Q8_0 included; only an f32 matrix of a block is rounded to bf16, in which
/// it is multiplied anyway. Vectors, and what lies outside of the blocks, keep their dtype.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DitWeightSizes {
    /// All tensors as stored, unused ones not counted.
    pub stored: u64,
    /// Each block on a GPU, in order.
    pub blocks: Vec<BlockSize>,
    /// Everything outside of the blocks, on a GPU.
    pub outside: u64,
    /// The largest matrix widened to bf16, which a product in bf16 has beside an FP8 or Q8_0 weight; 0 if all matrices
    /// are wider.
    pub dequantised: u64,
}

/// Bytes of one block's weights on a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BlockSize {
    /// What every forward reads.
    pub recurring: u64,
    /// The matrices that make cross-attention's keys and values: read once per job, then given back.
    pub once: u64,
}

impl DitWeightSizes {
    /// Reads the sizes off headers; `weights` in any supported naming.
    ///
    /// Errors: `WeightsError::UnknownNaming`.
    pub fn read(weights: &WeightSet) -> Result<Self> {
        let weights = canonical(weights)?;
        let mut sizes =
            Self { blocks: vec![BlockSize::default(); weights.count("blocks")], ..Self::default() };
        for (name, tensor) in weights.names().zip(weights.iter()) {
            let stored = tensor.bytes().len() as u64;
            sizes.stored += stored;
            if tensor.shape().len() == 2 && stored < 2 * tensor.elements() as u64 {
                sizes.dequantised = sizes.dequantised.max(2 * tensor.elements() as u64);
            }
            let block = name.strip_prefix("blocks.").and_then(|rest| rest.split_once('.'));
            let place = block.and_then(|(number, part)| Some((number.parse::<usize>().ok()?, part)));
            match place.and_then(|(number, part)| Some((sizes.blocks.get_mut(number)?, part))) {
                Some((block, part)) if makes_keys(part) => block.once += block_bytes(tensor),
                Some((block, _)) => block.recurring += block_bytes(tensor),
                None => sizes.outside += stored,
            }
        }
        Ok(sizes)
    }
}

/// The modulation's table is no matrix, though it has axes enough for one.
fn block_bytes(tensor: &Stored) -> u64 {
    if tensor.shape().len() == 2 { device_bytes(tensor) } else { tensor.bytes().len() as u64 }
}

/// Whether a block's tensor only serves to make the keys and values of text and image.
fn makes_keys(part: &str) -> bool {
    ["k.", "v.", "k_img.", "v_img.", "norm_k.", "norm_k_img."]
        .iter()
        .any(|name| part.strip_prefix("cross_attn.").is_some_and(|rest| rest.starts_with(name)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::DType;
    use wan_core::weights::Bytes;

    #[test]
    fn blocks_are_counted_by_what_reads_them() {
        let tensor = |name: &str, dtype: DType, shape: &[usize]| {
            let bytes = shape.iter().product::<usize>() * dtype.size_in_bytes();
            Stored::new(name, dtype, shape.to_vec(), Bytes::new(vec![0u8; bytes])).unwrap()
        };
        let set = WeightSet::from_tensors(
            "set",
            [
                tensor("head.modulation", DType::F32, &[1, 2, 8]),
                tensor("time_projection.1.weight", DType::F32, &[48, 8]),
                tensor("blocks.0.modulation", DType::F32, &[1, 6, 8]),
                tensor("blocks.0.cross_attn.q.weight", DType::F8E4M3, &[8, 8]),
                tensor("blocks.0.cross_attn.k.weight", DType::F8E4M3, &[8, 8]),
                tensor("blocks.0.cross_attn.norm_k_img.weight", DType::F32, &[8]),
                tensor("blocks.1.ffn.0.weight", DType::F32, &[16, 8]),
                tensor("blocks.1.cross_attn.v_img.weight", DType::BF16, &[8, 8]),
            ],
        );
        let sizes = DitWeightSizes::read(&set).unwrap();
        let [first, second] = sizes.blocks[..] else { panic!("{sizes:?}") };
        assert_eq!((first.recurring, first.once), (6 * 8 * 4 + 64, 64 + 32));
        assert_eq!((second.recurring, second.once), (16 * 8 * 2, 128));
        assert_eq!((sizes.outside, sizes.dequantised), (2 * 8 * 4 + 48 * 8 * 4, 128));
        assert_eq!(sizes.stored, 64 + 1536 + 192 + 64 + 64 + 32 + 512 + 128);
    }
}
