use std::path::Path;

use serde::{Deserialize, Serialize};
use wan_core::{Error, Result, WeightSet, config};

/// Mean of each latent channel over the training videos.
///
/// Source: Wan2.1 `wan/modules/vae.py`, `WanVAE`.
pub const LATENT_MEAN: [f32; 16] = [
    -0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508, 0.4134, -0.0715, 0.5517, -0.3632,
    -0.1922, -0.9497, 0.2503, -0.2921,
];

/// Standard deviation of each latent channel; same source as [`LATENT_MEAN`].
pub const LATENT_STD: [f32; 16] = [
    2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743, 3.2687, 2.1526, 2.8652, 1.5579, 1.6382,
    1.1253, 2.8251, 1.9160,
];

/// Hyper-parameters of a Wan VAE.
///
/// Source: Wan2.1 `wan/modules/vae.py`, `Encoder3d` and `Decoder3d`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VaeConfig {
    /// Channels at full resolution, before any multiplier.
    pub base_dim: usize,
    /// Latent channels, at most 16; fewer use the first of [`LATENT_MEAN`] and [`LATENT_STD`].
    pub z_dim: usize,
    /// Channel multiplier of each resolution, from full to latent.
    pub dim_mult: Vec<usize>,
    /// Residual blocks per resolution of the encoder; the decoder has one more.
    pub num_res_blocks: usize,
    /// Resolutions with attention blocks beside the middle one. The Wan VAE has none, and so has this crate.
    pub attn_scales: Vec<f64>,
    /// For each halving of height and width, whether frames are halved too.
    pub temporal_downsample: Vec<bool>,
}

impl Default for VaeConfig {
    /// The Wan2.1 VAE.
    fn default() -> Self {
        Self {
            base_dim: 96,
            z_dim: 16,
            dim_mult: vec![1, 2, 4, 4],
            num_res_blocks: 2,
            attn_scales: vec![],
            temporal_downsample: vec![false, true, true],
        }
    }
}

/// The documented JSON keys, each of which may be left out.
#[derive(Debug, Default, Serialize, Deserialize)]
struct RawConfig {
    base_dim: Option<usize>,
    z_dim: Option<usize>,
    dim_mult: Option<Vec<usize>>,
    num_res_blocks: Option<usize>,
    attn_scales: Option<Vec<f64>>,
    temporal_downsample: Option<Vec<bool>>,
}

/// The blocks at one resolution, and the step to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Level {
    /// Channels into the first residual block.
    pub inputs: usize,
    /// Channels out of every residual block.
    pub outputs: usize,
    /// Number of residual blocks.
    pub blocks: usize,
    /// What follows them.
    pub resample: Resample,
}

/// Change of resolution between two levels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resample {
    /// None: the last level.
    None,
    /// Height and width by 2.
    Space,
    /// Height, width and frames by 2.
    SpaceTime,
}

impl VaeConfig {
    /// The configuration of weights in canonical names: from `file`, else from the header, and what those leave
    /// out from the tensors' shapes, else the Wan2.1 VAE's.
    ///
    /// Errors: [`Error::Io`] or [`Error::Invalid`] for the file, and those of [`VaeConfig::check`].
    pub fn read(file: Option<&Path>, weights: &WeightSet) -> Result<Self> {
        let raw: RawConfig = config::read(file, weights)?;
        let shapes = from_shapes(weights);
        let default = Self::default();
        let config = Self {
            base_dim: raw.base_dim.or(shapes.base_dim).unwrap_or(default.base_dim),
            z_dim: raw.z_dim.or(shapes.z_dim).unwrap_or(default.z_dim),
            dim_mult: raw.dim_mult.or(shapes.dim_mult).unwrap_or(default.dim_mult),
            num_res_blocks: raw.num_res_blocks.or(shapes.num_res_blocks).unwrap_or(default.num_res_blocks),
            attn_scales: raw.attn_scales.unwrap_or(default.attn_scales),
            temporal_downsample: raw
                .temporal_downsample
                .or(shapes.temporal_downsample)
                .unwrap_or(default.temporal_downsample),
        };
        config.check()?;
        Ok(config)
    }

    /// Errors: [`Error::Invalid`] naming the first value outside its range.
    pub fn check(&self) -> Result<()> {
        let within = |what: &str, value: usize, max: usize| {
            if (1..=max).contains(&value) {
                Ok(())
            } else {
                Err(Error::invalid(format!("vae config {what}"), value, format!("1 to {max}")))
            }
        };
        within("base_dim", self.base_dim, 4096)?;
        within("z_dim", self.z_dim, LATENT_MEAN.len())?;
        within("num_res_blocks", self.num_res_blocks, 16)?;
        within("dim_mult length", self.dim_mult.len(), 8)?;
        for m in &self.dim_mult {
            within("dim_mult", *m, 64)?;
        }
        if !self.attn_scales.is_empty() {
            return Err(Error::invalid(
                "vae config attn_scales",
                format!("{:?}", self.attn_scales),
                "[]: attention outside of the middle block is not supported",
            ));
        }
        if self.temporal_downsample.len() + 1 != self.dim_mult.len() {
            return Err(Error::invalid(
                "vae config temporal_downsample",
                format!("{} values", self.temporal_downsample.len()),
                format!("{}, one fewer than dim_mult has", self.dim_mult.len() - 1),
            ));
        }
        // The decoder halves the channels of every level but the last, which is the first multiplier's.
        match self.dim_mult[1..].iter().find(|m| !(self.base_dim * **m).is_multiple_of(2)) {
            Some(m) => Err(Error::invalid(
                "vae config base_dim",
                format!("{} x {m} channels", self.base_dim),
                "an even number of channels below full resolution",
            )),
            None => Ok(()),
        }
    }

    /// Pixels per latent pixel along one axis: 8 for the Wan2.1 VAE.
    pub fn spatial_factor(&self) -> usize {
        1 << self.temporal_downsample.len()
    }

    /// Pixel frames per latent frame after the first: 4 for the Wan2.1 VAE.
    pub fn temporal_factor(&self) -> usize {
        1 << self.temporal_downsample.iter().filter(|t| **t).count()
    }

    /// Channels at latent resolution.
    pub(crate) fn middle_dim(&self) -> usize {
        self.base_dim * self.dim_mult.last().copied().unwrap_or(1)
    }

    /// Levels of the encoder, from full to latent resolution.
    pub(crate) fn encoder_levels(&self) -> Vec<Level> {
        let mut inputs = self.base_dim;
        (0..self.dim_mult.len())
            .map(|i| {
                let outputs = self.base_dim * self.dim_mult[i];
                let resample = resample(self.temporal_downsample.get(i));
                let level = Level { inputs, outputs, blocks: self.num_res_blocks, resample };
                inputs = outputs;
                level
            })
            .collect()
    }

    /// Levels of the decoder, from latent to full resolution. Every upsampling halves the channels.
    pub(crate) fn decoder_levels(&self) -> Vec<Level> {
        let mut inputs = self.middle_dim();
        (0..self.dim_mult.len())
            .rev()
            .map(|i| {
                let outputs = self.base_dim * self.dim_mult[i];
                let resample =
                    resample(i.checked_sub(1).and_then(|below| self.temporal_downsample.get(below)));
                let level = Level { inputs, outputs, blocks: self.num_res_blocks + 1, resample };
                inputs = outputs / 2;
                level
            })
            .collect()
    }
}

fn resample(temporal: Option<&bool>) -> Resample {
    match temporal {
        None => Resample::None,
        Some(false) => Resample::Space,
        Some(true) => Resample::SpaceTime,
    }
}

/// Layers of an encoder that are looked through; published models have 11.
const MOST_LAYERS: usize = 64;

/// Reads off the encoder's layer list what it tells. Several tensors tell the same, so that one that is missing
/// is reported as missing rather than as another architecture.
fn from_shapes(weights: &WeightSet) -> RawConfig {
    let rows = |names: &[String]| names.iter().find_map(|n| weights.shape(n)?.first().copied());
    let both = |layer: &str| [format!("{layer}.weight"), format!("{layer}.bias")];
    // More are a damaged file, whose names are not to be counted through.
    let layers = weights.count("encoder.downsamples").min(MOST_LAYERS);
    let has = |i: usize, part: &str| {
        both(&format!("encoder.downsamples.{i}.{part}")).iter().any(|n| weights.shape(n).is_some())
    };
    let base_dim = rows(&both("encoder.conv1"));
    let mut raw = RawConfig { base_dim, z_dim: rows(&both("conv2")), ..RawConfig::default() };

    let resamplers: Vec<usize> = (0..layers).filter(|i| has(*i, "resample.1")).collect();
    if layers == 0 {
        return raw;
    }
    raw.num_res_blocks = Some(resamplers.first().copied().unwrap_or(layers));
    raw.temporal_downsample = Some(resamplers.iter().map(|i| has(*i, "time_conv")).collect());
    let firsts = std::iter::once(0).chain(resamplers.iter().map(|i| i + 1));
    raw.dim_mult = firsts
        .map(|i| {
            let outputs = rows(&both(&format!("encoder.downsamples.{i}.residual.2")))?;
            base_dim.filter(|base| *base > 0).map(|base| outputs / base)
        })
        .collect();
    raw
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_of_the_wan_vae() {
        let config = VaeConfig::default();
        let list = |levels: Vec<Level>| {
            levels.iter().map(|l| (l.inputs, l.outputs, l.blocks, l.resample)).collect::<Vec<_>>()
        };
        use Resample::{None, Space, SpaceTime};
        assert_eq!(
            list(config.encoder_levels()),
            [(96, 96, 2, Space), (96, 192, 2, SpaceTime), (192, 384, 2, SpaceTime), (384, 384, 2, None)]
        );
        assert_eq!(
            list(config.decoder_levels()),
            [(384, 384, 3, SpaceTime), (192, 384, 3, SpaceTime), (192, 192, 3, Space), (96, 96, 3, None)]
        );
        assert_eq!((config.spatial_factor(), config.temporal_factor()), (8, 4));
    }

    #[test]
    fn values_out_of_range_are_named() {
        let bad = |change: fn(&mut VaeConfig)| {
            let mut config = VaeConfig::default();
            change(&mut config);
            config.check().unwrap_err().to_string()
        };
        assert!(bad(|c| c.attn_scales = vec![0.25]).contains("attn_scales: found [0.25]"));
        assert!(bad(|c| c.z_dim = 48).contains("z_dim: found 48, expected 1 to 16"));
        assert!(bad(|c| c.dim_mult = vec![]).contains("dim_mult length"));
        assert!(bad(|c| c.temporal_downsample = vec![true]).contains("temporal_downsample: found 1 values"));
        assert!(bad(|c| c.base_dim = 0).contains("base_dim"));
        assert!(bad(|c| (c.base_dim, c.dim_mult) = (3, vec![1, 1, 2, 2])).contains("3 x 1 channels"));
    }
}
