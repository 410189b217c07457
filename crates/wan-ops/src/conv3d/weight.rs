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

#[cfg(test)]
mod tests {
    use super::*;

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
