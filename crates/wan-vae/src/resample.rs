use candle_core::Tensor;
use wan_core::{Loader, Result};
use wan_ops::{Conv3d, ConvSpec};

use crate::cache::{Cache, Slot, Slots};
use crate::causal_conv::CausalConv;

/// A convolution over (time, height, width) = (3, 1, 1).
const TIME_KERNEL: [usize; 3] = [3, 1, 1];

/// Doubles height and width and halves the channels; with `time`, doubles frames first.
///
/// Source: Wan2.1 `wan/modules/vae.py`, `Resample` with `upsample2d` and `upsample3d`.
#[derive(Debug)]
pub(crate) struct Upsample {
    time: Option<CausalConv>,
    space: Conv3d,
}

impl Upsample {
    pub fn load(loader: &Loader, slots: &mut Slots, channels: usize, temporal: bool) -> Result<Self> {
        let space = ConvSpec { upsample: true, ..ConvSpec::causal(channels, channels / 2, [1, 3, 3]) };
        Ok(Self {
            time: if temporal {
                let time = loader.pp("time_conv");
                Some(CausalConv::load(&time, slots, channels, 2 * channels, TIME_KERNEL)?)
            } else {
                None
            },
            space: Conv3d::load(&loader.pp("resample").pp(1), space)?,
        })
    }

    /// `[T, H, W, C]` to `[T', 2H, 2W, C/2]`, T' = 2T with time doubling except for the first frame.
    pub fn forward(&self, x: Tensor, cache: &mut Cache) -> Result<Tensor> {
        let x = match &self.time {
            // The video's first frame stands alone: it is not doubled, and later frames do not see it here.
            Some(time) if !cache.is_first() => double_frames(time, x, cache)?,
            _ => x,
        };
        self.space.forward(&x, None, None)
    }
}

/// `[T, H, W, C]` to `[2T, H, W, C]`: of the convolution's 2C channels the first C are the even frames.
fn double_frames(time: &CausalConv, x: Tensor, cache: &mut Cache) -> Result<Tensor> {
    let (t, h, w, c) = x.dims4()?;
    let pairs = time.forward(&x, cache, None)?;
    drop(x);
    let pairs = pairs.reshape((t, h, w, 2, c))?.permute((0, 3, 1, 2, 4))?;
    Ok(pairs.contiguous()?.reshape((2 * t, h, w, c))?)
}

/// Halves height and width; with `time`, halves frames after it.
///
/// Source: Wan2.1 `wan/modules/vae.py`, `Resample` with `downsample2d` and `downsample3d`.
#[derive(Debug)]
pub(crate) struct Downsample {
    space: Conv3d,
    time: Option<(Conv3d, Slot)>,
}

impl Downsample {
    pub fn load(loader: &Loader, slots: &mut Slots, channels: usize, temporal: bool) -> Result<Self> {
        // Zeros on the right and at the bottom only.
        let space = ConvSpec {
            stride: [1, 2, 2],
            padding: [0, 1, 0, 1],
            ..ConvSpec::causal(channels, channels, [1, 3, 3])
        };
        // One frame of the past: output j is made of frames 2j-2, 2j-1, 2j.
        let time =
            ConvSpec { stride: [2, 1, 1], front: 1, ..ConvSpec::causal(channels, channels, TIME_KERNEL) };
        Ok(Self {
            space: Conv3d::load(&loader.pp("resample").pp(1), space)?,
            time: if temporal {
                Some((Conv3d::load(&loader.pp("time_conv"), time)?, slots.take()))
            } else {
                None
            },
        })
    }

    /// `[T, H, W, C]` to `[T', H/2, W/2, C]`, T' = T/2 with time halving except for the first frame.
    pub fn forward(&self, x: Tensor, cache: &mut Cache) -> Result<Tensor> {
        let halved = self.space.forward(&x, None, None)?;
        drop(x);
        let Some((time, slot)) = &self.time else { return Ok(halved) };
        let y =
            if cache.is_first() { halved.clone() } else { time.forward(&halved, cache.get(*slot), None)? };
        cache.push(*slot, &halved, time.spec().front)?;
        Ok(y)
    }
}
