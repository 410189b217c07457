use candle_core::{Device, Tensor};
use wan_core::{Loader, Result};

/// Distance at and beyond which all keys share the last bucket.
const MAX_DISTANCE: f32 = 128.0;

/// One block's table of relative-position biases. Unlike in T5, every block of UMT5 has its own.
///
/// Source: Wan2.1 `wan/modules/t5.py`, `T5RelativeEmbedding` (bidirectional).
#[derive(Debug, Clone)]
pub(crate) struct RelativeBias {
    /// `[heads, buckets]` f32: transposed, so that a lookup writes each head's scores in one run.
    table: Tensor,
}

impl RelativeBias {
    /// Takes `embedding.weight` `[num_buckets, num_heads]`.
    pub(crate) fn load(loader: &Loader, num_buckets: usize, num_heads: usize) -> Result<Self> {
        let table = loader.tensor("embedding.weight", &[num_buckets, num_heads])?;
        Ok(Self { table: table.t()?.contiguous()? })
    }

    /// The bias of every pair: `buckets` `[L * L]` u32 from [`buckets`], result `[heads, L, L]` f32.
    pub(crate) fn forward(&self, buckets: &Tensor, tokens: usize) -> Result<Tensor> {
        let heads = self.table.dim(0)?;
        Ok(self.table.index_select(buckets, 1)?.reshape((heads, tokens, tokens))?) // [heads, L, L]
    }
}

/// The bucket of every pair (query i, key j) of tokens at `positions`: `[L * L]` u32, key fastest.
pub(crate) fn buckets(positions: &[u32], num_buckets: usize, device: &Device) -> Result<Tensor> {
    let pairs = positions
        .iter()
        .flat_map(|i| positions.iter().map(move |j| bucket(i64::from(*j) - i64::from(*i), num_buckets)))
        .collect::<Vec<u32>>();
    let count = pairs.len();
    Ok(Tensor::from_vec(pairs, count, device)?)
}

/// Bucket of a key `offset` tokens after its query (before it, if negative).
///
/// Half of the buckets are for positive offsets. Of each half, one half again holds single distances and the
/// rest grow logarithmically up to [`MAX_DISTANCE`]. In f32, as the reference computes it: the floor of a
/// quotient of logarithms depends on it.
fn bucket(offset: i64, num_buckets: usize) -> u32 {
    let per_sign = (num_buckets / 2) as u32;
    let sign = if offset > 0 { per_sign } else { 0 };
    let exact = per_sign / 2;
    let distance = offset.unsigned_abs();
    if distance < u64::from(exact) {
        return sign + distance as u32;
    }
    let span = (f64::from(MAX_DISTANCE) / f64::from(exact)).ln() as f32;
    let steps = (distance as f32 / exact as f32).ln() / span * (per_sign - exact) as f32;
    sign + (exact + steps as u32).min(per_sign - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_of_the_published_model() {
        // 32 buckets: first distance of each bucket of one sign.
        const FIRST: [i64; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 23, 32, 46, 64, 91];
        for distance in 0..600i64 {
            let want = FIRST.iter().rposition(|first| *first <= distance).unwrap() as u32;
            assert_eq!(bucket(-distance, 32), want, "-{distance}");
            if distance > 0 {
                assert_eq!(bucket(distance, 32), 16 + want, "+{distance}");
            }
        }
    }

    #[test]
    fn the_bias_of_a_pair_is_its_buckets_entry() {
        // The value of bucket b for head h is 100 h + b.
        let table =
            Tensor::from_iter((0..2).flat_map(|h| (0..32).map(move |b| (100 * h + b) as f32)), &Device::Cpu);
        let bias = RelativeBias { table: table.unwrap().reshape((2, 32)).unwrap() };
        let pairs = buckets(&[0, 1, 40], 32, &Device::Cpu).unwrap();
        let found = bias.forward(&pairs, 3).unwrap().to_vec3::<f32>().unwrap();
        let first = [[0., 17., 28.], [1., 0., 28.], [12., 12., 0.]]; // rows are queries
        assert_eq!(found[0], first);
        assert_eq!(found[1], first.map(|row| row.map(|b| b + 100.)));
    }
}
