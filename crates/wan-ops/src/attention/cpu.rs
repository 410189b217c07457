use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape};
use rayon::prelude::*;

use super::Attention;
use crate::cpu::math::{exp2, max, sum, vectorised};
use crate::cpu::panels::{pack_rows, pack_transposed, padded, panels};
use crate::cpu::scratch::{aligned_zeros, with_scratch};
use crate::cpu::storage;
use crate::cpu::tile::Product;

/// Queries to a piece of work.
const QUERIES: usize = 96;

/// Keys to a step of the online softmax: scores, keys and values of a step stay in the inner caches.
const KEYS: usize = 512;

/// Packed keys and values at a time, f32: heads are taken in groups of this size.
const GROUP: usize = 1 << 24;

pub(super) fn forward(
    op: &Attention<'_>,
    (q, q_layout): (&CpuStorage, &Layout),
    (k, k_layout): (&CpuStorage, &Layout),
    (v, v_layout): (&CpuStorage, &Layout),
) -> Result<(CpuStorage, Shape)> {
    let name = op.name();
    let (l, heads, d) = q_layout.shape().dims3()?;
    let s = k_layout.dims()[0];
    let (qs, ks, vs) = (
        storage::values(name, q, q_layout)?,
        storage::values(name, k, k_layout)?,
        storage::values(name, v, v_layout)?,
    );
    let bias = op.bias.map(|b| storage::read(name, b));
    let bias = bias.as_ref().map(|b| b.values()).transpose()?;
    let mut y = vec![0f32; l * heads * d];
    if !y.is_empty() {
        let packed_size = padded(s) * d + s * padded(d);
        let group = (GROUP / packed_size).clamp(1, heads);
        let (mut packed, aligned) = aligned_zeros(group * packed_size);
        let mut heads_first = vec![0f32; group * l * d];
        for first in (0..heads).step_by(group) {
            let count = group.min(heads - first);
            let packed = &mut packed[aligned..][..count * packed_size];
            packed.par_chunks_mut(packed_size).enumerate().for_each(|(i, packed)| {
                pack_head(&ks, &vs, heads, first + i, d, s, packed);
            });
            let packed: &[f32] = packed;
            // Pieces [head][block of queries], each a contiguous part of [heads, L, D].
            let results = &mut heads_first[..count * l * d];
            let pieces: Vec<(usize, usize, &mut [f32])> = results
                .chunks_mut(l * d)
                .enumerate()
                .flat_map(|(i, head)| {
                    head.chunks_mut(QUERIES * d).enumerate().map(move |(b, piece)| (i, b * QUERIES, piece))
                })
                .collect();
            pieces.into_par_iter().for_each(|(i, query, piece)| {
                let head = Head {
                    d,
                    s,
                    keys: &packed[i * packed_size..][..padded(s) * d],
                    values: &packed[i * packed_size + padded(s) * d..][..s * padded(d)],
                };
                let rows = piece.len() / d;
                let bias = bias.as_ref().map(|b| &b[((first + i) * l + query) * s..][..rows * s]);
                head.attend(&qs[(query * heads + first + i) * d..], heads * d, op.scale, bias, piece);
            });
            // [heads, L, D] to [L, heads, D].
            y.par_chunks_mut(heads * d).enumerate().for_each(|(row, y)| {
                for i in 0..count {
                    let from = &heads_first[(i * l + row) * d..][..d];
                    y[(first + i) * d..][..d].copy_from_slice(from);
                }
            });
        }
    }
    Ok((storage::rounded(name, y, q.dtype())?, q_layout.shape().clone()))
}

/// Packs one head: keys as panels of up to 64 keys `[D, keys]`, then values as panels of up to 64 channels
/// `[S, channels]`.
fn pack_head(k: &[f32], v: &[f32], heads: usize, head: usize, d: usize, s: usize, packed: &mut [f32]) {
    let (keys, values) = packed.split_at_mut(padded(s) * d);
    for p in panels(s) {
        let out = &mut keys[p.start * d..][..p.width * d];
        pack_transposed(&k[(p.start * heads + head) * d..], heads * d, p.columns, d, p.width, out);
    }
    for p in panels(d) {
        pack_rows(&v[head * d..], heads * d, p, &mut values[p.start * s..][..p.width * s]);
    }
}

/// One head's packed keys and values.
struct Head<'a> {
    d: usize,
    s: usize,
    keys: &'a [f32],
    values: &'a [f32],
}

impl Head<'_> {
    /// Attention of a block of queries, on one thread.
    ///
    /// `q`: rows at distance `ldq`; `bias`: `[rows, S]`; `y`: `[rows, D]`.
    fn attend(&self, q: &[f32], ldq: usize, scale: f32, bias: Option<&[f32]>, y: &mut [f32]) {
        let d = self.d;
        let rows = y.len() / d;
        let steps: Vec<_> = panels(self.s).collect();
        // Panels per step: whole panels, so that a step's keys and scores are contiguous.
        let per_step = (KEYS / steps.iter().map(|p| p.width).max().unwrap_or(KEYS)).max(1);
        with_scratch(rows * d + rows * KEYS + 2 * rows, |scratch| {
            let (scores, scratch) = scratch.split_at_mut(rows * KEYS);
            let (queries, state) = scratch.split_at_mut(rows * d);
            let (most, total) = state.split_at_mut(rows);
            most.fill(f32::NEG_INFINITY);
            total.fill(0.0);
            // Exponentials are taken to base 2: its logarithm goes into the scale, and into the bias below.
            let scale = scale * std::f32::consts::LOG2_E;
            for (i, row) in queries.chunks_exact_mut(d).enumerate() {
                row.iter_mut().zip(&q[i * ldq..]).for_each(|(to, from)| *to = from * scale);
            }
            for (step, panels_of_step) in steps.chunks(per_step).enumerate() {
                let first = panels_of_step[0].start;
                for p in panels_of_step {
                    Product {
                        a: queries,
                        lda: d,
                        rows,
                        offsets: &[0],
                        run: d,
                        panel: &self.keys[p.start * d..][..p.width * d],
                        width: p.width,
                        c: &mut scores[p.start - first..],
                        ldc: KEYS,
                        columns: p.columns,
                        accumulate: false,
                    }
                    .run();
                }
                let last = panels_of_step[panels_of_step.len() - 1];
                let keys = last.start + last.columns - first;
                let bias = bias.map(|b| &b[first..]);
                vectorised(
                    #[inline(always)]
                    || {
                        for (i, row) in scores.chunks_exact_mut(KEYS).enumerate() {
                            let bias = bias.map(|b| &b[i * self.s..][..keys]);
                            let y = &mut y[i * d..(i + 1) * d];
                            softmax_step(&mut row[..keys], bias, &mut most[i], &mut total[i], y);
                        }
                    },
                );
                for p in panels(d) {
                    Product {
                        a: scores,
                        lda: KEYS,
                        rows,
                        offsets: &[0],
                        run: keys,
                        panel: &self.values[p.start * self.s + first * p.width..][..keys * p.width],
                        width: p.width,
                        c: &mut y[p.start..],
                        ldc: d,
                        columns: p.columns,
                        accumulate: step > 0,
                    }
                    .run();
                }
            }
            for (row, total) in y.chunks_exact_mut(d).zip(total) {
                let factor = 1.0 / *total;
                row.iter_mut().for_each(|y| *y *= factor);
            }
        });
    }
}

/// Turns a step's scores of one query (to base 2) into weights relative to the running maximum, which may rise: then
/// what was summed so far shrinks.
#[inline(always)]
fn softmax_step(scores: &mut [f32], bias: Option<&[f32]>, most: &mut f32, total: &mut f32, y: &mut [f32]) {
    if let Some(bias) = bias {
        for (s, b) in scores.iter_mut().zip(bias) {
            *s = b.mul_add(std::f32::consts::LOG2_E, *s);
        }
    }
    let new = max(scores);
    if new > *most {
        let shrink = if *most == f32::NEG_INFINITY { 0.0 } else { exp2(*most - new) };
        *total *= shrink;
        y.iter_mut().for_each(|y| *y *= shrink);
        *most = new;
    }
    // Keys masked with -infinity only: the weights are then as good as 0 until another key comes.
    let base = if *most == f32::NEG_INFINITY { 0.0 } else { *most };
    for s in scores.iter_mut() {
        *s = exp2(*s - base);
    }
    *total += sum(scores, |s| s);
}
