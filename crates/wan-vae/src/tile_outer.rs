//! Decoding tile after tile, each over all frames before the next one: the least device memory of all ways.

use std::ops::Range;

use candle_core::{Device, Tensor};
use wan_core::device::to_host;
use wan_core::{Error, Result};

use crate::cache::Cache;
use crate::decoder::{VaeDecoder, check_finite};
use crate::tiling::{Blend, Grid, Tiling};

impl VaeDecoder {
    /// As [`VaeDecoder::decode_stream`] in tiles, with the same values, but each tile is decoded over all latent frames
    /// before the next one. The device holds the memory of one tile; the frames wait in main memory for the last tile,
    /// 12 bytes a pixel.
    ///
    /// - `done`: called with the number of tiles' latent frames decoded so far, and of all; an error of its stops the
    ///   decoding
    /// - `sink`: takes the frames as there, on the CPU
    ///
    /// Errors: those of [`VaeDecoder::decode_stream`] and of `done`.
    pub fn decode_tile_by_tile(
        &self,
        latents: &Tensor,
        tiling: &Tiling,
        done: &mut dyn FnMut(usize, usize) -> Result<()>,
        sink: &mut dyn FnMut(Tensor) -> Result<()>,
    ) -> Result<()> {
        let [frames, height, width] = self.latent_size(latents)?;
        let factor = self.config().spatial_factor();
        let grid = Grid::new(Some(tiling), height, width, factor)?;
        let (tiles, size) = (grid.tiles.clone(), (height * factor, width * factor));
        let blend = Blend::new(grid, factor, latents.device())?;
        let latents = latents.squeeze(0)?;
        let mut sums: Vec<Sum> = Vec::new();
        for (index, tile) in tiles.iter().enumerate() {
            let part = latents.narrow(2, tile.rows.start, tile.rows.len())?.narrow(
                3,
                tile.columns.start,
                tile.columns.len(),
            )?;
            let mut cache = Cache::new(self.slots());
            for frame in 0..frames {
                let pixels = self.chunk(&part.narrow(1, frame, 1)?, &mut cache)?; // [3, n, rows, columns]
                if sums.len() == frame {
                    sums.push(Sum::new(pixels.dim(1)?, size));
                }
                let term = to_host(&blend.weighted(index, pixels)?)?;
                let at = |latent: &Range<usize>| latent.start * factor..latent.end * factor;
                sums[frame].add(&term, at(&tile.rows), at(&tile.columns))?;
                done(index * frames + frame + 1, tiles.len() * frames)?;
            }
        }
        let total = blend.total().map(to_host).transpose()?;
        for (frame, sum) in sums.into_iter().enumerate() {
            let sum = sum.into_tensor()?;
            let chunk = match &total {
                Some(total) => sum.broadcast_div(total)?,
                None => sum,
            };
            check_finite(&chunk, frame + 1)?; // before infinity is clamped away
            sink(chunk.clamp(-1f32, 1f32)?)?;
        }
        Ok(())
    }
}

/// The frames of one latent frame, `[3, n, height, width]`, as far as tiles have been added.
struct Sum {
    values: Vec<f32>,
    frames: usize,
    height: usize,
    width: usize,
}

impl Sum {
    fn new(frames: usize, (height, width): (usize, usize)) -> Self {
        Self { values: vec![0.0; 3 * frames * height * width], frames, height, width }
    }

    /// Adds `term` `[3, n, rows, columns]`.
    fn add(&mut self, term: &Tensor, rows: Range<usize>, columns: Range<usize>) -> Result<()> {
        let expected = [3, self.frames, rows.len(), columns.len()];
        if term.dims() != expected || rows.end > self.height || columns.end > self.width {
            return Err(Error::shape("decoded tile", term.dims(), format!("{expected:?}")));
        }
        let values = term.flatten_all()?.to_vec1::<f32>()?;
        let mut lines = values.chunks_exact(columns.len());
        for plane in self.values.chunks_exact_mut(self.height * self.width) {
            for line in plane.chunks_exact_mut(self.width).skip(rows.start).take(rows.len()) {
                let (sums, terms) = (&mut line[columns.clone()], lines.next().unwrap_or_default());
                sums.iter_mut().zip(terms).for_each(|(sum, term)| *sum += term);
            }
        }
        Ok(())
    }

    fn into_tensor(self) -> Result<Tensor> {
        Ok(Tensor::from_vec(self.values, (3, self.frames, self.height, self.width), &Device::Cpu)?)
    }
}
