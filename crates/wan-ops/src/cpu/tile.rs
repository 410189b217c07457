#[cfg(target_arch = "x86_64")]
use core::arch::x86_64::{__m256, __m512};

use pulp::{Arch, Simd, WithSimd};

use super::vector::Vector;

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
        if self.rows > 0 && self.columns > 0 {
            self.check();
            Arch::new().dispatch(self);
        }
    }

    fn check(&self) {
        let reach = self.offsets.iter().max().map_or(0, |far| far + self.run);
        assert!((self.rows - 1) * self.lda + reach <= self.a.len(), "left operand too short");
        assert!(self.offsets.len() * self.run * self.width <= self.panel.len(), "panel too short");
        assert!(self.width.is_multiple_of(COLUMN) && self.width <= MAX_WIDTH && self.columns <= self.width);
        assert!((self.rows - 1) * self.ldc + self.columns <= self.c.len(), "result too short");
    }

    /// Tiles of `V` rows by `N` vectors, over all rows, for the columns from `start`.
    ///
    /// # Safety
    /// The geometry was checked by [`Product::run`], `start + N T::LANES <= width`, and this code is inlined into
    /// one compiled for T's instruction set.
    #[inline(always)]
    #[allow(unsafe_code)]
    unsafe fn sweep<T: Vector, const V: usize, const N: usize>(&mut self, start: usize) {
        let span = N * T::LANES;
        let whole = start + span <= self.columns;
        let mut row = 0;
        while row < self.rows {
            let rows = V.min(self.rows - row);
            let left = Left {
                a: self.a.as_ptr().wrapping_add(row * self.lda),
                lda: self.lda,
                rows,
                offsets: self.offsets,
                run: self.run,
            };
            let b = self.panel.as_ptr().wrapping_add(start);
            if whole {
                let c = self.c.as_mut_ptr().wrapping_add(row * self.ldc + start);
                // SAFETY: by the checks of `run`, all rows of `a` and `c` are inside, and `whole` the columns.
                unsafe { tile::<T, V, N>(&left, b, self.width, c, self.ldc, self.accumulate) };
            } else {
                // The last columns are fewer than the tile's: compute aside, keep what is wanted.
                let mut aside = [0f32; MAX_ROWS * MAX_WIDTH];
                // SAFETY: `aside` holds V rows of MAX_WIDTH values, and span <= MAX_WIDTH.
                unsafe { tile::<T, V, N>(&left, b, self.width, aside.as_mut_ptr(), MAX_WIDTH, false) };
                let columns = self.columns.saturating_sub(start).min(span);
                for i in 0..rows {
                    let c = &mut self.c[(row + i) * self.ldc + start..][..columns];
                    for (c, s) in c.iter_mut().zip(&aside[i * MAX_WIDTH..]) {
                        *c = if self.accumulate { *c + s } else { *s };
                    }
                }
            }
            row += rows;
        }
    }
}

impl WithSimd for Product<'_> {
    type Output = ();

    // Tiles are as large as the registers allow: V N sums, N vectors of the panel, one of the left operand.
    #[inline(always)]
    #[allow(unsafe_code)]
    fn with_simd<S: Simd>(mut self, _: S) {
        let units = self.width / COLUMN;
        // SAFETY: `run` checked the geometry; the tiles lie inside `width`. `S` stands for the instruction set
        // that this code is compiled for and that the machine was found to have: of x86's, 16 lanes mean AVX-512
        // and 8 mean AVX2 with FMA.
        unsafe {
            match (S::F32_LANES, units) {
                #[cfg(target_arch = "x86_64")]
                (16, 1) => self.sweep::<__m512, 12, 1>(0),
                #[cfg(target_arch = "x86_64")]
                (16, 2) => self.sweep::<__m512, 10, 2>(0),
                #[cfg(target_arch = "x86_64")]
                (16, 3) => self.sweep::<__m512, 8, 3>(0),
                #[cfg(target_arch = "x86_64")]
                (16, _) => self.sweep::<__m512, 6, 4>(0),
                #[cfg(target_arch = "x86_64")]
                (8, units) => (0..units).for_each(|unit| self.sweep::<__m256, 6, 2>(unit * COLUMN)),
                (_, units) => (0..units).for_each(|unit| self.sweep::<[f32; 4], 4, 4>(unit * COLUMN)),
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

/// Runs the body for every value of an index below a constant of at most [`MAX_ROWS`], without a loop: arrays of
/// registers stay in registers only if each index into them is a constant.
macro_rules! unrolled {
    ($index:ident < $count:ident, $body:block) => {
        unrolled!($index $count $body 0 1 2 3 4 5 6 7 8 9 10 11)
    };
    ($index:ident $count:ident $body:block $($value:literal)*) => {
        $(if $value < $count {
            let $index = $value;
            $body
        })*
    };
}

/// One tile of `V` rows by `N` vectors, held in registers over the whole sum. Rows from `left.rows` on repeat the
/// last one and are not stored.
///
/// # Safety
/// `left` must be readable over its rows and runs, `b` over `N` vectors for each of the runs' values at distance
/// `ldb`, and `c` writable over `left.rows` rows of `N` vectors at distance `ldc`.
#[inline(always)]
#[allow(unsafe_code)]
unsafe fn tile<T: Vector, const V: usize, const N: usize>(
    left: &Left<'_>,
    mut b: *const f32,
    ldb: usize,
    c: *mut f32,
    ldc: usize,
    accumulate: bool,
) {
    let mut sums = [[T::splat(0.0); N]; V];
    let mut rows = [0usize; V];
    for (v, row) in rows.iter_mut().enumerate() {
        *row = v.min(left.rows - 1) * left.lda;
    }
    for &offset in left.offsets {
        let mut from = [left.a; V];
        unrolled!(v < V, {
            from[v] = left.a.wrapping_add(offset + rows[v]);
        });
        for k in 0..left.run {
            let mut right = [T::splat(0.0); N];
            unrolled!(j < N, {
                // SAFETY: readable by contract.
                right[j] = unsafe { T::load(b.wrapping_add(j * T::LANES)) };
            });
            b = b.wrapping_add(ldb);
            unrolled!(v < V, {
                // SAFETY: readable by contract.
                let x = T::splat(unsafe { *from[v].wrapping_add(k) });
                unrolled!(j < N, {
                    sums[v][j] = x.mul_add(right[j], sums[v][j]);
                });
            });
        }
    }
    unrolled!(v < V, {
        if v < left.rows {
            let c = c.wrapping_add(v * ldc);
            unrolled!(j < N, {
                let to = c.wrapping_add(j * T::LANES);
                // SAFETY: `c` is readable and writable by contract.
                unsafe {
                    let sum = if accumulate { sums[v][j].add(T::load(to)) } else { sums[v][j] };
                    sum.store(to);
                }
            });
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::panels::{pack_transposed, panels};

    /// Ragged rows and columns, overlapping rows and several runs against the plain triple loop, on every
    /// instruction set that this machine has.
    #[test]
    fn product_equals_the_triple_loop() {
        against_the_triple_loop(|product| Arch::new().dispatch(product));
        against_the_triple_loop(|product| Simd::vectorize(pulp::Scalar, product));
        #[cfg(target_arch = "x86_64")]
        if let Some(avx2) = pulp::x86::V3::try_new() {
            against_the_triple_loop(|product| Simd::vectorize(avx2, product));
        }
    }

    fn against_the_triple_loop(compute: impl Fn(Product<'_>)) {
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
                    let product = Product {
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
                    };
                    product.check();
                    compute(product);
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
