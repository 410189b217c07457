//! How much memory the VAE takes, from sizes alone, for planning before anything is loaded.

use candle_core::DType;
use wan_core::Result;

use crate::config::{Level, Resample, VaeConfig};
use crate::tiling::{Grid, Tiling};

/// Bytes that encoding or decoding takes beside the weights, the input and the finished frames. The workspace of
/// the convolution kernels is not in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryEstimate {
    /// Tiles per latent frame; 1 without tiling.
    pub tiles: usize,
    /// The remembered frames of all tiles.
    pub cache: u64,
    /// The largest sum of activations that live at the same time, and the blended plane.
    pub transient: u64,
}

impl MemoryEstimate {
    /// Bytes in all.
    pub fn total(&self) -> u64 {
        self.cache + self.transient
    }

    /// The same with `latent_frames` at a time.
    #[must_use]
    pub fn together(self, latent_frames: usize) -> Self {
        Self { transient: self.transient * latent_frames as u64, ..self }
    }
}

/// Latent pixels that give a GPU's multiprocessors enough to do at the decoder's lowest resolution, and most latent frames
/// that are decoded at a time to come to so many.
const ENOUGH_PIXELS: usize = 8192;
const MOST_TOGETHER: usize = 4;

impl VaeConfig {
    /// What decoding takes for `height` x `width` latent pixels, with activations in `dtype`.
    ///
    /// Errors: [`Error::Invalid`](wan_core::Error::Invalid) for the tiling.
    pub fn decode_memory(
        &self,
        height: usize,
        width: usize,
        tiling: Option<&Tiling>,
        dtype: DType,
    ) -> Result<MemoryEstimate> {
        let scale = (self.spatial_factor() * self.spatial_factor()) as u64;
        let plane = 3 * scale * self.temporal_factor() as u64;
        self.estimate(height, width, tiling, dtype, Walk::decoder, plane)
    }

    /// How many latent frames of `height` x `width` latent pixels a GPU had best decode at a time: several where they, or
    /// their tiles, are small. The values are the same.
    ///
    /// Errors: [`Error::Invalid`](wan_core::Error::Invalid) for the tiling.
    pub fn decode_together(&self, height: usize, width: usize, tiling: Option<&Tiling>) -> Result<usize> {
        let grid = Grid::new(tiling, height, width, self.spatial_factor())?;
        let largest = grid.tiles.iter().map(|t| t.rows.len() * t.columns.len()).max().unwrap_or(0);
        Ok((ENOUGH_PIXELS / largest.max(1)).clamp(1, MOST_TOGETHER))
    }

    /// What encoding takes for a video of `height` x `width` latent pixels, with activations in `dtype`.
    ///
    /// Errors: [`Error::Invalid`](wan_core::Error::Invalid) for the tiling.
    pub fn encode_memory(
        &self,
        height: usize,
        width: usize,
        tiling: Option<&Tiling>,
        dtype: DType,
    ) -> Result<MemoryEstimate> {
        self.estimate(height, width, tiling, dtype, Walk::encoder, self.z_dim as u64)
    }

    /// What decoding takes where one tile is decoded over all frames before the next one, and blended elsewhere: the
    /// least of all ways, and the last resort of small devices.
    ///
    /// Errors: [`Error::Invalid`](wan_core::Error::Invalid) for the tiling.
    pub fn decode_memory_tile_outer(
        &self,
        height: usize,
        width: usize,
        tiling: &Tiling,
        dtype: DType,
    ) -> Result<MemoryEstimate> {
        let grid = Grid::new(Some(tiling), height, width, self.spatial_factor())?;
        let largest = grid.tiles.iter().max_by_key(|t| t.rows.len() * t.columns.len());
        let (rows, columns) = largest.map_or((0, 0), |t| (t.rows.len(), t.columns.len()));
        let one = self.decode_memory(rows, columns, None, dtype)?;
        Ok(MemoryEstimate { tiles: grid.tiles.len(), ..one })
    }

    fn estimate(
        &self,
        height: usize,
        width: usize,
        tiling: Option<&Tiling>,
        dtype: DType,
        walk: fn(&VaeConfig) -> Walk,
        plane: u64,
    ) -> Result<MemoryEstimate> {
        let walk = walk(self);
        let grid = Grid::new(tiling, height, width, self.spatial_factor())?;
        let areas = grid.tiles.iter().map(|t| (t.rows.len() * t.columns.len()) as u64);
        let (all, largest) = areas.fold((0, 0), |(sum, max), a| (sum + a, max.max(a)));
        let bytes = dtype.size_in_bytes() as u64;
        let copies = if grid.tiles.len() > 1 { 4 } else { 2 }; // sum, term and both padded; or one and its clamp
        let kept = walk.kept * if grid.tiles.len() > 1 { all } else { largest };
        Ok(MemoryEstimate {
            tiles: grid.tiles.len(),
            cache: (walk.cache * all + kept) * bytes,
            transient: walk.peak * largest * bytes + copies * plane * (height * width) as u64 * 4,
        })
    }
}

/// Sums over the layers, in values per latent pixel, for a chunk that is not the first.
struct Walk {
    cache: u64,
    peak: u64,
    /// The encoder's output of the last layer that has settled, at its largest.
    kept: u64,
    /// Present frames and pixels per latent pixel.
    frames: u64,
    area: u64,
}

impl Walk {
    fn new(frames: usize, area: usize) -> Self {
        Self { cache: 0, peak: 0, kept: 0, frames: frames as u64, area: area as u64 }
    }

    fn decoder(config: &VaeConfig) -> Self {
        let mut walk = Self::new(1, 1);
        let middle = config.middle_dim();
        walk.conv(config.z_dim, middle);
        walk.middle(middle);
        let mut channels = middle;
        for level in config.decoder_levels() {
            walk.blocks(&level);
            let c = level.outputs as u64;
            match level.resample {
                Resample::None => {}
                Resample::Space => walk.live(3 * c), // C in, then C/2 on four times the pixels
                Resample::SpaceTime => {
                    walk.cache += 2 * c * walk.area;
                    walk.live(6 * c); // the same on twice the frames
                    walk.frames *= 2;
                }
            }
            if level.resample != Resample::None {
                walk.area *= 4;
            }
            channels = level.outputs;
        }
        walk.head(channels, 3);
        walk
    }

    fn encoder(config: &VaeConfig) -> Self {
        let pixels = config.spatial_factor() * config.spatial_factor();
        let mut walk = Self::new(config.temporal_factor(), pixels);
        walk.conv(3, config.base_dim);
        walk.kept = config.base_dim as u64 * walk.frames * walk.area;
        for level in config.encoder_levels() {
            walk.blocks(&level);
            let c = level.outputs as u64;
            if level.resample != Resample::None {
                walk.live(c + c.div_ceil(4));
                walk.area /= 4;
            }
            if level.resample == Resample::SpaceTime {
                walk.cache += c * walk.area;
                walk.live(2 * c);
                walk.frames /= 2;
            }
        }
        let middle = config.middle_dim();
        walk.middle(middle);
        walk.head(middle, 2 * config.z_dim);
        walk
    }

    /// `channels` live at the present resolution.
    fn live(&mut self, channels: u64) {
        self.peak = self.peak.max(channels * self.frames * self.area);
    }

    fn conv(&mut self, inputs: usize, outputs: usize) {
        self.cache += 2 * inputs as u64 * self.area;
        self.live((inputs + outputs) as u64);
    }

    fn head(&mut self, inputs: usize, outputs: usize) {
        self.conv(inputs, outputs);
        self.live(2 * inputs as u64); // before and after the norm
    }

    fn residual(&mut self, inputs: usize, outputs: usize) {
        let (i, o) = (inputs as u64, outputs as u64);
        self.cache += 2 * (i + o) * self.area;
        self.live((2 * i + o).max(i + 2 * o).max(3 * o));
    }

    fn middle(&mut self, channels: usize) {
        self.residual(channels, channels);
        self.live(9 * channels as u64); // x, norm, qkv as one and as three, the heads' output
        self.residual(channels, channels);
    }

    fn blocks(&mut self, level: &Level) {
        for i in 0..level.blocks {
            self.residual(if i == 0 { level.inputs } else { level.outputs }, level.outputs);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caches_of_the_wan_vae() {
        // Counted with hooks on Wan2.1's module: values per latent pixel in the steady state.
        let config = VaeConfig::default();
        assert_eq!(Walk::decoder(&config).cache, 151_328);
        assert_eq!(Walk::encoder(&config).cache, 89_856);
        assert_eq!(Walk::decoder(&config).frames, 4);
        assert_eq!((Walk::encoder(&config).frames, Walk::encoder(&config).area), (1, 1));
    }

    #[test]
    fn tiles_hold_all_caches_but_one_transient() {
        let config = VaeConfig::default();
        let whole = config.decode_memory(60, 104, None, DType::F32).unwrap();
        let tiled = config.decode_memory(60, 104, Some(&Tiling::default()), DType::F32).unwrap();
        assert_eq!((whole.tiles, tiled.tiles), (1, 18));
        assert_eq!(whole.cache, 151_328 * 60 * 104 * 4);
        assert!(tiled.cache > 2 * whole.cache && tiled.transient < whole.transient);
    }

    #[test]
    fn small_frames_and_tiles_are_decoded_together() {
        let config = VaeConfig::default();
        let together = |h, w, tiling: Option<&Tiling>| config.decode_together(h, w, tiling).unwrap();
        assert_eq!([together(90, 160, None), together(60, 104, None), together(64, 64, None)], [1, 1, 2]);
        assert_eq!((together(60, 104, Some(&Tiling::default())), together(2, 2, None)), (4, 4));
        let one = config.decode_memory(34, 34, None, DType::BF16).unwrap();
        let four = one.together(4);
        assert_eq!((four.cache, four.transient, four.tiles), (one.cache, 4 * one.transient, 1));
    }

    #[test]
    fn one_tile_at_a_time_is_the_least_and_does_not_grow_with_the_picture() {
        let config = VaeConfig::default();
        let tiling = Tiling::default();
        let small = config.decode_memory_tile_outer(60, 104, &tiling, DType::BF16).unwrap();
        let large = config.decode_memory_tile_outer(90, 160, &tiling, DType::BF16).unwrap();
        let tile = config.decode_memory(34, 34, None, DType::BF16).unwrap();
        assert_eq!((small.tiles, large.tiles), (18, 45));
        assert_eq!((small.total(), large.total()), (tile.total(), tile.total()));
        let tiled = config.decode_memory(60, 104, Some(&tiling), DType::BF16).unwrap();
        assert!(small.total() < tiled.total() && small.total() < 1 << 30, "{small:?}");
    }
}
