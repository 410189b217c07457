use candle_core::{DType, Device};
use wan_core::{Loader, Result};
use wan_ops::{Activation, Linear, Precision, RowFormat, Rows, Sums};

use crate::config::DitConfig;

/// Rows computed at once. Bounds the hidden activations, which are the largest of a block; enough rows are left
/// to fill any device.
pub(crate) const ROWS: usize = 8192;

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

    /// The format in which it takes rows.
    pub(crate) fn row_format(&self, device: &Device, dtype: DType) -> RowFormat {
        self.first.row_format(device, dtype)
    }

    /// `x`: `[L, dim]` of `dtype`, or in FP8; returns `[L, dim]` of `dtype`.
    pub(crate) fn forward(&self, x: &Rows, device: &Device, dtype: DType) -> Result<Sums> {
        self.forward_chunks(x, device, self.second.row_format(device, dtype), ROWS)
    }

    /// `hidden`: the format of the rows between the layers.
    fn forward_chunks(&self, x: &Rows, device: &Device, hidden: RowFormat, rows: usize) -> Result<Sums> {
        let l = x.count()?;
        let parts = (0..l.max(1)).step_by(rows).map(|start| {
            let part = x.narrow(start, rows.min(l - start))?;
            self.first.forward_rows_act(&part, Activation::GeluTanh, hidden)
        });
        self.second.forward_parts(device, (l, hidden.dtype()), parts)
    }

    /// Values of results and hidden rows held at once for `tokens` tokens on the CPU: several chunks are joined at the end.
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
    use candle_core::Tensor;
    use wan_core::Stored;
    use wan_core::testkit::assert_close;
    use wan_ops::quantise;

    const F32: RowFormat = RowFormat::Float(DType::F32);

    fn random(shape: &[usize]) -> Tensor {
        Tensor::randn(0f32, 1.0, shape, &Device::Cpu).unwrap()
    }

    fn finished(sums: Result<Sums>) -> Tensor {
        sums.unwrap().finish().unwrap()
    }

    fn feed_forward(dim: usize, hidden: usize) -> FeedForward {
        let linear = |inputs: usize, outputs: usize| {
            let weight = Stored::from_tensor("weight", &random(&[outputs, inputs])).unwrap();
            Linear::new(weight, Some(random(&[outputs])))
        };
        FeedForward { first: linear(dim, hidden), second: linear(hidden, dim) }
    }

    #[test]
    fn chunks_of_rows_give_the_whole() {
        let ffn = feed_forward(6, 10);
        let x = Rows::Float(random(&[11, 6]));
        let whole = finished(ffn.forward(&x, &Device::Cpu, DType::F32));
        for rows in [1, 4, 10, 11] {
            let found = finished(ffn.forward_chunks(&x, &Device::Cpu, F32, rows));
            assert_close(&format!("{rows} rows"), &found, &whole, 1e-6);
        }
    }

    /// A row's sums do not depend on the rows beside it, as long as there are enough to multiply them in tiles.
    #[test]
    fn a_row_has_the_same_bits_in_any_chunk() {
        let ffn = feed_forward(70, 300);
        let x = random(&[120, 70]);
        let bits = |t: Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        for (x, hidden) in
            [(quantise(&x).unwrap().into(), RowFormat::Quantised(DType::F32)), (Rows::Float(x), F32)]
        {
            let whole = bits(finished(ffn.forward_chunks(&x, &Device::Cpu, hidden, 120)));
            for rows in [8, 24, 56, 100] {
                assert_eq!(
                    bits(finished(ffn.forward_chunks(&x, &Device::Cpu, hidden, rows))),
                    whole,
                    "{rows} rows"
                );
            }
        }
    }

    /// As on a GPU with FP8: the input and the rows between the layers are rounded, which costs what e4m3 does.
    #[test]
    fn rows_in_fp8_are_near() {
        let ffn = feed_forward(70, 300);
        let x = random(&[40, 70]);
        let exact = finished(ffn.forward(&Rows::Float(x.clone()), &Device::Cpu, DType::F32));
        let hidden = RowFormat::Quantised(DType::F32);
        let found = finished(ffn.forward_chunks(&quantise(&x).unwrap().into(), &Device::Cpu, hidden, ROWS));
        assert_close("fp8", &found, &exact, 6e-2);
        assert!(
            wan_core::testkit::distance(&found, &exact).unwrap().relative_l2 > 1e-3,
            "nothing was rounded"
        );
    }
}
