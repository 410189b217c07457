use candle_core::{DType, Tensor};
use wan_core::Stored;
use wan_cuda::ops::{self, ConvGeometry, ConvPlaces, ConvTiles};
use wan_cuda::{DevPtr, Float};
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

/// The same as [`ConvTiles`] says, place by place.
fn tiled(weight: &Tensor) -> Tensor {
    let (outputs, inputs, kt, kh, kw) = weight.dims5().unwrap();
    let values = weight.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let (rows, columns) = (ConvTiles::OUTPUTS, ConvTiles::INPUTS);
    let mut tiles = vec![f32::NAN; values.len()];
    for (at, value) in values.into_iter().enumerate() {
        let (tap, input, output) =
            (at % (kt * kh * kw), at / (kt * kh * kw) % inputs, at / (kt * kh * kw * inputs));
        let (frame, place) = (tap / (kh * kw), tap % (kh * kw));
        let tile = ((output / rows * kt + frame) * (inputs / columns) + input / columns) * kh * kw + place;
        let (row, piece) =
            (output % rows, ConvTiles::swizzled(output % rows, input % columns / ConvTiles::PIECE));
        tiles[(tile * rows + row) * columns + piece * ConvTiles::PIECE + input % ConvTiles::PIECE] = value;
    }
    let tiles = Tensor::from_vec(tiles, outputs * inputs * kt * kh * kw, weight.device()).unwrap();
    tiles.to_dtype(weight.dtype()).unwrap()
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
        check_float(spec, input, past, with_residual, (float, dtype, tolerance.max(1e-5)), false);
    }
}

/// The same of the kernel of compute capability 9.0.
#[track_caller]
fn check_sm90(spec: ConvSpec, input: [usize; 3], past: usize, with_residual: bool) {
    for (float, dtype, tolerance) in FLOATS.into_iter().filter(|(float, ..)| *float != Float::F32) {
        check_float(spec, input, past, with_residual, (float, dtype, tolerance), true);
    }
}

#[track_caller]
fn check_float(
    spec: ConvSpec,
    input: [usize; 3],
    past: usize,
    with_residual: bool,
    (float, dtype, tolerance): (Float, DType, f32),
    sm90: bool,
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

    let rows = if sm90 { tiled(&weight) } else { packed(&weight, geometry.depth()) };
    let [wb, bb, xb] = [&rows, &bias, &x].map(Buffer::of);
    let (hb, rb) = (history.as_ref().map(Buffer::of), residual.as_ref().map(Buffer::of));
    let y = Buffer::poisoned(dtype, out.iter().product());
    let optional = |buffer: &Option<Buffer>| buffer.as_ref().map_or(DevPtr::NULL, Buffer::ptr);
    let places = ConvPlaces {
        x: xb.ptr(),
        history: optional(&hb),
        weight: wb.ptr(),
        bias: bb.ptr(),
        residual: optional(&rb),
        y: y.ptr(),
    };
    let buffers: Vec<&Buffer> = [&wb, &bb, &xb, &y].into_iter().chain(&hb).chain(&rb).collect();
    let launch = if sm90 {
        ops::conv3d_sm90(float, &geometry, &places).expect("a kernel")
    } else {
        ops::conv3d(float, &geometry, &places)
    };
    run(&launch, &buffers);

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

/// One rectangle that is not full and several, of each of their three forms; several chunks of inputs and tiles of outputs.
#[test]
fn warpgroups_convolve() {
    check_sm90(ConvSpec::causal(96, 96, [3, 3, 3]), [2, 5, 7], 2, true);
    check_sm90(ConvSpec::causal(96, 192, [1, 3, 3]), [1, 13, 33], 0, false); // 12 x 32, four of them
    check_sm90(ConvSpec::causal(32, 96, [1, 3, 3]), [2, 25, 17], 0, true); // 24 x 16
    check_sm90(ConvSpec::causal(64, 96, [3, 3, 3]), [1, 7, 65], 1, false); // 6 x 64
}

#[test]
fn warpgroups_know_history_padding_and_upsampling() {
    for past in 0..4 {
        check_sm90(ConvSpec::causal(32, 96, [3, 3, 3]), [3, 3, 4], past, past == 1);
    }
    let up = ConvSpec { upsample: true, ..ConvSpec::causal(64, 96, [1, 3, 3]) };
    check_sm90(up, [2, 7, 9], 0, false);
    let edges = ConvSpec { padding: [0, 2, 2, 0], ..ConvSpec::causal(32, 96, [3, 3, 3]) };
    check_sm90(edges, [1, 6, 5], 2, true);
    let early = ConvSpec { front: 5, ..ConvSpec::causal(32, 96, [3, 3, 3]) }; // frames of bias alone
    check_sm90(early, [1, 3, 3], 0, true);
}

#[test]
fn warpgroups_refuse_what_they_cannot() {
    let launch = |float, spec: ConvSpec, moved: u64| {
        let geometry = geometry(&spec, [2, 8, 8], 0);
        let [at, x] = [DevPtr(1 << 20), DevPtr((1 << 20) + moved)];
        let places =
            ConvPlaces { x, history: DevPtr::NULL, weight: at, bias: at, residual: DevPtr::NULL, y: at };
        ops::conv3d_sm90(float, &geometry, &places)
    };
    let causal = ConvSpec::causal(32, 96, [3, 3, 3]);
    assert!(launch(Float::F16, causal, 0).is_some());
    assert!(launch(Float::F32, causal, 0).is_none());
    assert!(launch(Float::F16, causal, 8).is_none());
    let two = ConvSpec { stride: [1, 2, 2], ..causal };
    for spec in [ConvSpec::causal(16, 96, [3, 3, 3]), ConvSpec::causal(32, 48, [3, 3, 3]), two] {
        assert!(launch(Float::F16, spec, 0).is_none());
    }
    assert!(launch(Float::F16, ConvSpec::causal(32, 96, [3, 1, 1]), 0).is_none());
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
