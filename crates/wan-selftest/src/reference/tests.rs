//! The references against the plain-tensor references of `wan-ops`, which hold the CPU halves as well.

use candle_core::{DType, Device, Tensor};
use wan_ops::{Activation, Conv3d, ConvSpec};

use super::*;
use crate::compare::difference;
use crate::synthesis::{normal, stored};

fn random(shape: &[usize], seed: u64) -> Tensor {
    normal(DType::F32, shape, 1.0, seed).unwrap()
}

#[track_caller]
fn assert_same(found: &Matrix, tensor: &Tensor) {
    let error = difference(found, &Matrix::of(tensor).unwrap()).relative_l2;
    assert!(error < 2e-6, "{error}");
}

#[test]
fn exact_references_equal_those_of_the_ops() {
    let (x, w) = (random(&[5, 24], 1), random(&[7, 24], 2));
    let found = linear(Format::Exact, &Matrix::of(&x).unwrap(), &Matrix::of(&w).unwrap(), None);
    assert_same(&found, &x.matmul(&w.t().unwrap()).unwrap());

    let [q, k, v] = [(3, 1), (5, 2), (5, 3)].map(|(n, seed)| random(&[n, 2, 4], seed));
    let bias = random(&[2, 3, 5], 4);
    let flat = |t: &Tensor| Matrix::of(&t.flatten_from(1).unwrap()).unwrap();
    let inputs = AttentionInputs {
        q: flat(&q),
        k: flat(&k),
        v: flat(&v),
        bias: Some(Matrix::of(&bias).unwrap()),
        heads: 2,
        scale: 0.7,
    };
    let want = wan_ops::attention_reference(&q, &k, &v, 0.7, Some(&bias)).unwrap();
    assert_same(&attention(Format::Exact, &inputs), &want);

    let weight = random(&[24], 5);
    let values = Matrix::of(&weight).unwrap().values;
    let m = Matrix::of(&x).unwrap();
    let want = wan_ops::rms_norm_reference(&x, &weight, 1e-6).unwrap();
    assert_same(&rms_norm(Format::Exact, &m, &values, 1e-6), &want);
    let table = random(&[5, 3, 2], 6);
    let angles = Matrix { columns: 6, values: Matrix::of(&table).unwrap().values };
    assert_same(&rope(Format::Exact, &m, &angles), &wan_ops::rope_reference(&x, &table).unwrap());
    let affine = wan_ops::Affine::Weights { weight: &weight, bias: &weight };
    let want = wan_ops::layer_norm_reference(&x, 1e-6, affine).unwrap();
    assert_same(&layer_norm(Format::Exact, &m, 1e-6, Some(&values), Some(&values)), &want);
    for f in [Activation::GeluErf, Activation::GeluTanh, Activation::Silu] {
        assert_same(&activation(Format::Exact, &m, f), &wan_ops::activate_reference(&x, f).unwrap());
        let normed = channel_rms_norm(Format::Exact, &m, &values);
        let want = wan_ops::channel_rms_norm_reference(&x, &weight, f).unwrap();
        assert_same(&activation(Format::Exact, &normed, f), &want);
    }
}

#[test]
fn the_convolution_equals_that_of_the_ops() {
    let strided = ConvSpec { stride: [2, 2, 2], padding: [0, 1, 0, 1], ..ConvSpec::causal(3, 5, [3, 3, 3]) };
    let upsampled = ConvSpec { upsample: true, ..ConvSpec::causal(3, 5, [1, 3, 3]) };
    for spec in [ConvSpec::causal(3, 5, [3, 3, 3]), strided, upsampled] {
        let weight = stored("w", DType::F32, &[5, 3, spec.kernel[0], spec.kernel[1], spec.kernel[2]], 1.0, 1);
        let (weight, bias) = (weight.unwrap(), random(&[5], 2));
        let layer = Conv3d::new(spec, weight.clone(), bias.clone()).unwrap();
        let (x, history) = (random(&[4, 6, 8, 3], 3), random(&[2, 6, 8, 3], 4));
        let want = layer.reference(&x, Some(&history), None).unwrap();
        let frames = match spec.front {
            0 => x.clone(),
            _ => Tensor::cat(&[&history, &x], 0).unwrap(),
        };
        let size = [frames.dim(0).unwrap(), 6, 8];
        let taps = spec.kernel.iter().product::<usize>() * 3;
        let weight = weight.to_f32_tensor(&Device::Cpu).unwrap().reshape((5, taps)).unwrap();
        let voxels: Vec<usize> = (0..want.elem_count() / 5).collect();
        let found = conv3d(
            Format::Exact,
            &spec,
            (&Matrix::of(&frames).unwrap(), size),
            &Matrix::of(&weight).unwrap(),
            &Matrix::of(&bias).unwrap().values,
            &voxels,
        );
        assert_same(&found, &want);
    }
}

#[test]
fn eager_arithmetic_loses_what_its_dtype_loses() {
    let (x, w) = (random(&[9, 256], 1), random(&[64, 256], 2));
    let (x, w) = (Matrix::of(&x).unwrap(), Matrix::of(&w).unwrap());
    let exact = linear(Format::Exact, &x, &w, None);
    let error = |dtype| difference(&linear(Format::Eager(dtype), &x, &w, None), &exact).relative_l2;
    assert!((1e-8..1e-6).contains(&error(DType::F32)), "{}", error(DType::F32));
    assert!((5e-4..3e-3).contains(&error(DType::BF16)), "{}", error(DType::BF16));
    assert!((5e-5..4e-4).contains(&error(DType::F16)), "{}", error(DType::F16));
    let mut rounded = x.clone();
    rounded.values.chunks_mut(256).for_each(round_row_to_e4m3);
    let e4m3 = difference(&linear(Format::Exact, &rounded, &w, None), &exact).relative_l2;
    assert!((0.02..0.035).contains(&e4m3), "{e4m3}");
}
