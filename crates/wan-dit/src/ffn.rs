use candle_core::Tensor;
use wan_core::{Loader, Result};
use wan_ops::{Activation, Linear, Precision};

use crate::config::DitConfig;

/// Rows computed at once. Bounds the hidden activations, which are the largest of a block; enough rows are left
/// to fill any device.
const ROWS: usize = 8192;

/// The feed-forward: `second(gelu_tanh(first(x)))`.
///
/// Source: Wan2.1 `wan/modules/model.py`, WanAttentionBlock.ffn.
#[derive(Debug)]
pub(crate) struct FeedForward {
    first: Linear,
    second: Linear,
}

impl FeedForward {
    /// Takes `0` and `2`.
    pub(crate) fn load(loader: &Loader, config: &DitConfig) -> Result<Self> {
        Ok(Self {
            first: Linear::load(&loader.pp("0"), config.dim, config.ffn_dim)?,
            second: Linear::load(&loader.pp("2"), config.ffn_dim, config.dim)?,
        })
    }

    /// The same, multiplied as `precision` says.
    pub(crate) fn with_precision(self, precision: Precision) -> Self {
        Self { first: self.first.with_precision(precision), second: self.second.with_precision(precision) }
    }

    /// Its layers.
    pub(crate) fn layers(&self) -> [&Linear; 2] {
        [&self.first, &self.second]
    }

    /// `x`: `[L, dim]`; returns the same shape and dtype.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.forward_chunks(x, ROWS)
    }

    fn forward_chunks(&self, x: &Tensor, rows: usize) -> Result<Tensor> {
        let l = x.dim(0)?;
        let part = |x: &Tensor| self.second.forward(&self.first.forward_act(x, Activation::GeluTanh)?);
        if l <= rows {
            return part(x);
        }
        let parts = (0..l).step_by(rows).map(|start| part(&x.narrow(0, start, rows.min(l - start))?));
        Ok(Tensor::cat(&parts.collect::<Result<Vec<_>>>()?, 0)?)
    }

    /// Values of results and hidden rows held at once for `tokens` tokens: several chunks are joined at the end.
    pub(crate) fn result_values(tokens: usize, dim: usize, ffn_dim: usize) -> usize {
        let copies = if tokens > ROWS { 2 } else { 1 };
        (copies * tokens * dim).max(tokens * dim + Self::hidden_values(tokens, ffn_dim))
    }

    /// Hidden values held at once for `tokens` tokens.
    pub(crate) fn hidden_values(tokens: usize, ffn_dim: usize) -> usize {
        tokens.min(ROWS) * ffn_dim
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;
    use wan_core::Stored;
    use wan_core::testkit::assert_close;

    #[test]
    fn chunks_of_rows_give_the_whole() {
        let random = |shape: &[usize]| Tensor::randn(0f32, 1.0, shape, &Device::Cpu).unwrap();
        let linear = |inputs: usize, outputs: usize| {
            let weight = Stored::from_tensor("weight", &random(&[outputs, inputs])).unwrap();
            Linear::new(weight, Some(random(&[outputs])))
        };
        let ffn = FeedForward { first: linear(6, 10), second: linear(10, 6) };
        let x = random(&[11, 6]);
        let whole = ffn.forward(&x).unwrap();
        for rows in [1, 4, 10, 11] {
            assert_close(&format!("{rows} rows"), &ffn.forward_chunks(&x, rows).unwrap(), &whole, 1e-6);
        }
    }

    /// A row's sums do not depend on the rows beside it, as long as there are enough to multiply them in tiles.
    #[test]
    fn a_row_has_the_same_bits_in_any_chunk() {
        let random = |shape: &[usize]| Tensor::randn(0f32, 1.0, shape, &Device::Cpu).unwrap();
        let linear = |inputs: usize, outputs: usize| {
            let weight = Stored::from_tensor("weight", &random(&[outputs, inputs])).unwrap();
            Linear::new(weight, Some(random(&[outputs])))
        };
        let ffn = FeedForward { first: linear(70, 300), second: linear(300, 70) };
        let x = random(&[120, 70]);
        let bits = |t: Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let whole = bits(ffn.forward(&x).unwrap());
        for rows in [8, 24, 56, 100] {
            assert_eq!(bits(ffn.forward_chunks(&x, rows).unwrap()), whole, "{rows} rows");
        }
    }
}
