use candle_core::{D, DType, Device, Tensor};
use wan_core::device::to_host;
use wan_core::{Error, Loader, Result};
use wan_ops::Linear;

use crate::cache::{Cache, Slots};
use crate::causal_conv::CausalConv;
use crate::config::{LATENT_MEAN, LATENT_STD, Resample, VaeConfig};
use crate::layers::{Head, Layer, load_middle};
use crate::res_block::ResBlock;
use crate::resample::Upsample;
use crate::tiling::{Blend, Grid, Tiling};

/// Latents to video. Latent frame 0 gives one frame, each later one four.
///
/// Source: Wan2.1 `wan/modules/vae.py`, `Decoder3d` and `WanVAE_.decode`.
#[derive(Debug)]
pub struct VaeDecoder {
    config: VaeConfig,
    conv2: Linear,
    layers: Vec<Layer>,
    slots: usize,
    mean: Tensor,
    std: Tensor,
    device: Device,
    dtype: DType,
}

impl VaeDecoder {
    pub(crate) fn load(loader: &Loader, config: &VaeConfig, dtype: DType) -> Result<Self> {
        let mut slots = Slots::default();
        let root = loader.pp("decoder");
        let (channels, z) = (config.middle_dim(), config.z_dim);
        let conv1 = CausalConv::load(&root.pp("conv1"), &mut slots, z, channels, [3, 3, 3])?;
        let mut layers = vec![Layer::Conv(conv1)];
        layers.extend(load_middle(&root.pp("middle"), &mut slots, channels)?);
        let blocks = root.pp("upsamples");
        let mut next = 0..;
        let mut name = || blocks.pp(next.next().unwrap_or(0));
        let mut channels = channels;
        for level in config.decoder_levels() {
            for i in 0..level.blocks {
                let inputs = if i == 0 { level.inputs } else { level.outputs };
                layers.push(Layer::Residual(ResBlock::load(&name(), &mut slots, inputs, level.outputs)?));
            }
            if level.resample != Resample::None {
                let temporal = level.resample == Resample::SpaceTime;
                layers.push(Layer::Up(Upsample::load(&name(), &mut slots, level.outputs, temporal)?));
            }
            channels = level.outputs;
        }
        layers.push(Layer::Head(Head::load(&root.pp("head"), &mut slots, channels, 3)?));
        Ok(Self {
            config: config.clone(),
            conv2: Linear::load(&loader.pp("conv2"), z, z)?,
            layers,
            slots: slots.count(),
            mean: Tensor::new(&LATENT_MEAN[..z], loader.device())?,
            std: Tensor::new(&LATENT_STD[..z], loader.device())?,
            device: loader.device().clone(),
            dtype,
        })
    }

    /// Decodes all latents at once.
    ///
    /// - `latents`: `[1, z, F, h, w]` float, normalised
    /// - returns `[1, 3, 4(F-1)+1, 8h, 8w]` f32 in [-1, 1]
    ///
    /// Errors: as of [`VaeDecoder::decode_stream`].
    pub fn decode(&self, latents: &Tensor, tiling: Option<&Tiling>) -> Result<Tensor> {
        let mut frames = Vec::new();
        self.decode_stream(latents, tiling, 1, &mut |chunk| {
            frames.push(chunk);
            Ok(())
        })?;
        Ok(Tensor::cat(&frames, 1)?.unsqueeze(0)?)
    }

    /// Decodes latent frame by latent frame, or several of them together; the memory this takes does not depend on the
    /// number of all.
    ///
    /// - `latents`: `[1, z, F, h, w]` float, normalised
    /// - `together`: latent frames that are decoded at a time, after the first (see [`VaeConfig::decode_together`])
    /// - `sink`: takes each chunk of frames in order, `[3, n, 8h, 8w]` f32 in [-1, 1], n = 1 and then 4; an error
    ///   of its stops the decoding
    ///
    /// Errors: [`Error::Shape`]; [`Error::Invalid`] for the tiling; [`Error::NonFinite`]; those of `sink`.
    pub fn decode_stream(
        &self,
        latents: &Tensor,
        tiling: Option<&Tiling>,
        together: usize,
        sink: &mut dyn FnMut(Tensor) -> Result<()>,
    ) -> Result<()> {
        let ([frames, ..], factor) = (self.latent_size(latents)?, self.config.temporal_factor());
        let mut stream = self.stream(tiling);
        sink(stream.next(&latents.narrow(2, 0, 1)?)?)?;
        let together = together.max(1);
        for start in (1..frames).step_by(together) {
            let count = together.min(frames - start);
            let chunk = stream.next(&latents.narrow(2, start, count)?)?;
            for latent in 0..count {
                sink(chunk.narrow(1, latent * factor, factor)?)?;
            }
        }
        Ok(())
    }

    /// Starts a video, to be decoded latent frame by latent frame.
    pub fn stream(&self, tiling: Option<&Tiling>) -> DecodeStream<'_> {
        DecodeStream { decoder: self, tiling: tiling.copied(), frames: 0, plane: None }
    }

    /// The configuration.
    pub fn config(&self) -> &VaeConfig {
        &self.config
    }

    fn expected(&self) -> String {
        format!("[1, {}, F, h, w], none of them 0", self.config.z_dim)
    }

    /// Frames, height and width of latents.
    pub(crate) fn latent_size(&self, latents: &Tensor) -> Result<[usize; 3]> {
        match *latents.dims() {
            [1, c, f, h, w] if c == self.config.z_dim && f * h * w > 0 => Ok([f, h, w]),
            _ => Err(Error::shape("latents", latents.dims(), self.expected())),
        }
    }

    /// Places of a [`Cache`] for this decoder.
    pub(crate) fn slots(&self) -> usize {
        self.slots
    }

    /// Latent frames `[z, T, h, w]` of one tile, T = 1 for the first: `[3, n, 8h, 8w]` f32, not clamped.
    pub(crate) fn chunk(&self, latent: &Tensor, cache: &mut Cache) -> Result<Tensor> {
        let x = latent.permute((1, 2, 3, 0))?.to_device(&self.device)?.to_dtype(DType::F32)?;
        let x = x.broadcast_mul(&self.std)?.broadcast_add(&self.mean)?;
        let mut x = self.conv2.forward(&x.to_dtype(self.dtype)?.contiguous()?)?;
        for layer in &self.layers {
            x = layer.forward(x, cache)?;
        }
        cache.advance();
        Ok(x.to_dtype(DType::F32)?.permute((3, 0, 1, 2))?.contiguous()?)
    }
}

/// A video being decoded. Holds the decoder's memory of the latent frames so far.
#[derive(Debug)]
pub struct DecodeStream<'d> {
    decoder: &'d VaeDecoder,
    tiling: Option<Tiling>,
    /// Latent frames so far.
    frames: usize,
    /// Known with the first frame.
    plane: Option<DecodePlane>,
}

/// Height and width in latent pixels, the tiles, and each tile's memory.
type DecodePlane = (usize, usize, Blend, Vec<Cache>);

impl DecodeStream<'_> {
    /// Decodes the next latent frames `[1, z, T, h, w]`, T = 1 at first, to `[3, n, 8h, 8w]` f32 in [-1, 1], n = 1 and
    /// then 4T.
    ///
    /// Errors: [`Error::Shape`], [`Error::Invalid`] for the tiling, [`Error::NonFinite`].
    pub fn next(&mut self, latent: &Tensor) -> Result<Tensor> {
        self.next_tiles(latent, &mut |_, _| Ok(()))
    }

    /// [`DecodeStream::next`], calling `done(k, tiles)` after each of the tiles; an error of its stops the
    /// decoding, and the stream must then be dropped.
    pub fn next_tiles(
        &mut self,
        latent: &Tensor,
        done: &mut dyn FnMut(usize, usize) -> Result<()>,
    ) -> Result<Tensor> {
        let decoder = self.decoder;
        let misshapen = || Err(Error::shape("latents", latent.dims(), decoder.expected()));
        let (count, height, width) = match *latent.dims() {
            [1, c, t, h, w] if c == decoder.config.z_dim && t * h * w > 0 => (t, h, w),
            _ => return misshapen(),
        };
        if self.frames == 0 && count > 1 {
            let expected = format!("[1, {}, 1, h, w]", decoder.config.z_dim);
            return Err(Error::shape("first latents of a stream", latent.dims(), expected));
        }
        let plane = match self.plane.take() {
            Some(plane) => plane,
            None => self.open_plane(height, width)?,
        };
        let (h, w, blend, caches) = self.plane.insert(plane);
        if (*h, *w) != (height, width) {
            return misshapen();
        }
        let tiles = blend.tiles().len();
        let latent = latent.squeeze(0)?;
        let frames = blend.run(|i, tile| {
            let part = latent.narrow(2, tile.rows.start, tile.rows.len())?.narrow(
                3,
                tile.columns.start,
                tile.columns.len(),
            )?;
            let frames = decoder.chunk(&part, &mut caches[i])?;
            done(i + 1, tiles)?;
            Ok(frames)
        })?;
        let each = frames.dim(1)? / count;
        for latent in 0..count {
            self.frames += 1;
            check_finite(&frames.narrow(1, latent * each, each)?, self.frames)?; // before infinity is clamped away
        }
        Ok(frames.clamp(-1f32, 1f32)?)
    }

    fn open_plane(&self, height: usize, width: usize) -> Result<DecodePlane> {
        let factor = self.decoder.config.spatial_factor();
        let grid = Grid::new(self.tiling.as_ref(), height, width, factor)?;
        let caches = grid.tiles.iter().map(|_| Cache::new(self.decoder.slots)).collect();
        Ok((height, width, Blend::new(grid, factor, &self.decoder.device)?, caches))
    }
}

/// Whether the frames of a latent frame, counted from 1, are all numbers.
pub(crate) fn check_finite(frames: &Tensor, number: usize) -> Result<()> {
    // 0 times infinity or NaN is NaN. Lines first, which a GPU sums side by side.
    if !to_host(&(frames * 0.0)?.sum(D::Minus1)?.sum_all()?)?.to_scalar::<f32>()?.is_nan() {
        return Ok(());
    }
    let values = to_host(frames)?.flatten_all()?.to_vec1::<f32>()?;
    Err(Error::NonFinite {
        stage: format!("decode of latent frame {number}"),
        count: values.iter().filter(|v| !v.is_finite()).count(),
        total: values.len(),
    })
}
