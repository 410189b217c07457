//! Products with so few rows that packing the weight would cost more than it saves: the weight stays as it lies, and the
//! result is first made with its axes exchanged.

use rayon::prelude::*;
use wan_core::Stored;

use super::cpu::{Epilogue, weight_rows};
use crate::cpu::math::{sum2, vectorised};
use crate::cpu::panels::{Panel, pack_transposed, padded, panels};
use crate::cpu::scratch::{aligned_zeros, with_scratch};
use crate::cpu::tile::Product;

/// From this many rows on they are packed; fewer are multiplied as dot products.
const ROWS_TO_PACK: usize = 8;

/// Weight rows that a thread multiplies at a time.
const BLOCK: usize = 48;

/// Summation steps per pass: a panel of rows of that depth stays in the innermost cache.
const DEPTH: usize = 128;

/// `y = x wᵀ`, or `y += x wᵀ` to accumulate; then `end`, if there is one. Neither side is empty.
pub(super) fn few_rows(
    x: &[f32],
    weight: &Stored,
    accumulate: bool,
    end: Option<&Epilogue<'_>>,
    y: &mut [f32],
) {
    let (inputs, outputs) = (weight.shape()[1], weight.shape()[0]);
    let rows = y.len() / outputs;
    let packed = (rows >= ROWS_TO_PACK).then(|| PackedRows::new(x, inputs));
    let mut turned = vec![0f32; y.len()]; // [outputs, rows]
    turned.par_chunks_mut(BLOCK * rows).enumerate().for_each(|(block, turned)| {
        let (from, count) = (block * BLOCK, turned.len() / rows);
        with_scratch(count * inputs, |scratch| {
            let weights = weight_rows(weight, from, from + count, scratch);
            match &packed {
                Some(packed) => packed.multiply(weights, turned),
                None => dot_products(x, weights, inputs, turned),
            }
        });
    });
    turn(&turned, rows, accumulate, y);
    if let Some(end) = end {
        y.par_chunks_mut(outputs).for_each(|row| end.apply(0, row));
    }
}

/// `turned[o, r] = w[o] · x[r]`.
fn dot_products(x: &[f32], weights: &[f32], inputs: usize, turned: &mut [f32]) {
    let rows = x.len() / inputs;
    vectorised(
        #[inline(always)]
        || {
            for (w, turned) in weights.chunks_exact(inputs).zip(turned.chunks_exact_mut(rows)) {
                for (x, y) in x.chunks_exact(inputs).zip(turned) {
                    *y = sum2(x, w, |x, w| x * w);
                }
            }
        },
    );
}

/// All rows of the left operand, packed as the right one of a product.
struct PackedRows {
    rows: usize,
    inputs: usize,
    panels: Vec<Panel>,
    values: Vec<f32>,
    aligned: usize,
}

impl PackedRows {
    fn new(x: &[f32], inputs: usize) -> Self {
        let rows = x.len() / inputs;
        let panels: Vec<Panel> = panels(rows).collect();
        let (mut values, aligned) = aligned_zeros(padded(rows) * inputs);
        let mut rest = &mut values[aligned..];
        for panel in &panels {
            let (piece, after) = rest.split_at_mut(panel.width * inputs);
            pack_transposed(&x[panel.start * inputs..], inputs, panel.columns, inputs, panel.width, piece);
            rest = after;
        }
        Self { rows, inputs, panels, values, aligned }
    }

    /// `turned[o, r] = w[o] · x[r]`, on one thread.
    fn multiply(&self, weights: &[f32], turned: &mut [f32]) {
        let inputs = self.inputs;
        for k in (0..inputs).step_by(DEPTH) {
            let depth = DEPTH.min(inputs - k);
            for panel in &self.panels {
                let start = self.aligned + panel.start * inputs + k * panel.width;
                Product {
                    a: &weights[k..],
                    lda: inputs,
                    rows: weights.len() / inputs,
                    offsets: &[0],
                    run: depth,
                    panel: &self.values[start..start + depth * panel.width],
                    width: panel.width,
                    c: &mut turned[panel.start..],
                    ldc: self.rows,
                    columns: panel.columns,
                    accumulate: k > 0,
                }
                .run();
            }
        }
    }
}

/// `y[r, o] = turned[o, r]`, or `+=`.
fn turn(turned: &[f32], rows: usize, accumulate: bool, y: &mut [f32]) {
    /// Rows at a time: a cache line of each column.
    const LINE: usize = 16;
    let outputs = y.len() / rows;
    y.par_chunks_mut(LINE * outputs).enumerate().for_each(|(chunk, y)| {
        let count = y.len() / outputs;
        for (o, column) in turned.chunks_exact(rows).enumerate() {
            for (r, value) in column[chunk * LINE..][..count].iter().enumerate() {
                let y = &mut y[r * outputs + o];
                *y = if accumulate { *y + value } else { *value };
            }
        }
    });
}
