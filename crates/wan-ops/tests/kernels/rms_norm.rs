use candle_core::{DType, Tensor};
use wan_cuda::Float;
use wan_cuda::ops::{self, Rotation};
use wan_ops::{Sums, rms_norm, rms_norm_rope};

use crate::FLOATS;
use crate::host::{Buffer, run};
use crate::testing::{assert_close, random};

const EPS: f32 = 1e-6;

#[test]
fn equals_the_cpu() {
    for (float, dtype, tolerance) in FLOATS {
        for shape in [[1, 1], [3, 7], [5, 64], [4, 257], [3, 1536], [2, 5120]] {
            let [rows, dim] = shape;
            let (x, weight) = (random(&shape, 1).to_dtype(dtype).unwrap(), random(&[dim], 2));
            let (xb, wb, y) = (Buffer::of(&x), Buffer::of(&weight), Buffer::poisoned(dtype, rows * dim));
            let plain = ops::Sums::plain(float, xb.ptr());
            run(&ops::rms_norm(plain, [wb.ptr(), y.ptr()], None, shape, EPS), &[&xb, &wb, &y]);
            assert_close(&y.tensor(dtype, &shape), &rms_norm(&x, &weight, EPS).unwrap(), tolerance);
        }
    }
}

#[test]
fn rotation_equals_the_cpu() {
    for (float, dtype, tolerance) in FLOATS {
        // Heads that are whole groups of 8, heads that are not, rows that are not.
        for (rows, dim, head) in
            [(1, 2, 2), (7, 30, 10), (3, 40, 20), (5, 1536, 128), (3, 256, 64), (2, 5120, 128)]
        {
            let shape = [rows, dim];
            let (x, weight) = (random(&shape, 3).to_dtype(dtype).unwrap(), random(&[dim], 4));
            let table = random(&[rows, head / 2, 2], 5);
            let [xb, wb, tb] = [&x, &weight, &table].map(Buffer::of);
            let y = Buffer::poisoned(dtype, rows * dim);
            let rotation = Rotation { table: tb.ptr(), head };
            let plain = ops::Sums::plain(float, xb.ptr());
            let launch = ops::rms_norm(plain, [wb.ptr(), y.ptr()], Some(rotation), shape, EPS);
            run(&launch, &[&xb, &wb, &tb, &y]);
            let want = rms_norm_rope(&x, &weight, EPS, &table).unwrap();
            assert_close(&y.tensor(dtype, &shape), &want, tolerance);

            // Bare sums of a product, of any magnitude.
            let (row_scale, bias) =
                ((random(&[rows], 10) * 1e3).unwrap(), (random(&[dim], 11) * 1e3).unwrap());
            let [sb, bb] = [&row_scale, &bias].map(Buffer::of);
            let y = Buffer::poisoned(dtype, rows * dim);
            let sums = ops::Sums { float, x: xb.ptr(), row_scale: sb.ptr(), bias: bb.ptr() };
            let launch = ops::rms_norm(sums, [wb.ptr(), y.ptr()], Some(rotation), shape, EPS);
            run(&launch, &[&xb, &sb, &bb, &wb, &tb, &y]);
            let sums = Sums::new(x, Some(row_scale), Some(bias)).unwrap();
            let want = rms_norm_rope(sums, &weight, EPS, &table).unwrap();
            assert_close(&y.tensor(dtype, &shape), &want, tolerance);
        }
    }
}

/// Rows whose start is not aligned to 16 bytes take the path without packs.
#[test]
fn takes_unaligned_rows_and_works_in_place() {
    let shape = [3, 40];
    let (x, weight, table) = (random(&shape, 6), random(&[40], 7), random(&[3, 4, 2], 8));
    let flat =
        |t: &Tensor| Buffer::of(&Tensor::cat(&[&random(&[1], 9), &t.flatten_all().unwrap()], 0).unwrap());
    let [xb, wb, tb] = [&x, &weight, &table].map(flat);
    let [at, w, t] = [&xb, &wb, &tb].map(|b| b.ptr().offset(4));
    let rotation = Rotation { table: t, head: 8 };
    let plain = ops::Sums::plain(Float::F32, at);
    run(&ops::rms_norm(plain, [w, at], Some(rotation), shape, EPS), &[&xb, &wb, &tb]);
    let found = xb.tensor(DType::F32, &[121]).narrow(0, 1, 120).unwrap().reshape((3, 40)).unwrap();
    assert_close(&found, &rms_norm_rope(&x, &weight, EPS, &table).unwrap(), 2e-6);
}
