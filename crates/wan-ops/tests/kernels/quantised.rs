//! Rows rounded to e4m3 with a scale each: what every kernel that quantises is held against.

use candle_core::{DType, Tensor};
use wan_cuda::DevPtr;
use wan_ops::Rows;

use crate::host::Buffer;

/// Largest e4m3 value.
const LARGEST: f32 = 448.0;

/// Outputs of a kernel that quantises `rows` rows of `dim` values.
pub struct Quantised {
    /// `[rows, dim]` e4m3.
    pub codes: Buffer,
    /// `[rows]` f32.
    pub scale: Buffer,
}

impl Quantised {
    pub fn poisoned(rows: usize, dim: usize) -> Self {
        Self { codes: Buffer::poisoned(DType::F8E4M3, rows * dim), scale: Buffer::poisoned(DType::F32, rows) }
    }

    pub fn places(&self) -> [DevPtr; 2] {
        [self.codes.ptr(), self.scale.ptr()]
    }

    /// Asserts that codes and scales are the CPU's: scales up to `tolerance`, which may move a value over the boundary
    /// to the next code, but no further, and seldom.
    #[track_caller]
    pub fn assert_equals(&self, want: Rows, tolerance: f32) {
        let Rows::Quantised(want) = want else { panic!("found floats, expected codes") };
        let (rows, dim) = want.codes().dims2().unwrap();
        let scales = self.scale.tensor(DType::F32, &[rows]).to_vec1::<f32>().unwrap();
        for (found, want) in scales.iter().zip(want.scales().to_vec1::<f32>().unwrap()) {
            assert!((found - want).abs() <= want * tolerance, "scale {found} for {want}");
        }
        let codes =
            |t: &Tensor| t.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let (found, want) = (codes(&self.codes.tensor(DType::F8E4M3, &[rows, dim])), codes(want.codes()));
        for (found, want) in found.iter().zip(&want) {
            let step = (want.abs() / 8.0).max(1.0 / 512.0);
            assert!((found - want).abs() <= step, "code {found} for {want}");
        }
        let different = found.iter().zip(&want).filter(|(a, b)| a != b).count();
        assert!(different <= 1 + rows * dim / 200, "{different} of {} codes differ", rows * dim);
    }

    /// Asserts that codes and scales stand for `want` `[rows, dim]` f32: the scale is the largest magnitude over 448
    /// up to `tolerance` (the kernel's own error before it rounds), and each value is off by half a step of e4m3 at
    /// most, which is 1/16 of it, or 2^-10 of the scale below the normal numbers.
    #[track_caller]
    pub fn assert_stands_for(&self, want: &Tensor, tolerance: f32) {
        let (rows, dim) = want.dims2().unwrap();
        let codes = self.codes.tensor(DType::F8E4M3, &[rows, dim]).to_dtype(DType::F32).unwrap();
        let codes = codes.to_vec2::<f32>().unwrap();
        let scales = self.scale.tensor(DType::F32, &[rows]).to_vec1::<f32>().unwrap();
        for ((row, want), scale) in codes.iter().zip(want.to_vec2::<f32>().unwrap()).zip(scales) {
            let largest = want.iter().fold(0f32, |m, v| m.max(v.abs()));
            let expected = if largest > 0.0 { largest / LARGEST } else { 1.0 };
            assert!((scale - expected).abs() <= expected * tolerance, "scale {scale} for {expected}");
            for (code, want) in row.iter().zip(want) {
                let step = (want.abs() / 16.0).max(scale / 1024.0) + largest * tolerance;
                assert!((code * scale - want).abs() <= step, "{code} x {scale} for {want}");
            }
        }
    }
}
