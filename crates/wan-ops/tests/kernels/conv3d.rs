use candle_core::{DType, Tensor};
use wan_core::Stored;
use wan_cuda::Float;
use wan_cuda::ops::{self, ConvGeometry, ConvPlaces};
use wan_ops::{Conv3d, ConvSpec};

use crate::FLOATS;
use crate::host::{Buffer, run};
use crate::testing::{assert_close, random};

/// `[outputs, inputs, kt, kh, kw]` as `[outputs, depth]`: rows of `[kt, kh, kw, inputs]`, then zeros.
fn packed(weight: &Tensor, depth: usize) -> Tensor {
    let outputs = weight.dim(0).unwrap();
    let rows = weight.permute((0, 2, 3, 4, 1)).unwrap().contiguous().unwrap().reshape((outputs, ())).unwrap();
    let zeros = depth - rows.dim(1).unwrap();
    rows.pad_with_zeros(1, 0, zeros).unwrap()
}

fn geometry(spec: &ConvSpec, input: [usize; 3], past: usize) -> ConvGeometry {
    let [top, _, left, _] = spec.padding;
    ConvGeometry {
        input,
        past,
        inputs: spec.inputs,
        outputs: spec.outputs,
        kernel: spec.kernel,
        stride: spec.stride,
        front: [spec.front, top, left],
        upsample: spec.upsample,
        output: spec.output(input).unwrap(),
    }
}

/// Weights have the activations' format on both sides: only the order of the sums differs, and what it does to the
/// rounding of the result.
#[track_caller]
fn check(spec: ConvSpec, input: [usize; 3], past: usize, with_residual: bool) {
    for (float, dtype, tolerance) in FLOATS {
        check_float(spec, input, past, with_residual, float, dtype, tolerance.max(1e-5));
    }
}

fn check_float(
    spec: ConvSpec,
    input: [usize; 3],
    past: usize,
    with_residual: bool,
    float: Float,
    dtype: DType,
    tolerance: f32,
) {
    let ([t, h, w], [kt, kh, kw]) = (input, spec.kernel);
    let values = |shape: &[usize], seed| random(shape, seed).to_dtype(dtype).unwrap();
    let geometry = geometry(&spec, input, past);
    let [ot, oh, ow] = geometry.output;
    let out = [ot, oh, ow, spec.outputs];
    let weight = values(&[spec.outputs, spec.inputs, kt, kh, kw], 1);
    let bias = random(&[spec.outputs], 2);
    let x = values(&[t, h, w, spec.inputs], 3);
    let history = (past > 0).then(|| values(&[past, h, w, spec.inputs], 4));
    let residual = with_residual.then(|| values(&out, 5));

    let [wb, bb, xb] = [&packed(&weight, geometry.depth()), &bias, &x].map(Buffer::of);
    let (hb, rb) = (history.as_ref().map(Buffer::of), residual.as_ref().map(Buffer::of));
    let y = Buffer::poisoned(dtype, out.iter().product());
    let optional = |buffer: &Option<Buffer>| buffer.as_ref().map_or(wan_cuda::DevPtr::NULL, Buffer::ptr);
    let places = ConvPlaces {
        x: xb.ptr(),
        history: optional(&hb),
        weight: wb.ptr(),
        bias: bb.ptr(),
        residual: optional(&rb),
        y: y.ptr(),
    };
    let buffers: Vec<&Buffer> = [&wb, &bb, &xb, &y].into_iter().chain(&hb).chain(&rb).collect();
    run(&ops::conv3d(float, &geometry, &places), &buffers);

    let layer = Conv3d::new(spec, Stored::from_tensor("weight", &weight).unwrap(), bias).unwrap();
    let want = layer.forward(&x, history.as_ref(), residual.as_ref()).unwrap();
    assert_close(&y.tensor(dtype, &out), &want, tolerance);
}

#[test]
fn causal_convolutions_equal_the_cpu() {
    // Channels of whole pieces and not, outputs for the narrow and the wide tile, several tiles each way.
    for (inputs, outputs) in [(1, 1), (3, 12), (12, 3), (12, 24), (16, 17), (8, 16), (24, 100)] {
        check(ConvSpec::causal(inputs, outputs, [3, 3, 3]), [2, 7, 11], 2, true);
    }
    check(ConvSpec::causal(96, 96, [3, 3, 3]), [1, 5, 6], 2, true);
    check(ConvSpec::causal(8, 20, [1, 1, 1]), [3, 5, 7], 0, false);
    check(ConvSpec::causal(40, 24, [3, 1, 1]), [3, 5, 7], 2, false);
}

#[test]
fn history_of_any_length_stands_in_front() {
    for past in 0..5 {
        check(ConvSpec::causal(8, 6, [3, 3, 3]), [2, 4, 5], past, false);
        check(ConvSpec::causal(5, 6, [3, 1, 1]), [1, 4, 5], past, true);
    }
}

#[test]
fn strides_padding_and_upsampling_equal_the_cpu() {
    let down = ConvSpec { stride: [1, 2, 2], padding: [0, 1, 0, 1], ..ConvSpec::causal(16, 12, [1, 3, 3]) };
    check(down, [2, 8, 10], 0, false);
    check(down, [1, 9, 11], 0, false);
    let time = ConvSpec { stride: [2, 1, 1], front: 1, ..ConvSpec::causal(6, 6, [3, 1, 1]) };
    check(time, [4, 3, 5], 1, false);
    check(time, [4, 3, 5], 0, false);
    let up = ConvSpec { upsample: true, ..ConvSpec::causal(24, 12, [1, 3, 3]) };
    check(up, [2, 5, 7], 0, false);
    check(up, [1, 6, 9], 0, true);
    let far = ConvSpec { padding: [3, 2, 4, 5], ..ConvSpec::causal(2, 3, [1, 3, 3]) };
    check(far, [1, 2, 3], 0, false); // outputs that see padding only
}
