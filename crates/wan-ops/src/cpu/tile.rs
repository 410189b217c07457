use pulp::{Arch, Simd, WithSimd};

/// Widths of a panel are multiples of this many values, whatever the vector length.
pub(crate) const COLUMN: usize = 16;

/// Widest panel, in values.
pub(crate) const MAX_WIDTH: usize = 4 * COLUMN;

/// Most rows of any tile.
const MAX_ROWS: usize = 12;

/// `c = a b` or `c += a b` for a block of rows of `a` and one packed panel of `b`, on one thread.
///
/// The summation index runs over `offsets.len()` runs of `run` consecutive values: row `i` of the left operand is
/// `a[i lda + offset ..][..run]` for each offset in turn. A convolution's taps are such runs of its input, so it
/// needs no unfolded copy; an ordinary product has the one offset 0. Rows may overlap.
pub(crate) struct Product<'a> {
    /// Left operand.
    pub a: &'a [f32],
    /// Distance of its rows.
    pub lda: usize,
    /// Number of rows.
    pub rows: usize,
    /// Where the runs of a row start.
    pub offsets: &'a [usize],
    /// Length of each run.
    pub run: usize,
    /// Right operand, `[offsets.len() run, width]`.
    pub panel: &'a [f32],
    /// Its width: 16, 32, 48 or 64.
    pub width: usize,
    /// Result, `[rows, columns]`.
    pub c: &'a mut [f32],
    /// Distance of its rows.
    pub ldc: usize,
    /// Columns wanted, at most `width`.
    pub columns: usize,
    /// Add to `c` instead of overwriting it.
    pub accumulate: bool,
}

impl Product<'_> {
    /// Computes the product.
    ///
    /// # Panics
    /// If a slice is too short for the stated geometry.
    pub fn run(self) {
        if self.rows == 0 || self.columns == 0 {
            return;
        }
        let reach = self.offsets.iter().max().map_or(0, |far| far + self.run);
        assert!((self.rows - 1) * self.lda + reach <= self.a.len(), "left operand too short");
        assert!(self.offsets.len() * self.run * self.width <= self.panel.len(), "panel too short");
        assert!(self.width % COLUMN == 0 && self.width <= MAX_WIDTH && self.columns <= self.width);
        assert!((self.rows - 1) * self.ldc + self.columns <= self.c.len(), "result too short");
        Arch::new().dispatch(self);
    }

    /// Tiles of `V` rows by `N` vectors, over all rows, for the columns from `start`.
    ///
    /// # Safety
    /// The geometry was checked by [`Product::run`], and `start + N S::F32_LANES <= width`.
    #[inline(always)]
    #[allow(unsafe_code)]
    unsafe fn sweep<S: Simd, const V: usize, const N: usize>(&mut self, simd: S, start: usize) {
        let span = N * S::F32_LANES;
        let whole = start + span <= self.columns;
        for row in (0..self.rows).step_by(V) {
            let rows = V.min(self.rows - row);
            // SAFETY: in bounds by the checks of `run`.
            let (a, b) = unsafe { (self.a.as_ptr().add(row * self.lda), self.panel.as_ptr().add(start)) };
            let left = Left { a, lda: self.lda, rows, offsets: self.offsets, run: self.run };
            if whole {
                // SAFETY: `rows` rows of `span` values from here lie inside `c`.
                unsafe {
                    let c = self.c.as_mut_ptr().add(row * self.ldc + start);
                    tile::<S, V, N>(simd, &left, b, self.width, c, self.ldc, self.accumulate);
                }
            } else {
                // The last columns are fewer than the tile's: compute aside, keep what is wanted.
                let mut aside = [0f32; MAX_ROWS * MAX_WIDTH];
                // SAFETY: `aside` holds V rows of MAX_WIDTH values, and span <= MAX_WIDTH.
                unsafe { tile::<S, V, N>(simd, &left, b, self.width, aside.as_mut_ptr(), MAX_WIDTH, false) };
                let columns = self.columns.saturating_sub(start).min(span);
                for i in 0..rows {
                    let c = &mut self.c[(row + i) * self.ldc + start..][..columns];
                    for (c, s) in c.iter_mut().zip(&aside[i * MAX_WIDTH..]) {
                        *c = if self.accumulate { *c + s } else { *s };
                    }
                }
            }
        }
    }
}

impl WithSimd for Product<'_> {
    type Output = ();

    // Tiles are as large as the registers allow: V N accumulators, N vectors of the panel, one broadcast.
    #[inline(always)]
    #[allow(unsafe_code)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let lanes = S::F32_LANES;
        // SAFETY: `run` checked the geometry; the starts below step through `width` in whole tiles.
        unsafe {
            match (lanes, self.width / COLUMN) {
                (16, 1) => self.sweep::<S, 12, 1>(simd, 0),
                (16, 2) => self.sweep::<S, 10, 2>(simd, 0),
                (16, 3) => self.sweep::<S, 8, 3>(simd, 0),
                (16, _) => self.sweep::<S, 6, 4>(simd, 0),
                (8, columns) => {
                    for column in 0..columns {
                        self.sweep::<S, 6, 2>(simd, column * COLUMN);
                    }
                }
                (4, columns) => {
                    for column in 0..columns {
                        self.sweep::<S, 6, 4>(simd, column * COLUMN);
                    }
                }
                _ => {
                    for start in (0..self.width).step_by(lanes) {
                        self.sweep::<S, 4, 1>(simd, start);
                    }
                }
            }
        }
    }
}

/// The rows of the left operand that a tile reads.
struct Left<'a> {
    a: *const f32,
    lda: usize,
    rows: usize,
    offsets: &'a [usize],
    run: usize,
}

/// One tile of `V` by `N` vectors, held in registers over the whole sum. Rows from `left.rows` on repeat the last
/// one and are not stored.
///
/// # Safety
/// `left` must be readable over its rows and runs, `b` over `N` vectors for each of the runs' values at distance
/// `ldb`, and `c` writable over `left.rows` rows of `N` vectors at distance `ldc`.
#[inline(always)]
#[allow(unsafe_code)]
unsafe fn tile<S: Simd, const V: usize, const N: usize>(
    simd: S,
    left: &Left<'_>,
    mut b: *const f32,
    ldb: usize,
    c: *mut f32,
    ldc: usize,
    accumulate: bool,
) {
    let lanes = S::F32_LANES;
    let zero = simd.splat_f32s(0.0);
    let mut sums = [[zero; N]; V];
    let mut rows = [0usize; V];
    for (v, row) in rows.iter_mut().enumerate() {
        *row = v.min(left.rows - 1) * left.lda;
    }
    // SAFETY: the caller vouches for the three operands; f32 vectors may be read and written unaligned.
    unsafe {
        for &offset in left.offsets {
            let mut from = [left.a; V];
            for v in 0..V {
                from[v] = left.a.add(offset + rows[v]);
            }
            for k in 0..left.run {
                let mut right = [zero; N];
                for (j, right) in right.iter_mut().enumerate() {
                    *right = b.add(j * lanes).cast::<S::f32s>().read_unaligned();
                }
                b = b.add(ldb);
                for v in 0..V {
                    let x = simd.splat_f32s(*from[v].add(k));
                    for j in 0..N {
                        sums[v][j] = simd.mul_add_e_f32s(x, right[j], sums[v][j]);
                    }
                }
            }
        }
        for (v, sums) in sums.iter().enumerate().take(left.rows) {
            for (j, sum) in sums.iter().enumerate() {
                let to = c.add(v * ldc + j * lanes).cast::<S::f32s>();
                let sum = if accumulate { simd.add_f32s(to.read_unaligned(), *sum) } else { *sum };
                to.write_unaligned(sum);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::panels::{pack_transposed, panels};

    /// Ragged rows and columns, overlapping rows and several runs against the plain triple loop.
    #[test]
    fn product_equals_the_triple_loop() {
        for (rows, n, lda, offsets, run) in [
            (1, 1, 5, vec![0], 5),
            (7, 16, 9, vec![0], 9),
            (13, 35, 4, vec![0, 20, 44], 12),
            (29, 64, 3, vec![6, 0], 7),
            (25, 100, 11, vec![0], 11),
            (8, 45, 16, vec![0, 160], 48),
        ] {
            let reach = (rows - 1) * lda + offsets.iter().max().unwrap() + run;
            let a: Vec<f32> = (0..reach).map(|i| ((i * 37 % 101) as f32 - 50.0) / 16.0).collect();
            let k = offsets.len() * run;
            let b: Vec<f32> = (0..n * k).map(|i| ((i * 53 % 89) as f32 - 44.0) / 8.0).collect(); // [n, k]
            let mut c = vec![1.0f32; rows * n];
            for p in panels(n) {
                let mut panel = vec![0f32; p.width * k];
                pack_transposed(&b[p.start * k..], k, p.columns, k, p.width, &mut panel);
                for (accumulate, scale) in [(false, 1.0), (true, 2.0)] {
                    Product {
                        a: &a,
                        lda,
                        rows,
                        offsets: &offsets,
                        run,
                        panel: &panel,
                        width: p.width,
                        c: &mut c[p.start..],
                        ldc: n,
                        columns: p.columns,
                        accumulate,
                    }
                    .run();
                    for i in 0..rows {
                        for j in p.start..p.start + p.columns {
                            let mut want = 0.0;
                            for (o, offset) in offsets.iter().enumerate() {
                                for t in 0..run {
                                    want += a[i * lda + offset + t] * b[j * k + o * run + t];
                                }
                            }
                            // Every term is a multiple of 1/128 and small: sums are exact.
                            assert_eq!(c[i * n + j], scale * want, "{rows}x{n}x{k} at {i},{j}");
                        }
                    }
                }
            }
        }
    }
}
