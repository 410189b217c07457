//! Decoding and encoding in overlapping tiles, blended by linear ramps.
//!
//! Here time is the outer loop and the tiles the inner one: every tile keeps its own caches, and each chunk of frames is
//! blended as soon as all tiles have given theirs. A pixel's terms are added in the order of the tiles either way, so
//! this equals running the tiles one after the other over all frames (`tile_outer.rs`), bit for bit.
//!
//! Source: ComfyUI-WanVideoWrapper `wanvideo/wan_video_vae.py`, `tiled_decode`, `tiled_encode` and `build_mask`,
//! with sizes in pixels as its nodes divide them.

use std::ops::Range;

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};
use wan_core::{Error, Result};

/// Sizes of the tiles and the distance from one to the next, in pixels.
///
/// They count in whole latent pixels: values between two multiples of 8 act as the lower one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tiling {
    /// Height of a tile.
    pub tile_height: usize,
    /// Width of a tile.
    pub tile_width: usize,
    /// From one tile's top to the next one's, at most the height.
    pub stride_height: usize,
    /// From one tile's left edge to the next one's, at most the width.
    pub stride_width: usize,
}

impl Default for Tiling {
    /// The wrapper's sizes.
    fn default() -> Self {
        Self { tile_height: 272, tile_width: 272, stride_height: 144, stride_width: 128 }
    }
}

impl Tiling {
    /// Tiles and strides in latent pixels of `factor` pixels: (tile, stride) of the height and of the width.
    ///
    /// Errors: [`Error::Invalid`] for a size below one latent pixel, or a stride above its tile.
    pub(crate) fn latent(&self, factor: usize) -> Result<[(usize, usize); 2]> {
        let axis = |name: &str, tile: usize, stride: usize| {
            if tile < factor {
                return Err(Error::invalid(
                    format!("tile {name}"),
                    format!("{tile} pixels"),
                    format!("at least {factor}"),
                ));
            }
            if stride < factor || stride / factor > tile / factor {
                return Err(Error::invalid(
                    format!("tile stride {name}"),
                    format!("{stride} pixels"),
                    format!("{factor} to the tile's {tile}"),
                ));
            }
            Ok((tile / factor, stride / factor))
        };
        Ok([
            axis("height", self.tile_height, self.stride_height)?,
            axis("width", self.tile_width, self.stride_width)?,
        ])
    }

    /// Checks the sizes for the Wan2.1 VAE.
    ///
    /// Errors: [`Error::Invalid`] naming the size, what it is and what it may be.
    pub fn check(&self) -> Result<()> {
        self.latent(wan_core::geometry::SPATIAL_FACTOR).map(|_| ())
    }
}

/// A part of the latent plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tile {
    pub rows: Range<usize>,
    pub columns: Range<usize>,
}

/// The tiles that cover a latent plane, row by row. Without tiling there is one.
#[derive(Debug, Clone)]
pub(crate) struct Grid {
    pub height: usize,
    pub width: usize,
    pub tiles: Vec<Tile>,
    /// Rows and columns that neighbours share, over which they are blended.
    overlap: (usize, usize),
}

impl Grid {
    /// Covers `height` x `width` latent pixels of `factor` pixels each.
    pub fn new(tiling: Option<&Tiling>, height: usize, width: usize, factor: usize) -> Result<Self> {
        let [(tile_h, stride_h), (tile_w, stride_w)] = match tiling {
            Some(tiling) => tiling.latent(factor)?,
            None => [(height.max(1), height.max(1)), (width.max(1), width.max(1))],
        };
        let columns = spans(width, tile_w, stride_w);
        let tiles = spans(height, tile_h, stride_h)
            .into_iter()
            .flat_map(|rows| {
                columns.iter().map(move |columns| Tile { rows: rows.clone(), columns: columns.clone() })
            })
            .collect();
        Ok(Self { height, width, tiles, overlap: (tile_h - stride_h, tile_w - stride_w) })
    }
}

/// Tiles along one axis: every `stride` from 0, leaving out a start if the tile before it reaches the end.
fn spans(length: usize, tile: usize, stride: usize) -> Vec<Range<usize>> {
    (0..length)
        .step_by(stride)
        .filter(|start| *start == 0 || start - stride + tile < length)
        .map(|start| start..(start + tile).min(length))
        .collect()
}

/// Blends the outputs of a grid's tiles into one plane.
#[derive(Debug)]
pub(crate) struct Blend {
    grid: Grid,
    /// Output pixels per latent pixel.
    scale: usize,
    /// Weight of each tile's pixels, `[tile rows, tile columns]` f32.
    masks: Vec<Tensor>,
    /// Sum of the weights, `[rows, columns]` f32.
    total: Option<Tensor>,
}

impl Blend {
    /// For outputs of `scale` pixels per latent pixel: the VAE's factor for frames, 1 for latents.
    pub fn new(grid: Grid, scale: usize, device: &Device) -> Result<Self> {
        let mut blend = Self { grid, scale, masks: vec![], total: None };
        if blend.grid.tiles.len() < 2 {
            return Ok(blend);
        }
        for tile in blend.grid.tiles.clone() {
            let rows = ramp(&tile.rows, blend.grid.height, blend.grid.overlap.0, scale);
            let columns = ramp(&tile.columns, blend.grid.width, blend.grid.overlap.1, scale);
            let mask: Vec<f32> = rows.iter().flat_map(|r| columns.iter().map(|c| r.min(*c))).collect();
            let mask = Tensor::from_vec(mask, (rows.len(), columns.len()), device)?;
            let placed = blend.place(&mask, &tile)?;
            blend.total = Some(add(blend.total.take(), placed)?);
            blend.masks.push(mask);
        }
        Ok(blend)
    }

    /// The tiles, in the order in which [`Blend::run`] asks for them.
    pub fn tiles(&self) -> &[Tile] {
        &self.grid.tiles
    }

    /// Asks for each tile's output, f32 `[C, T, rows, columns]`, and returns the plane `[C, T, H, W]`. A single
    /// tile's output is returned as it is.
    pub fn run(&self, mut output: impl FnMut(usize, &Tile) -> Result<Tensor>) -> Result<Tensor> {
        let mut sum = None;
        for (i, tile) in self.grid.tiles.iter().enumerate() {
            let part = output(i, tile)?;
            if self.masks.is_empty() {
                return Ok(part);
            }
            sum = Some(add(sum, self.place(&self.weighted(i, part)?, tile)?)?);
        }
        match (sum, &self.total) {
            (Some(sum), Some(total)) => Ok(sum.broadcast_div(total)?),
            _ => Err(Error::invalid("latents", "no pixels", "at least one")),
        }
    }

    /// A tile's output as a term of the blended plane, which is the sum of all terms over [`Blend::total`].
    pub fn weighted(&self, tile: usize, part: Tensor) -> Result<Tensor> {
        match self.masks.get(tile) {
            Some(mask) => Ok(part.broadcast_mul(mask)?),
            None => Ok(part),
        }
    }

    /// Sum of the weights, `[H, W]` f32; none where there is a single tile.
    pub fn total(&self) -> Option<&Tensor> {
        self.total.as_ref()
    }

    /// A tile's values in a plane of zeros.
    fn place(&self, part: &Tensor, tile: &Tile) -> Result<Tensor> {
        let (rows, columns) = (part.rank() - 2, part.rank() - 1);
        let after = |length: usize, end: usize| (length - end) * self.scale;
        Ok(part
            .pad_with_zeros(rows, tile.rows.start * self.scale, after(self.grid.height, tile.rows.end))?
            .pad_with_zeros(
            columns,
            tile.columns.start * self.scale,
            after(self.grid.width, tile.columns.end),
        )?)
    }
}

fn add(sum: Option<Tensor>, part: Tensor) -> Result<Tensor> {
    Ok(match sum {
        Some(sum) => (sum + part)?,
        None => part,
    })
}

/// Weights along one axis: 1, but k/b, k = 1..b, over the b output pixels shared with a neighbour.
fn ramp(span: &Range<usize>, length: usize, overlap: usize, scale: usize) -> Vec<f32> {
    let border = overlap * scale;
    let mut weights = vec![1f32; span.len() * scale];
    let rising = |k: usize| (k + 1) as f32 / border as f32;
    if span.start != 0 {
        weights.iter_mut().take(border).enumerate().for_each(|(k, w)| *w = rising(k));
    }
    if span.end < length {
        weights.iter_mut().rev().take(border).enumerate().for_each(|(k, w)| *w = rising(k));
    }
    weights
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_tiles_cover_the_named_sizes() {
        let starts = |h: usize, w: usize| {
            let grid = Grid::new(Some(&Tiling::default()), h, w, 8).unwrap();
            grid.tiles.iter().map(|t| (t.rows.clone(), t.columns.clone())).collect::<Vec<_>>()
        };
        let square = starts(64, 64);
        assert_eq!(square.len(), 9);
        assert_eq!(square[1], (0..34, 16..50));
        assert_eq!(square[8], (36..64, 32..64));
        let wide = starts(60, 104);
        assert_eq!(wide.len(), 18);
        assert_eq!(wide[5], (0..34, 80..104));
        assert_eq!(wide[12], (36..60, 0..34));
    }

    #[test]
    fn a_start_is_left_out_when_the_tile_before_reaches_the_end() {
        let check = |length: usize, tile: usize, stride: usize, want: &[(usize, usize)]| {
            let found: Vec<_> = spans(length, tile, stride).iter().map(|r| (r.start, r.end)).collect();
            assert_eq!(found, want, "{length} {tile} {stride}");
        };
        check(7, 4, 2, &[(0, 4), (2, 6), (4, 7)]);
        check(6, 4, 2, &[(0, 4), (2, 6)]);
        check(4, 4, 2, &[(0, 4)]);
        check(3, 4, 1, &[(0, 3)]);
        check(5, 2, 2, &[(0, 2), (2, 4), (4, 5)]);
    }

    #[test]
    fn ramps_rise_only_towards_neighbours() {
        assert_eq!(ramp(&(0..2), 4, 1, 2), [1.0, 1.0, 1.0, 0.5]);
        assert_eq!(ramp(&(2..4), 4, 1, 2), [0.5, 1.0, 1.0, 1.0]);
        assert_eq!(ramp(&(1..3), 4, 1, 1), [1.0, 1.0]);
        assert_eq!(ramp(&(0..2), 2, 1, 2), [1.0; 4]);
        assert_eq!(ramp(&(0..2), 4, 0, 2), [1.0; 4]);
    }

    #[test]
    fn weights_divide_out_over_a_constant() {
        let tiling = Tiling { tile_height: 32, tile_width: 24, stride_height: 16, stride_width: 24 };
        let blend = Blend::new(Grid::new(Some(&tiling), 7, 5, 8).unwrap(), 2, &Device::Cpu).unwrap();
        let plane = blend
            .run(|_, tile| {
                let shape = (1, 1, tile.rows.len() * 2, tile.columns.len() * 2);
                Ok(Tensor::full(3f32, shape, &Device::Cpu)?)
            })
            .unwrap();
        assert_eq!(plane.dims(), [1, 1, 14, 10]);
        let values = plane.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert!(values.iter().all(|v| (v - 3.0).abs() < 1e-6), "{values:?}");
    }

    #[test]
    fn impossible_sizes_are_named() {
        let message = |tiling: Tiling| tiling.check().unwrap_err().to_string();
        let good = Tiling::default();
        assert!(good.check().is_ok());
        assert!(message(Tiling { tile_width: 7, ..good }).contains("tile width: found 7 pixels"));
        assert!(message(Tiling { stride_height: 280, ..good }).contains("tile stride height"));
        assert!(message(Tiling { stride_width: 0, ..good }).contains("tile stride width: found 0 pixels"));
    }
}
