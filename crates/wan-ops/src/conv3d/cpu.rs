use std::ops::Range;

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape};
use rayon::prelude::*;

use super::weight::PackedWeight;
use super::{ConvSpec, Convolution};
use crate::cpu::panels::panels;
use crate::cpu::scratch::with_scratch;
use crate::cpu::storage;
use crate::cpu::tile::Product;

/// Input values gathered at a time, f32: 512 KB, which leave room in a second-level cache for weights and results.
const GATHERED: usize = 1 << 17;

/// Summation steps per pass over a block: a panel of that depth stays in the first-level cache, nearly.
const DEPTH: usize = 256;

pub(super) fn forward(op: &Convolution<'_>, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
    let name = op.name();
    let spec = op.layer.spec;
    let (frames, height, width, inputs) = layout.shape().dims4()?;
    let packed = match op.layer.packed.get() {
        Some(packed) => packed,
        None => {
            let made = PackedWeight::new(&op.layer.weight)?;
            op.layer.packed.get_or_init(|| made)
        }
    };
    let values = storage::values(name, x, layout)?;
    let history = op.history.map(|h| storage::read(name, h));
    let history = history.as_ref().map(|h| h.values()).transpose()?;
    let residual = op.residual.map(|r| storage::read(name, r));
    let residual = residual.as_ref().map(|r| r.values()).transpose()?;
    let bias = storage::copied(name, &op.layer.bias)?;

    let [t_out, h_out, w_out, outputs] = op.out;
    let input = Input {
        spec,
        frames,
        height,
        width,
        values: &values,
        history: history.as_deref().unwrap_or_default(),
    };
    let mut y = vec![0f32; t_out * h_out * w_out * outputs];
    if !y.is_empty() && inputs > 0 {
        let [rows, columns] = block_size(&spec, op.out);
        let row_size = w_out * outputs;
        let pieces: Vec<(usize, usize, &mut [f32])> = y
            .chunks_mut(h_out * row_size)
            .enumerate()
            .flat_map(|(t, frame)| {
                frame.chunks_mut(rows * row_size).enumerate().map(move |(i, piece)| (t, i * rows, piece))
            })
            .collect();
        pieces.into_par_iter().for_each(|(t, row, piece)| {
            let rows = row..row + piece.len() / row_size;
            for from in (0..w_out).step_by(columns) {
                let block = Block { t, rows: rows.clone(), columns: from..w_out.min(from + columns) };
                input.convolve(&block, packed, piece, w_out);
            }
            let residual = residual.as_ref().map(|r| &r[(t * h_out + row) * row_size..][..piece.len()]);
            finish(piece, &bias, residual);
        });
    }
    Ok((storage::rounded(name, y, x.dtype())?, op.out.as_slice().into()))
}

/// Adds bias and residual to finished sums.
fn finish(y: &mut [f32], bias: &[f32], residual: Option<&[f32]>) {
    for (i, voxel) in y.chunks_exact_mut(bias.len()).enumerate() {
        match residual {
            Some(residual) => {
                let residual = &residual[i * bias.len()..][..bias.len()];
                voxel.iter_mut().zip(bias).zip(residual).for_each(|((y, b), r)| *y += b + r);
            }
            None => voxel.iter_mut().zip(bias).for_each(|(y, b)| *y += b),
        }
    }
}

/// Rows and columns of the output to compute at a time: what they read fits [`GATHERED`], and there are enough
/// blocks of rows to share out.
fn block_size(spec: &ConvSpec, [t, h, w, _]: [usize; 4]) -> [usize; 2] {
    const PIECES: usize = 16;
    let [kt, kh, kw] = spec.kernel;
    let [_, sh, sw] = spec.stride;
    let mut rows = 8.min(h);
    while rows > 1 && t * h.div_ceil(rows) < PIECES {
        rows /= 2;
    }
    loop {
        let across = GATHERED / (kt * ((rows - 1) * sh + kh) * spec.inputs.max(1));
        let columns = across.saturating_sub(kw) / sw + 1;
        if columns >= w || columns >= 24 || rows == 1 {
            return [rows, columns.clamp(12, w.max(12))];
        }
        rows /= 2;
    }
}

/// A part of one output frame.
struct Block {
    t: usize,
    rows: Range<usize>,
    columns: Range<usize>,
}

/// The video as the kernel sees it: history in front, padding around, pixels perhaps repeated.
struct Input<'a> {
    spec: ConvSpec,
    frames: usize,
    height: usize,
    width: usize,
    values: &'a [f32],
    history: &'a [f32],
}

impl Input<'_> {
    /// Frame `index` counted from the first one in front; `None` where that is zeros.
    fn frame(&self, index: usize) -> Option<&[f32]> {
        let size = self.height * self.width * self.spec.inputs;
        let (of, position) = match index.checked_sub(self.spec.front) {
            Some(position) => (self.values, position),
            None => {
                let known = self.history.len().checked_div(size).unwrap_or(0);
                (self.history, (known + index).checked_sub(self.spec.front)?)
            }
        };
        debug_assert!(index < self.frames + self.spec.front);
        of.get(position * size..(position + 1) * size)
    }

    /// Writes the sums of `block` to its columns of `y` `[rows, w_out, outputs]`.
    ///
    /// The block's input, with its border, is gathered into scratch memory once; a tap's values for neighbouring
    /// outputs are then overlapping rows of it, and all taps of one row of the kernel one run.
    fn convolve(&self, block: &Block, packed: &PackedWeight, y: &mut [f32], w_out: usize) {
        let ConvSpec { inputs, outputs, kernel: [kt, kh, kw], stride: [st, sh, sw], .. } = self.spec;
        let across = (block.columns.len() - 1) * sw + kw;
        let down = (block.rows.len() - 1) * sh + kh;
        let plane = down * across * inputs;
        // Frames of zeros come first: their taps are left out.
        let from = (0..kt).find(|a| self.frame(block.t * st + a).is_some()).unwrap_or(kt);
        if from == kt {
            return; // `y` starts as zeros
        }
        with_scratch((kt - from) * plane, |gathered| {
            for (a, plane) in (from..kt).zip(gathered.chunks_exact_mut(plane)) {
                self.gather(block, self.frame(block.t * st + a), across, plane);
            }
            let runs: Vec<usize> =
                (0..(kt - from) * kh).map(|i| (i / kh) * plane + (i % kh) * across * inputs).collect();
            let passes = passes(&runs, kw * inputs);
            for panel in panels(outputs) {
                let weight = packed.panel(panel, from * kh * kw * inputs);
                for (i, pass) in passes.iter().enumerate() {
                    for row in 0..block.rows.len() {
                        Product {
                            a: &gathered[row * sh * across * inputs..],
                            lda: sw * inputs,
                            rows: block.columns.len(),
                            offsets: &pass.offsets,
                            run: pass.run,
                            panel: &weight[pass.start * panel.width..],
                            width: panel.width,
                            c: &mut y[(row * w_out + block.columns.start) * outputs + panel.start..],
                            ldc: outputs,
                            columns: panel.columns,
                            accumulate: i > 0,
                        }
                        .run();
                    }
                }
            }
        });
    }

    /// Copies what `block` reads of one frame to `plane` `[down, across, inputs]`.
    fn gather(&self, block: &Block, frame: Option<&[f32]>, across: usize, plane: &mut [f32]) {
        let ConvSpec { inputs, stride: [_, sh, sw], padding: [top, _, left, _], upsample, .. } = self.spec;
        let scale = if upsample { 2 } else { 1 };
        let Some(frame) = frame else { return plane.fill(0.0) };
        for (i, line) in plane.chunks_exact_mut(across * inputs).enumerate() {
            let row = (block.rows.start * sh + i).checked_sub(top).map(|row| row / scale);
            let Some(row) = row.filter(|row| *row < self.height) else {
                line.fill(0.0);
                continue;
            };
            let source = &frame[row * self.width * inputs..][..self.width * inputs];
            // Positions of the line inside the (enlarged) picture; the rest is padding.
            let first = block.columns.start * sw;
            let begin = left.saturating_sub(first).min(across);
            let end = (self.width * scale + left).saturating_sub(first).clamp(begin, across);
            line[..begin * inputs].fill(0.0);
            line[end * inputs..].fill(0.0);
            let middle = &mut line[begin * inputs..end * inputs];
            let start = first + begin - left.min(first + begin);
            if upsample {
                for (column, voxel) in middle.chunks_exact_mut(inputs).enumerate() {
                    voxel.copy_from_slice(&source[(start + column) / 2 * inputs..][..inputs]);
                }
            } else {
                middle.copy_from_slice(&source[start * inputs..][..(end - begin) * inputs]);
            }
        }
    }
}

/// A part of the sum over taps and inputs.
struct Pass {
    /// Weight row it starts at.
    start: usize,
    offsets: Vec<usize>,
    run: usize,
}

/// Cuts `runs` of `length` values into passes of about [`DEPTH`] values: several whole runs, or a part of one.
fn passes(runs: &[usize], length: usize) -> Vec<Pass> {
    if length <= DEPTH {
        let per_pass = runs.len().div_ceil((runs.len() * length).div_ceil(2 * DEPTH)).max(1);
        return runs
            .chunks(per_pass)
            .enumerate()
            .map(|(i, offsets)| Pass { start: i * per_pass * length, offsets: offsets.to_vec(), run: length })
            .collect();
    }
    let parts = length.div_ceil(DEPTH);
    runs.iter()
        .enumerate()
        .flat_map(|(i, offset)| {
            (0..parts).map(move |part| {
                let (from, to) = (part * length / parts, (part + 1) * length / parts);
                Pass { start: i * length + from, offsets: vec![offset + from], run: to - from }
            })
        })
        .collect()
}
