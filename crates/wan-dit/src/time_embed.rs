use candle_core::{Device, Tensor};
use wan_core::{Loader, Result};
use wan_ops::{Activation, Linear, activate};

use crate::config::DitConfig;

/// Longest period of the sinusoids, in units of 2 pi timesteps.
const MAX_PERIOD: f64 = 10000.0;

/// From a timestep to what modulates the blocks and the head. Always f32: a bf16 modulation is visible.
///
/// Source: Wan2.1 `wan/modules/model.py`, WanModel.time_embedding and time_projection.
#[derive(Debug)]
pub(crate) struct TimeEmbedding {
    first: Linear,
    second: Linear,
    projection: Linear,
    freq_dim: usize,
    dim: usize,
    device: Device,
}

/// A timestep, embedded. Both f32.
pub(crate) struct TimeEmbeds {
    /// `[dim]`: modulates the head.
    pub(crate) embedding: Tensor,
    /// `[6, dim]`: added to each block's modulation.
    pub(crate) projection: Tensor,
}

impl TimeEmbedding {
    /// Takes `time_embedding.{0,2}` and `time_projection.1`; `loader` is the model's own.
    pub(crate) fn load(loader: &Loader, config: &DitConfig) -> Result<Self> {
        let dim = config.dim;
        Ok(Self {
            first: Linear::load(&loader.pp("time_embedding.0"), config.freq_dim, dim)?,
            second: Linear::load(&loader.pp("time_embedding.2"), dim, dim)?,
            projection: Linear::load(&loader.pp("time_projection.1"), dim, 6 * dim)?,
            freq_dim: config.freq_dim,
            dim,
            device: loader.device().clone(),
        })
    }

    /// `[1, dim]` f32; `timestep` in [0, 1000].
    pub(crate) fn embedding(&self, timestep: f32) -> Result<Tensor> {
        let s = Tensor::from_vec(sinusoid(timestep, self.freq_dim), (1, self.freq_dim), &self.device)?;
        self.second.forward(&self.first.forward_act(&s, Activation::Silu)?)
    }

    /// `timestep` in [0, 1000].
    pub(crate) fn forward(&self, timestep: f32) -> Result<TimeEmbeds> {
        let embedding = self.embedding(timestep)?;
        let projection = self.projection.forward(&activate(&embedding, Activation::Silu)?)?; // [1, 6 dim]
        Ok(TimeEmbeds {
            embedding: embedding.reshape(self.dim)?,
            projection: projection.reshape((6, self.dim))?,
        })
    }
}

/// `freq_dim` values, cosines first: `cos(t w_j)`, then `sin(t w_j)`, `w_j = 10000^(-2j/freq_dim)`; f64 inside.
fn sinusoid(timestep: f32, freq_dim: usize) -> Vec<f32> {
    let half = freq_dim / 2;
    let angle = |j: usize| f64::from(timestep) * MAX_PERIOD.powf(-(j as f64) / half as f64);
    let cosines = (0..half).map(|j| angle(j).cos() as f32);
    cosines.chain((0..half).map(|j| angle(j).sin() as f32)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cosines_come_first() {
        let s = sinusoid(735.0, 256);
        assert_eq!(s.len(), 256);
        for (i, want) in [
            (0, 0.991211f32),
            (1, 0.624154),
            (2, -0.306263),
            (128, -0.132292),
            (129, -0.781302),
            (130, 0.951947),
        ] {
            assert!((s[i] - want).abs() < 1e-6, "element {i}: {}", s[i]);
        }
    }
}
