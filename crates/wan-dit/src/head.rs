use candle_core::{DType, Tensor};
use wan_core::{Loader, Result};
use wan_ops::{Affine, Linear, RowFormat};

use crate::config::{DitConfig, PATCH_VALUES};
use crate::ffn::ROWS;
use crate::residual::ResidualStream;

/// From tokens to the values of their patches; f32 throughout.
///
/// Source: Wan2.1 `wan/modules/model.py`, Head.
#[derive(Debug)]
pub(crate) struct Head {
    modulation: Tensor, // [2, dim]
    linear: Linear,
    eps: f32,
}

impl Head {
    /// Takes `modulation` and `head`.
    pub(crate) fn load(loader: &Loader, config: &DitConfig) -> Result<Self> {
        let dim = config.dim;
        Ok(Self {
            modulation: loader.tensor("modulation", &[1, 2, dim])?.reshape((2, dim))?,
            linear: Linear::load(&loader.pp("head"), dim, config.out_dim * PATCH_VALUES)?,
            eps: config.eps,
        })
    }

    /// - `time`: the time embedding (not its projection), `[dim]` f32
    /// - returns `[L, 4 * out_dim]` f32, a patch's values in the order (row, column, channel)
    ///
    /// Some rows at a time: all of them, normed in f32, would be the largest activation of a forward.
    pub(crate) fn forward(&self, x: &ResidualStream, time: &Tensor) -> Result<Tensor> {
        let m = self.modulation.broadcast_add(time)?;
        let (shift, scale) = (m.get(0)?, m.get(1)?);
        let affine = Affine::Modulation { shift: &shift, scale: &scale };
        let tokens = x.tokens()?;
        let patches = (0..tokens).step_by(ROWS).map(|start| {
            let mut part = x.narrow(start, ROWS.min(tokens - start))?;
            self.linear.forward_rows(&part.normalise(self.eps, affine, RowFormat::Float(DType::F32))?)
        });
        Ok(Tensor::cat(&patches.collect::<Result<Vec<_>>>()?, 0)?)
    }
}
