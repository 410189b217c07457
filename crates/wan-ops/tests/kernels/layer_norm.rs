use candle_core::Tensor;
use wan_cuda::ops::{self, Affine as Places};
use wan_ops::{Affine, layer_norm};

use crate::FLOATS;
use crate::host::{Buffer, run};
use crate::testing::{assert_close, random};

#[test]
fn equals_the_cpu() {
    for (float, dtype, tolerance) in FLOATS {
        for (rows, dim) in [(1, 1), (3, 7), (5, 64), (4, 257), (9, 1536), (2, 5120)] {
            let x = (random(&[rows, dim], 1) + 5.0).unwrap().to_dtype(dtype).unwrap();
            let (a, b) = (random(&[dim], 2), random(&[dim], 3));
            let (x_buffer, a_buffer, b_buffer) = (Buffer::of(&x), Buffer::of(&a), Buffer::of(&b));
            let (ap, bp) = (a_buffer.ptr(), b_buffer.ptr());
            let cases: [(Places, Affine<'_>); 3] = [
                (Places::None, Affine::None),
                (Places::Weights { weight: ap, bias: bp }, Affine::Weights { weight: &a, bias: &b }),
                (Places::Modulation { shift: ap, scale: bp }, Affine::Modulation { shift: &a, scale: &b }),
            ];
            for (places, affine) in cases {
                let y = Buffer::poisoned(dtype, rows * dim);
                let launch = ops::layer_norm(float, x_buffer.ptr(), y.ptr(), rows, dim, 1e-6, places);
                run(&launch, &[&x_buffer, &a_buffer, &b_buffer, &y]);
                let want = layer_norm(&x, 1e-6, affine).unwrap();
                assert_close(&y.tensor(dtype, &[rows, dim]), &want, tolerance.max(1e-5));
            }
        }
    }
}

/// Rows whose start is not aligned to 16 bytes take the path without packs.
#[test]
fn takes_unaligned_rows_and_works_in_place() {
    let (rows, dim) = (3, 40);
    let x = random(&[rows, dim], 4);
    let values = Buffer::of(&Tensor::cat(&[&random(&[1], 5), &x.flatten_all().unwrap()], 0).unwrap());
    let at = values.ptr().offset(4);
    run(&ops::layer_norm(wan_cuda::Float::F32, at, at, rows, dim, 1e-5, Places::None), &[&values]);
    let found = values.tensor(candle_core::DType::F32, &[1 + rows * dim]);
    let found = found.narrow(0, 1, rows * dim).unwrap().reshape((rows, dim)).unwrap();
    assert_close(&found, &layer_norm(&x, 1e-5, Affine::None).unwrap(), 1e-5);
}
