use candle_core::DType;
use wan_core::{Result, WeightSet};

use crate::names::canonical;

/// Bytes of a DiT's weights as its file stores them, which is how they lie on a GPU.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DitWeightSizes {
    /// All tensors as stored, unused ones not counted.
    pub stored: u64,
    /// Each block on a GPU, in order.
    pub blocks: Vec<BlockSize>,
    /// Everything outside of the blocks, on a GPU.
    pub outside: u64,
    /// The largest matrix in the dtype that it is multiplied in, which a product has beside one that is stored in another;
    /// 0 if there is none. That is bf16, and f32 for what is made of the timestep.
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
        // Not more than the configuration may state: a name's number is no reason to take memory.
        let blocks = weights.count("blocks").min(crate::config::MOST_BLOCKS);
        let mut sizes = Self { blocks: vec![BlockSize::default(); blocks], ..Self::default() };
        for (name, tensor) in weights.names().zip(weights.iter()) {
            let stored = tensor.bytes().len() as u64;
            sizes.stored += stored;
            let multiplied =
                if name.starts_with("time_") || name.starts_with("head.") { DType::F32 } else { DType::BF16 };
            if tensor.shape().len() == 2 && tensor.dtype() != multiplied {
                let widened = (tensor.elements() * multiplied.size_in_bytes()) as u64;
                sizes.dequantised = sizes.dequantised.max(widened);
            }
            let block = name.strip_prefix("blocks.").and_then(|rest| rest.split_once('.'));
            let place = block.and_then(|(number, part)| Some((number.parse::<usize>().ok()?, part)));
            match place.and_then(|(number, part)| Some((sizes.blocks.get_mut(number)?, part))) {
                Some((block, part)) if makes_keys(part) => block.once += stored,
                Some((block, _)) => block.recurring += stored,
                None => sizes.outside += stored,
            }
        }
        Ok(sizes)
    }
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
    use wan_core::Stored;
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
        assert_eq!((second.recurring, second.once), (16 * 8 * 4, 128));
        // The feed-forward's matrix from f32 to bf16; the time projection is multiplied in f32, as it is stored.
        assert_eq!((sizes.outside, sizes.dequantised), (2 * 8 * 4 + 48 * 8 * 4, 16 * 8 * 2));
        assert_eq!(sizes.stored, 64 + 1536 + 192 + 64 + 64 + 32 + 512 + 128);
    }
}
