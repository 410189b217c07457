use candle_core::{DType, Tensor};
use wan_cuda::ops::{self, Function, Sums};
use wan_cuda::{DevPtr, Float};
use wan_ops::{Activation, activate, quantise};

use crate::FLOATS;
use crate::host::{Buffer, run};
use crate::quantised::Quantised;
use crate::testing::{assert_close, random};

const ALL: [(Function, Activation); 4] = [
    (Function::Identity, Activation::Identity),
    (Function::GeluTanh, Activation::GeluTanh),
    (Function::GeluErf, Activation::GeluErf),
    (Function::Silu, Activation::Silu),
];

#[test]
fn equals_the_cpu() {
    for (float, dtype, tolerance) in FLOATS {
        for (function, activation) in ALL {
            for shape in [[1, 1], [3, 17], [5, 64], [2, 5000]] {
                let [rows, dim] = shape;
                // Far enough out for every function's ends.
                let x = (random(&shape, 1) * 6.0).unwrap().to_dtype(dtype).unwrap();
                let (xb, y) = (Buffer::of(&x), Buffer::poisoned(dtype, rows * dim));
                let input = Sums::plain(float, xb.ptr());
                run(&ops::activate(input, y.ptr(), rows, dim, function), &[&xb, &y]);
                assert_close(&y.tensor(dtype, &shape), &activate(&x, activation).unwrap(), tolerance);
            }
        }
    }
}

/// `[rows, dim]` of `scale x + bias` in f32, then the function.
fn epilogue(x: &Tensor, scale: &Tensor, bias: &Tensor, activation: Activation) -> Tensor {
    let column = scale.reshape((scale.dim(0).unwrap(), 1)).unwrap();
    let scaled = x.to_dtype(DType::F32).unwrap().broadcast_mul(&column).unwrap();
    activate(&scaled.broadcast_add(bias).unwrap(), activation).unwrap()
}

#[test]
fn row_scales_and_bias_come_first() {
    for (float, dtype, tolerance) in FLOATS {
        for shape in [[1, 1], [3, 17], [4, 4104]] {
            let [rows, dim] = shape;
            let x = random(&shape, 2).to_dtype(dtype).unwrap();
            let (scale, bias) = (random(&[rows], 3), random(&[dim], 4));
            let [xb, sb, bb] = [&x, &scale, &bias].map(Buffer::of);
            let y = Buffer::poisoned(dtype, rows * dim);
            let input = Sums { float, x: xb.ptr(), row_scale: sb.ptr(), bias: bb.ptr() };
            run(&ops::activate(input, y.ptr(), rows, dim, Function::Silu), &[&xb, &sb, &bb, &y]);
            let want = epilogue(&x, &scale, &bias, Activation::Silu).to_dtype(dtype).unwrap();
            assert_close(&y.tensor(dtype, &shape), &want, tolerance);
        }
    }
}

#[test]
fn quantised_rows_stand_for_the_result() {
    for (float, dtype, _) in FLOATS {
        for shape in [[1, 1], [3, 17], [4, 512], [2, 13824]] {
            let [rows, dim] = shape;
            let x = random(&shape, 5).to_dtype(dtype).unwrap();
            let (scale, bias) = (random(&[rows], 6), random(&[dim], 7));
            let [xb, sb, bb] = [&x, &scale, &bias].map(Buffer::of);
            let out = Quantised::poisoned(rows, dim);
            let buffers = [&xb, &sb, &bb, &out.codes, &out.scale];
            let input = Sums { float, x: xb.ptr(), row_scale: sb.ptr(), bias: bb.ptr() };
            run(&ops::activate_quantise(input, out.places(), rows, dim, Function::GeluTanh), &buffers);
            let activated = epilogue(&x, &scale, &bias, Activation::GeluTanh);
            out.assert_stands_for(&activated, 2e-6);
            out.assert_equals(quantise(&activated).unwrap().into(), 2e-6);

            let plain = Sums::plain(float, xb.ptr());
            run(&ops::activate_quantise(plain, out.places(), rows, dim, Function::Identity), &buffers);
            out.assert_stands_for(&x.to_dtype(DType::F32).unwrap(), 2e-6);
            // The same arithmetic as the CPU's, step by step.
            let want = quantise(&x).unwrap();
            assert_eq!(out.codes.bytes(), Buffer::of(want.codes()).bytes());
            assert_eq!(out.scale.bytes(), Buffer::of(want.scales()).bytes());
        }
    }
}

/// Its largest magnitude says nothing: any scale would do, but none may be 0 or NaN.
#[test]
fn a_row_of_zeros_has_scale_one() {
    let x = Tensor::zeros((2, 40), DType::F32, &candle_core::Device::Cpu).unwrap();
    let (xb, out) = (Buffer::of(&x), Quantised::poisoned(2, 40));
    let input = Sums { float: Float::F32, x: xb.ptr(), row_scale: DevPtr::NULL, bias: DevPtr::NULL };
    run(
        &ops::activate_quantise(input, out.places(), 2, 40, Function::Identity),
        &[&xb, &out.codes, &out.scale],
    );
    assert_eq!(out.scale.tensor(DType::F32, &[2]).to_vec1::<f32>().unwrap(), [1.0, 1.0]);
    assert!(out.codes.bytes().iter().all(|code| *code == 0));
}
