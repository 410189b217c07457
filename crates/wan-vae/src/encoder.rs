use candle_core::{DType, Device, Tensor};
use wan_core::{Error, Loader, Result};
use wan_ops::Linear;

use crate::cache::{Cache, Slots, equal};
use crate::causal_conv::CausalConv;
use crate::config::{LATENT_MEAN, LATENT_STD, Resample, VaeConfig};
use crate::layers::{Head, Layer, load_middle};
use crate::res_block::ResBlock;
use crate::resample::Downsample;
use crate::tiling::{Blend, Grid, Tile, Tiling};

/// Video to latents. Frame 0 stands alone; each later latent frame is made of 4 frames and of those before them.
///
/// Source: Wan2.1 `wan/modules/vae.py`, `Encoder3d` and `WanVAE_.encode`.
#[derive(Debug)]
pub struct VaeEncoder {
    config: VaeConfig,
    layers: Vec<Layer>,
    /// Mean and log-variance; only the mean is used.
    conv1: Linear,
    slots: usize,
    mean: Tensor,
    std: Tensor,
    device: Device,
    dtype: DType,
}

impl VaeEncoder {
    pub(crate) fn load(loader: &Loader, config: &VaeConfig, dtype: DType) -> Result<Self> {
        let mut slots = Slots::default();
        let root = loader.pp("encoder");
        let conv1 = CausalConv::load(&root.pp("conv1"), &mut slots, 3, config.base_dim, [3, 3, 3])?;
        let mut layers = vec![Layer::Conv(conv1)];
        let blocks = root.pp("downsamples");
        let mut next = 0..;
        let mut name = || blocks.pp(next.next().unwrap_or(0));
        for level in config.encoder_levels() {
            for i in 0..level.blocks {
                let inputs = if i == 0 { level.inputs } else { level.outputs };
                layers.push(Layer::Residual(ResBlock::load(&name(), &mut slots, inputs, level.outputs)?));
            }
            if level.resample != Resample::None {
                let temporal = level.resample == Resample::SpaceTime;
                layers.push(Layer::Down(Downsample::load(&name(), &mut slots, level.outputs, temporal)?));
            }
        }
        let (channels, z) = (config.middle_dim(), config.z_dim);
        layers.extend(load_middle(&root.pp("middle"), &mut slots, channels)?);
        layers.push(Layer::Head(Head::load(&root.pp("head"), &mut slots, channels, 2 * z)?));
        Ok(Self {
            config: config.clone(),
            layers,
            conv1: Linear::load(&loader.pp("conv1"), 2 * z, 2 * z)?,
            slots: slots.count(),
            mean: Tensor::new(&LATENT_MEAN[..z], loader.device())?,
            std: Tensor::new(&LATENT_STD[..z], loader.device())?,
            device: loader.device().clone(),
            dtype,
        })
    }

    /// Encodes a whole video.
    ///
    /// - `video`: `[1, 3, T, H, W]` float in [-1, 1], T = 4k+1, H and W at least 8
    /// - returns `[1, z, k+1, H/8, W/8]` f32, normalised by the latent mean and standard deviation
    ///
    /// Errors: [`Error::Shape`]; [`Error::Invalid`] for the tiling.
    pub fn encode(&self, video: &Tensor, tiling: Option<&Tiling>) -> Result<Tensor> {
        let factor = self.config.temporal_factor();
        let frames = match *video.dims() {
            [1, 3, t, _, _] if t % factor == 1 % factor && t > 0 => t,
            _ => return Err(Error::shape("video", video.dims(), format!("[1, 3, {factor}k+1, H, W]"))),
        };
        let chunk = |i: usize| {
            let (start, count) = if i == 0 { (0, 1) } else { ((i - 1) * factor + 1, factor) };
            Ok(video.narrow(2, start, count)?)
        };
        self.encode_chunks((frames - 1) / factor + 1, tiling, chunk, |_| Ok(()))
    }

    /// Encodes a video that is made chunk by chunk, so that it need never be in memory as a whole.
    ///
    /// - `latent_frames`: number of chunks
    /// - `chunk(i)`: `[1, 3, n, H, W]`, n = 1 for chunk 0 and 4 for the others
    /// - `done(k)`: called after each latent frame with their number so far; an error of its stops the encoding
    ///
    /// Result and errors as of [`VaeEncoder::encode`], and those of the two callbacks.
    pub fn encode_chunks(
        &self,
        latent_frames: usize,
        tiling: Option<&Tiling>,
        mut chunk: impl FnMut(usize) -> Result<Tensor>,
        mut done: impl FnMut(usize) -> Result<()>,
    ) -> Result<Tensor> {
        if latent_frames == 0 {
            return Err(Error::invalid("video", "no frames", "at least one"));
        }
        let mut stream = self.stream(tiling);
        let mut latents = Vec::with_capacity(latent_frames);
        for i in 0..latent_frames {
            latents.push(stream.next(&chunk(i)?)?);
            done(i + 1)?;
        }
        Ok(Tensor::cat(&latents, 2)?)
    }

    /// Starts a video, to be encoded chunk by chunk.
    pub fn stream(&self, tiling: Option<&Tiling>) -> EncodeStream<'_> {
        EncodeStream { encoder: self, tiling: tiling.copied(), frames: 0, plane: None }
    }

    /// The configuration.
    pub fn config(&self) -> &VaeConfig {
        &self.config
    }

    /// One chunk `[3, T, H, W]` of one tile: `[z, T', h, w]` f32, normalised.
    fn chunk(&self, frames: &Tensor, state: &mut State) -> Result<Tensor> {
        self.normalise(state.run(&self.layers, self.prepare(frames)?)?)
    }

    /// Pixels to the first layer's input `[T, H, W, 3]`.
    fn prepare(&self, frames: &Tensor) -> Result<Tensor> {
        let x = frames.permute((1, 2, 3, 0))?.to_device(&self.device)?;
        Ok(x.to_dtype(self.dtype)?.contiguous()?)
    }

    /// The last layer's output `[T, h, w, 2z]` to latents `[z, T, h, w]` f32.
    fn normalise(&self, x: Tensor) -> Result<Tensor> {
        let mean = self.conv1.forward(&x)?.narrow(3, 0, self.config.z_dim)?.to_dtype(DType::F32)?;
        let latent = mean.broadcast_sub(&self.mean)?.broadcast_div(&self.std)?;
        Ok(latent.permute((3, 0, 1, 2))?.contiguous()?)
    }

    #[cfg(test)]
    pub(crate) fn slots(&self) -> usize {
        self.slots
    }

    /// [`VaeEncoder::chunk`] with every layer computed, of any number of later frames.
    #[cfg(test)]
    pub(crate) fn chunk_plain(&self, frames: &Tensor, cache: &mut Cache) -> Result<Tensor> {
        let mut x = self.prepare(frames)?;
        for layer in &self.layers {
            x = layer.forward(x, cache)?;
        }
        cache.advance();
        self.normalise(x)
    }
}

/// A video being encoded. Holds the encoder's memory of the frames so far.
#[derive(Debug)]
pub struct EncodeStream<'e> {
    encoder: &'e VaeEncoder,
    tiling: Option<Tiling>,
    /// Latent frames so far.
    frames: usize,
    /// Known with the first chunk.
    plane: Option<EncodePlane>,
}

/// Height and width in pixels, the tiles, and each tile's memory.
type EncodePlane = (usize, usize, Blend, Vec<State>);

impl EncodeStream<'_> {
    /// Frames that the next chunk must have: 1 at first, then 4.
    pub fn chunk_frames(&self) -> usize {
        if self.frames == 0 { 1 } else { self.encoder.config.temporal_factor() }
    }

    /// Encodes the next chunk `[1, 3, n, H, W]` to one latent frame `[1, z, 1, h, w]` f32, normalised.
    ///
    /// Errors: [`Error::Shape`], [`Error::Invalid`] for the tiling.
    pub fn next(&mut self, chunk: &Tensor) -> Result<Tensor> {
        let (n, factor) = (self.chunk_frames(), self.encoder.config.spatial_factor());
        let misshapen = |expected: String| Err(Error::shape("video chunk", chunk.dims(), expected));
        let (height, width) = match *chunk.dims() {
            [1, 3, t, h, w] if t == n && h >= factor && w >= factor => (h, w),
            _ => return misshapen(format!("[1, 3, {n}, H, W] with H and W at least {factor}")),
        };
        let plane = match self.plane.take() {
            Some(plane) => plane,
            None => self.open_plane(height, width)?,
        };
        let (h, w, blend, states) = self.plane.insert(plane);
        if (*h, *w) != (height, width) {
            return misshapen(format!("[1, 3, {n}, {h}, {w}] as the chunk before"));
        }
        let frames = chunk.squeeze(0)?;
        let latent = blend.run(|i, tile| {
            let pixels = crop(&frames, tile, factor, (height, width))?;
            self.encoder.chunk(&pixels, &mut states[i])
        })?;
        self.frames += 1;
        Ok(latent.unsqueeze(0)?)
    }

    #[cfg(test)]
    pub(crate) fn settled_layers(&self) -> usize {
        self.plane.as_ref().map_or(0, |(_, _, _, states)| states[0].settled)
    }

    fn open_plane(&self, height: usize, width: usize) -> Result<EncodePlane> {
        let factor = self.encoder.config.spatial_factor();
        let grid = Grid::new(self.tiling.as_ref(), height / factor, width / factor, factor)?;
        let states = grid.tiles.iter().map(|_| State::new(self.encoder.slots)).collect();
        Ok((height, width, Blend::new(grid, 1, &self.encoder.device)?, states))
    }
}

/// The pixels of a tile. Those beyond the last whole latent pixel belong to the last tile.
fn crop(frames: &Tensor, tile: &Tile, factor: usize, (height, width): (usize, usize)) -> Result<Tensor> {
    let end = |end: usize, length: usize| if end == length / factor { length } else { end * factor };
    let (top, left) = (tile.rows.start * factor, tile.columns.start * factor);
    let (bottom, right) = (end(tile.rows.end, height), end(tile.columns.end, width));
    Ok(frames.narrow(2, top, bottom - top)?.narrow(3, left, right - left)?)
}

/// One tile's memory of the frames so far.
///
/// A conditioning video is one image and then nothing but grey. Once the input repeats, the layers settle one
/// after the other: when a layer's input is the previous one's and what it remembers has not changed either, its
/// output must repeat too, and is kept instead of being computed again.
#[derive(Debug)]
struct State {
    cache: Cache,
    /// The last chunk, `[T, H, W, 3]`.
    input: Option<Tensor>,
    /// Layers that have settled, and the last one's output.
    settled: usize,
    output: Option<Tensor>,
}

impl State {
    fn new(slots: usize) -> Self {
        Self { cache: Cache::new(slots), input: None, settled: 0, output: None }
    }

    fn run(&mut self, layers: &[Layer], input: Tensor) -> Result<Tensor> {
        let repeated = match &self.input {
            Some(last) => equal(last, &input)?,
            None => false,
        };
        if !repeated {
            (self.settled, self.output) = (0, None);
            self.input = Some(input.clone());
        }
        let mut x = self.output.clone().unwrap_or(input);
        let mut settling = repeated;
        for layer in &layers[self.settled..] {
            let before = settling.then(|| self.cache.clone());
            x = layer.forward(x, &mut self.cache)?;
            settling = before.map_or(Ok(false), |before| self.cache.equals(&before))?;
            if settling {
                self.settled += 1;
                self.output = Some(x.clone());
            }
        }
        self.cache.advance();
        Ok(x)
    }
}
