use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, DType, Layout, Result, Shape};
use rayon::prelude::*;
use wan_core::Stored;

use super::few_rows::few_rows;
use super::{Branch, LinearOp};
use crate::Activation;
use crate::cpu::math::{apply_inline, vectorised};
use crate::cpu::panels::{Panel, pack_transposed, padded, panels};
use crate::cpu::scratch::{aligned_zeros, with_scratch};
use crate::cpu::storage;
use crate::cpu::tile::{MAX_WIDTH, Product};

/// From this many rows on the weight is packed.
const MANY_ROWS: usize = 256;

/// Weight values packed at a time, f32: 4 MB, which stay in the outer cache while every block of rows passes.
const GROUP: usize = 1 << 20;

/// Summation steps per pass over a block: a panel of that depth stays in the inner caches.
const DEPTH: usize = 512;

pub(super) fn forward(op: &LinearOp<'_>, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
    let (inputs, outputs) = (op.layer.inputs(), op.layer.outputs());
    let values = storage::values(op.name(), x, layout)?;
    let bias = op.layer.bias.as_ref().map(|b| storage::copied("linear", b)).transpose()?;
    let end = Epilogue { bias: bias.as_deref(), activation: op.activation };
    let mut dims = layout.dims().to_vec();
    if let Some(last) = dims.last_mut() {
        *last = outputs;
    }
    let rows = dims.iter().product::<usize>() / outputs.max(1);
    let mut y = vec![0f32; rows * outputs];
    if !y.is_empty() {
        if inputs == 0 {
            y.chunks_exact_mut(outputs).for_each(|row| end.apply(0, row));
        } else if op.branches.is_empty() {
            product(&values, &op.layer.weight, false, Some(&end), &mut y);
        } else {
            product(&values, &op.layer.weight, false, None, &mut y);
            for branch in op.branches {
                add_branch(&values, branch, &mut y);
            }
            y.par_chunks_mut(outputs).for_each(|row| end.apply(0, row));
        }
    }
    Ok((storage::rounded(op.name(), y, x.dtype())?, dims.into()))
}

/// `y += branch(x)`.
fn add_branch(x: &[f32], branch: &Branch, y: &mut [f32]) {
    let scaled = |mut values: Vec<f32>, scale: f32| {
        values.iter_mut().for_each(|v| *v *= scale);
        values
    };
    match branch {
        Branch::LowRank { down, up, scale } => {
            let mut hidden = vec![0f32; x.len() / down.inputs() * down.outputs()];
            if !hidden.is_empty() {
                product(x, &down.weight, false, None, &mut hidden);
                product(&scaled(hidden, *scale), &up.weight, true, None, y);
            }
        }
        Branch::Full { diff, scale } => product(&scaled(x.to_vec(), *scale), &diff.weight, true, None, y),
    }
}

/// `y = x wᵀ`, or `y += x wᵀ` to accumulate; then `end`, if there is one. Neither side is empty.
fn product(x: &[f32], weight: &Stored, accumulate: bool, end: Option<&Epilogue<'_>>, y: &mut [f32]) {
    if y.len() / weight.shape()[0] < MANY_ROWS {
        few_rows(x, weight, accumulate, end, y);
    } else {
        packed_products(x, weight, accumulate, end, y);
    }
}

/// What follows the product.
pub(super) struct Epilogue<'a> {
    bias: Option<&'a [f32]>,
    activation: Activation,
}

impl Epilogue<'_> {
    /// Finishes a part of a row of results, from column `start` on.
    pub(super) fn apply(&self, start: usize, row: &mut [f32]) {
        vectorised(
            #[inline(always)]
            || {
                if let Some(bias) = self.bias {
                    row.iter_mut().zip(&bias[start..]).for_each(|(y, b)| *y += b);
                }
                apply_inline(self.activation, row);
            },
        );
    }
}

/// Rows `from..to` of the weight as f32: in place where the file stores aligned f32, else widened into `scratch`.
pub(super) fn weight_rows<'a>(
    weight: &'a Stored,
    from: usize,
    to: usize,
    scratch: &'a mut [f32],
) -> &'a [f32] {
    let inputs = weight.shape()[1];
    if let Some(values) = in_place(weight) {
        return &values[from * inputs..to * inputs];
    }
    let scratch = &mut scratch[..(to - from) * inputs];
    weight.widen_range(from * inputs..to * inputs, scratch);
    scratch
}

/// The whole weight where it needs no widening. Files are little-endian.
#[allow(unsafe_code)]
fn in_place(weight: &Stored) -> Option<&[f32]> {
    if weight.dtype() != DType::F32 || cfg!(target_endian = "big") {
        return None;
    }
    // SAFETY: every bit pattern is an f32; `align_to` leaves out what is not aligned.
    let (before, values, after) = unsafe { weight.bytes().align_to::<f32>() };
    (before.is_empty() && after.is_empty()).then_some(values)
}

/// Many rows: the weight is widened and packed a group of columns at a time, each group is multiplied with all
/// rows.
fn packed_products(x: &[f32], weight: &Stored, accumulate: bool, end: Option<&Epilogue<'_>>, y: &mut [f32]) {
    let (inputs, outputs) = (weight.shape()[1], weight.shape()[0]);
    let rows = y.len() / outputs;
    let block = if rows >= 1024 { 96 } else { 48 };
    let all: Vec<Panel> = panels(outputs).collect();
    let per_group = (GROUP / (inputs * MAX_WIDTH)).clamp(1, all.len());
    let (mut buffer, aligned) = aligned_zeros(padded(per_group * MAX_WIDTH) * inputs);
    for group in all.chunks(per_group) {
        let packed = &mut buffer[aligned..];
        pack_group(weight, group, packed);
        let packed: &[f32] = packed;
        y.par_chunks_mut(block * outputs).zip(x.par_chunks(block * inputs)).for_each(|(y, x)| {
            multiply_block(x, inputs, group, packed, y, outputs, accumulate);
            let Some(end) = end else { return };
            let columns = group[0].start..group[group.len() - 1].start + group[group.len() - 1].columns;
            for row in y.chunks_exact_mut(outputs) {
                end.apply(columns.start, &mut row[columns.clone()]);
            }
        });
    }
}

/// Packs the panels of `group` one after the other.
fn pack_group(weight: &Stored, group: &[Panel], packed: &mut [f32]) {
    let inputs = weight.shape()[1];
    let mut rest = packed;
    let mut pieces = Vec::with_capacity(group.len());
    for panel in group {
        let (piece, after) = rest.split_at_mut(panel.width * inputs);
        pieces.push((*panel, piece));
        rest = after;
    }
    pieces.into_par_iter().for_each(|(panel, piece)| {
        if let Some(values) = in_place(weight) {
            let columns = &values[panel.start * inputs..];
            return pack_transposed(columns, inputs, panel.columns, inputs, panel.width, piece);
        }
        // A strip of every weight row at a time, so that widened values are still in the cache when packed.
        with_scratch(panel.columns * DEPTH, |strip| {
            for k in (0..inputs).step_by(DEPTH) {
                let depth = DEPTH.min(inputs - k);
                for column in 0..panel.columns {
                    let from = (panel.start + column) * inputs + k;
                    weight.widen_range(from..from + depth, &mut strip[column * depth..(column + 1) * depth]);
                }
                let piece = &mut piece[k * panel.width..(k + depth) * panel.width];
                pack_transposed(strip, depth, panel.columns, depth, panel.width, piece);
            }
        });
    });
}

/// `y[:, group] = x w[group]ᵀ`, or `+=` to accumulate, for one block of rows, on one thread.
fn multiply_block(
    x: &[f32],
    inputs: usize,
    group: &[Panel],
    packed: &[f32],
    y: &mut [f32],
    outputs: usize,
    accumulate: bool,
) {
    let rows = x.len() / inputs;
    let first = group[0].start;
    for k in (0..inputs).step_by(DEPTH) {
        let depth = DEPTH.min(inputs - k);
        for panel in group {
            let start = (panel.start - first) * inputs + k * panel.width;
            Product {
                a: &x[k..],
                lda: inputs,
                rows,
                offsets: &[0],
                run: depth,
                panel: &packed[start..start + depth * panel.width],
                width: panel.width,
                c: &mut y[panel.start..],
                ldc: outputs,
                columns: panel.columns,
                accumulate: accumulate || k > 0,
            }
            .run();
        }
    }
}
