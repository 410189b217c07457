use candle_core::Tensor;
use wan_core::{Loader, Result};
use wan_ops::{Activation, Linear, attention, channel_rms_norm};

/// Self-attention of one head over the positions of each frame by itself: `x + proj(attend(norm(x)))`.
///
/// Source: Wan2.1 `wan/modules/vae.py`, `AttentionBlock`.
#[derive(Debug)]
pub(crate) struct MidAttention {
    norm: Tensor,
    to_qkv: Linear,
    proj: Linear,
    channels: usize,
}

impl MidAttention {
    pub fn load(loader: &Loader, channels: usize) -> Result<Self> {
        Ok(Self {
            norm: loader.pp("norm").tensor("gamma", &[channels])?,
            to_qkv: Linear::load(&loader.pp("to_qkv"), channels, 3 * channels)?,
            proj: Linear::load(&loader.pp("proj"), channels, channels)?,
            channels,
        })
    }

    /// `[T, H, W, C]` to the same shape.
    pub fn forward(&self, x: Tensor) -> Result<Tensor> {
        let (t, h, w, c) = x.dims4()?;
        let scale = 1.0 / (self.channels as f32).sqrt();
        let y = channel_rms_norm(&x, &self.norm, Activation::Identity)?;
        let qkv = self.to_qkv.forward(&y)?.reshape((t, h * w, 3, 1, c))?;
        let part = |frame: &Tensor, i: usize| frame.narrow(1, i, 1)?.squeeze(1)?.contiguous();
        let frames = (0..t)
            .map(|t| {
                let frame = qkv.narrow(0, t, 1)?.squeeze(0)?; // [h w, 3, 1, C]
                attention(&part(&frame, 0)?, &part(&frame, 1)?, &part(&frame, 2)?, scale, None)
            })
            .collect::<Result<Vec<_>>>()?;
        let y = Tensor::stack(&frames, 0)?.reshape((t, h, w, c))?;
        Ok((x + self.proj.forward(&y)?)?)
    }
}
