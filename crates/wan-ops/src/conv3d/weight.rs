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
