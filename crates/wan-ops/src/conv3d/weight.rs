#[cfg(any(test, feature = "cuda"))]
use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;
use wan_core::{Result, Stored};

use crate::cpu::panels::{Panel, padded, panels};
use crate::cpu::scratch::aligned_zeros;

/// A convolution's weight as panels of up to 64 outputs, each `[kt, kh, kw, inputs, outputs of the panel]` in f32.
#[derive(Debug)]
pub(super) struct PackedWeight {
    buffer: Vec<f32>,
    start: usize,
    depth: usize,
}

impl PackedWeight {
    /// Widens and packs `weight` `[outputs, inputs, kt, kh, kw]`.
    pub fn new(weight: &Stored) -> Result<Self> {
        let (outputs, inputs) = (weight.shape()[0], weight.shape()[1]);
        let depth = weight.elements() / outputs.max(1);
        let taps = depth / inputs.max(1);
        let values = weight.to_f32_vec()?;
        let (mut buffer, start) = aligned_zeros(padded(outputs) * depth);
        let mut rest = &mut buffer[start..];
        let mut pieces = Vec::new();
        for panel in panels(outputs) {
            let (piece, after) = rest.split_at_mut(panel.width * depth);
            pieces.push((panel, piece));
            rest = after;
        }
        pieces.into_par_iter().for_each(|(panel, piece)| {
            for (row, piece) in piece.chunks_exact_mut(panel.width).enumerate() {
                let (tap, input) = (row / inputs, row % inputs);
                for (column, to) in piece.iter_mut().enumerate().take(panel.columns) {
                    *to = values[((panel.start + column) * inputs + input) * taps + tap];
                }
            }
        });
        Ok(Self { buffer, start, depth })
    }

    /// Rows `from..` of a panel: row `((a kh + b) kw + c) inputs + i` is tap (a, b, c) of input `i`.
    pub fn panel(&self, panel: Panel, from: usize) -> &[f32] {
        let first = self.start + panel.start * self.depth;
        &self.buffer[first + from * panel.width..first + panel.width * self.depth]
    }
}

/// `weight` `[outputs, inputs, kt, kh, kw]` as the GPU kernels read it, in `dtype` on `device`: `[outputs, depth]`, a
/// row holding `[kt, kh, kw, inputs]` and zeros up to a multiple of 8.
#[cfg(any(test, feature = "cuda"))]
pub(super) fn packed_rows(weight: &Stored, dtype: DType, device: &Device) -> Result<Tensor> {
    let [outputs, inputs] = [weight.shape()[0], weight.shape()[1]];
    let taps = weight.elements() / (outputs * inputs).max(1);
    // Widened on the host, ordered and rounded on the device.
    let values = weight.to_f32_tensor(device)?.reshape((outputs, inputs, taps))?;
    let rows = values.transpose(1, 2)?.contiguous()?.reshape((outputs, taps * inputs))?;
    let depth = (taps * inputs).next_multiple_of(8);
    Ok(rows.pad_with_zeros(1, 0, depth - taps * inputs)?.to_dtype(dtype)?.contiguous()?)
}

/// `weight` `[outputs, inputs, kt, 3, 3]` as the kernel of compute capability 9.0 reads it, in `dtype` on `device`:
/// [`ConvTiles`](wan_cuda::ops::ConvTiles).
#[cfg(any(test, feature = "cuda"))]
pub(super) fn packed_tiles(weight: &Stored, dtype: DType, device: &Device) -> Result<Tensor> {
    use wan_cuda::ops::ConvTiles;
    const PIECES: usize = ConvTiles::INPUTS / ConvTiles::PIECE;
    let [outputs, inputs, kt] = [weight.shape()[0], weight.shape()[1], weight.shape()[2]];
    let taps = weight.elements() / (outputs * inputs).max(1);
    // Swizzled on the host, which has to widen it anyway; ordered and rounded on the device.
    let mut values = weight.to_f32_vec()?;
    let piece = ConvTiles::PIECE * taps;
    for (output, row) in values.chunks_exact_mut((inputs * taps).max(1)).enumerate() {
        for tile in row.chunks_exact_mut(PIECES * piece) {
            for from in 0..PIECES {
                let to = ConvTiles::swizzled(output % ConvTiles::OUTPUTS, from);
                if from < to {
                    let (low, high) = tile.split_at_mut(to * piece);
                    low[from * piece..][..piece].swap_with_slice(&mut high[..piece]);
                }
            }
        }
    }
    let (rows, columns) = (outputs / ConvTiles::OUTPUTS, inputs / ConvTiles::INPUTS);
    let parts = vec![rows, ConvTiles::OUTPUTS, columns, ConvTiles::INPUTS, kt, taps / kt.max(1)];
    let tiles = Tensor::from_vec(values, parts, device)?.permute(vec![0, 4, 2, 5, 1, 3])?.contiguous()?;
    Ok(tiles.to_dtype(dtype)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_hold_taps_then_outputs_then_swizzled_inputs() {
        let (outputs, inputs, taps) = (192, 64, 27);
        let value = |o: usize, i: usize, t: usize| ((o * inputs + i) * taps + t) as f32;
        let values: Vec<f32> = (0..outputs * inputs * taps).map(|i| i as f32).collect();
        let weight = Tensor::from_vec(values, (outputs, inputs, 3, 3, 3), &Device::Cpu).unwrap();
        let stored = Stored::from_tensor("w", &weight).unwrap();
        let tiles = packed_tiles(&stored, DType::F32, &Device::Cpu).unwrap();
        assert_eq!(tiles.dims(), [2, 3, 2, 9, 96, 32]);
        let found = tiles.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        // Output 96 + 5 at tap (2, 1, 0): row 5's pieces lie at p ^ 2. Its inputs 32 .. 64 are those of the second tile.
        let row = ((((3 + 2) * 2 + 1) * 9 + 3) * 96 + 5) * 32;
        let expected =
            [16, 24, 0, 8].into_iter().flat_map(|first| first..first + 8).map(|i| value(101, 32 + i, 21));
        assert_eq!(found[row..row + 32], expected.collect::<Vec<_>>());
    }

    #[test]
    fn rows_hold_taps_then_inputs_then_zeros() {
        // The value of input i at tap t of output o is 100 o + 10 i + t.
        let value = |o: usize, i: usize, t: usize| (100 * o + 10 * i + t) as f32;
        let values = (0..2).flat_map(|o| (0..3).flat_map(move |i| (0..2).map(move |t| value(o, i, t))));
        let weight = Tensor::from_iter(values, &Device::Cpu).unwrap().reshape((2, 3, 1, 1, 2)).unwrap();
        let stored = Stored::from_tensor("w", &weight).unwrap();
        let rows = packed_rows(&stored, DType::F32, &Device::Cpu).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(rows[1], [100.0, 110.0, 120.0, 101.0, 111.0, 121.0, 0.0, 0.0]);
    }
}
