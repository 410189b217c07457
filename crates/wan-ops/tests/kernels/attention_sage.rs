use candle_core::{DType, Tensor};
use wan_cuda::Float;
use wan_cuda::ops::{
    AttentionPlaces, AttentionShape, Rotation, Sage, SageKernel, SagePlaces, SageQueries, Sums, TokenRows,
};
use wan_ops::{AttentionChoice, QkNorm, attention, rms_norm_rope, self_attention_of_products};

use crate::attention::{Inputs, rows};
use crate::host::{Buffer, run};
use crate::testing::random;

const KERNELS: [SageKernel; 3] = [SageKernel::Hopper, SageKernel::Fp8, SageKernel::Half];

/// What 8-bit attention makes of `inputs`.
#[track_caller]
fn sage(kernel: SageKernel, inputs: &Inputs, scale: f32) -> Tensor {
    let dtype = inputs.q.dtype();
    let float = if dtype == DType::BF16 { Float::Bf16 } else { Float::F16 };
    let [q, k, v] = [&inputs.q, &inputs.k, &inputs.v].map(Buffer::of);
    let y = Buffer::poisoned(dtype, inputs.dims().iter().product());
    let [qr, kr, vr] = [&q, &k, &v].map(|buffer| rows(buffer, inputs.shape));
    let places = plain(AttentionPlaces { q: qr, k: kr, v: vr, y: y.ptr(), add: false });
    launch(kernel, inputs.shape, float, &places, scale, &[&q, &k, &v, &y]);
    y.tensor(dtype, &inputs.dims())
}

fn plain(places: AttentionPlaces) -> SagePlaces {
    SagePlaces::of(&places).expect("not added to the output")
}

#[track_caller]
fn launch(
    kernel: SageKernel,
    shape: AttentionShape,
    float: Float,
    places: &SagePlaces,
    scale: f32,
    buffers: &[&Buffer],
) {
    let sage = Sage::new(shape, kernel).expect("head_dim 128");
    let scratch = Buffer::poisoned_bytes(sage.scratch_bytes());
    let buffers: Vec<&Buffer> = buffers.iter().copied().chain([&scratch]).collect();
    for launch in sage.launches(float, places, scale, scratch.ptr()).expect("kernels") {
        run(&launch, &buffers);
    }
}

fn values(t: &Tensor) -> Vec<f32> {
    t.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// |found - want| / |want|.
fn relative_error(found: &Tensor, want: &Tensor) -> f64 {
    let (found, want) = (values(found), values(want));
    let squares = |sum: &mut dyn Iterator<Item = f32>| sum.map(|x| f64::from(x) * f64::from(x)).sum::<f64>();
    let error = squares(&mut found.iter().zip(&want).map(|(f, w)| f - w));
    (error / squares(&mut want.iter().copied())).sqrt()
}

#[track_caller]
fn check(kernel: SageKernel, inputs: &Inputs, scale: f32, tolerance: f64) {
    let want = attention(&inputs.q, &inputs.k, &inputs.v, scale, None).unwrap();
    let error = relative_error(&sage(kernel, inputs, scale), &want);
    assert!(
        error <= tolerance,
        "{kernel:?}, {:?}: relative error {error}, expected {tolerance}",
        inputs.shape
    );
}

/// One key, a few, half a tile less one, a whole one, more keys than two stages, several chunks of the mean.
const SIZES: [[usize; 4]; 7] = [
    [1, 1, 1, 128],
    [5, 3, 2, 128],
    [17, 63, 2, 128],
    [128, 128, 1, 128],
    [130, 65, 2, 128],
    [3, 900, 3, 128],
    [129, 200, 1, 128],
];

/// Values of no pattern are the worst case: nothing averages out. Rounding to e4m3 changes weights and values by 2.6 %
/// each, root mean square; int8 scores of deviation 3 add up to 2 %.
#[test]
fn random_inputs() {
    for (kernel, tolerance) in
        [(SageKernel::Hopper, 4e-2), (SageKernel::Fp8, 4e-2), (SageKernel::Half, 2.5e-2)]
    {
        for sizes in SIZES {
            for dtype in [DType::BF16, DType::F16] {
                let inputs = Inputs::random(sizes, dtype);
                check(kernel, &inputs, inputs.scale(3.0), tolerance);
            }
        }
    }
}

/// Channels that are large in every key, as real models have them, are taken off with the keys' mean; without that
/// the other channels would keep two or three bits.
#[test]
fn outlying_channels() {
    for kernel in KERNELS {
        let mut inputs = Inputs::random([60, 300, 2, 128], DType::BF16);
        let scale = inputs.scale(1.5);
        let offset = |every: usize, size: f32| {
            let channels = (0..2 * 128).map(|c| if c % every == every - 1 { size } else { 0.0 }).collect();
            Tensor::from_vec(channels, (1, 2, 128), inputs.k.device()).unwrap()
        };
        let (k_offset, v_offset) = (offset(64, 30.0), offset(2, 1.0));
        let shifted = |t: &Tensor, by: &Tensor| {
            t.to_dtype(DType::F32).unwrap().broadcast_add(by).unwrap().to_dtype(DType::BF16).unwrap()
        };
        (inputs.k, inputs.v) = (shifted(&inputs.k, &k_offset), shifted(&inputs.v, &v_offset));
        check(kernel, &inputs, scale, 3e-2);
    }
}

/// Equal keys and one large value give the largest sums there can be: those in f16 must hold them.
#[test]
fn the_largest_sums() {
    for (kernel, tolerance) in [(SageKernel::Hopper, 1e-2), (SageKernel::Fp8, 1e-2), (SageKernel::Half, 4e-3)]
    {
        let like = Inputs::random([20, 300, 1, 128], DType::BF16);
        let same = |t: &Tensor, value: f32| Tensor::full(value, t.dims(), t.device()).unwrap();
        let (k, v) = (same(&like.k, 0.5), same(&like.v, 1.0e4));
        let [k, v] = [k, v].map(|t| t.to_dtype(DType::BF16).unwrap());
        check(kernel, &Inputs { k, v, ..like }, 1.0, tolerance);
    }
}

/// Scores of several hundred: a step of int8 is then a large part of a weight, but nothing overflows.
#[test]
fn large_scores() {
    for kernel in KERNELS {
        let inputs = Inputs::random([40, 200, 1, 128], DType::BF16);
        check(kernel, &inputs, inputs.scale(90.0), 0.15);
    }
}

/// Equal keys have no deviation from their mean: every value counts the same, and what is left is the rounding of values
/// (in e4m3 2.4 to 2.7 %, by where their largest lies between powers of two), of 150 here.
#[test]
fn equal_keys() {
    for (kernel, tolerance) in
        [(SageKernel::Hopper, 3.2e-2), (SageKernel::Fp8, 3.2e-2), (SageKernel::Half, 4e-3)]
    {
        let mut inputs = Inputs::random([20, 150, 1, 128], DType::BF16);
        let one = inputs.k.narrow(0, 0, 1).unwrap();
        inputs.k = one.broadcast_as(inputs.k.dims()).unwrap().contiguous().unwrap();
        check(kernel, &inputs, 1.0, tolerance);
    }
}

#[test]
fn a_nan_is_not_hidden() {
    let nan = Tensor::full(f32::NAN, (1, 1, 128), &candle_core::Device::Cpu).unwrap();
    let nan = nan.to_dtype(DType::BF16).unwrap();
    let spoil = |t: &Tensor| Tensor::cat(&[&t.narrow(0, 0, 19).unwrap(), &nan], 0).unwrap();
    for kernel in KERNELS {
        let clean = Inputs::random([20, 20, 1, 128], DType::BF16);
        let with_k = Inputs { k: spoil(&clean.k), ..Inputs::random([20, 20, 1, 128], DType::BF16) };
        assert!(values(&sage(kernel, &with_k, 0.1)).iter().all(|v| v.is_nan()));
        let with_v = Inputs { v: spoil(&clean.v), ..Inputs::random([20, 20, 1, 128], DType::BF16) };
        assert!(values(&sage(kernel, &with_v, 0.1)).iter().all(|v| v.is_nan()));
        let with_q = Inputs { q: spoil(&clean.q), ..clean };
        let y = values(&sage(kernel, &with_q, 0.1));
        assert!(y[..19 * 128].iter().all(|v| v.is_finite()) && y[19 * 128..].iter().all(|v| v.is_nan()));
    }
}

#[test]
fn a_fused_buffer() {
    let (shape, dtype) = (AttentionShape { queries: 140, keys: 140, heads: 2, head_dim: 128 }, DType::BF16);
    let fused = random(&[140, 3, 2, 128], 7).to_dtype(dtype).unwrap();
    let part = |i| fused.narrow(1, i, 1).unwrap().squeeze(1).unwrap().contiguous().unwrap();
    let apart = Inputs { shape, q: part(0), k: part(1), v: part(2) };
    let buffer = Buffer::of(&fused);
    let at = |i: usize| TokenRows { at: buffer.ptr().offset(i * 2 * 128 * 2), stride: 3 * 2 * 128 };
    for kernel in KERNELS {
        let y = Buffer::poisoned(dtype, 140 * 2 * 128);
        let places = plain(AttentionPlaces { q: at(0), k: at(1), v: at(2), y: y.ptr(), add: false });
        launch(kernel, shape, Float::Bf16, &places, 0.2, &[&buffer, &y]);
        assert_eq!(values(&y.tensor(dtype, &apart.dims())), values(&sage(kernel, &apart, 0.2)));
    }
}

/// Queries that are still to be normalised, and values that are still to be scaled: as good as what is made of the finished
/// ones, which are rounded once more.
#[test]
fn products() {
    for (tokens, heads, kernel) in
        [(1, 1, SageKernel::Hopper), (130, 3, SageKernel::Fp8), (70, 5, SageKernel::Half)]
    {
        for (float, dtype) in [(Float::Bf16, DType::BF16), (Float::F16, DType::F16)] {
            let dim = heads * 128;
            let of = |shape: &[usize], seed| random(shape, seed);
            let product = |seed| of(&[tokens, dim], seed).to_dtype(dtype).unwrap();
            let (q, k, v) = (product(1), product(2), product(3));
            let [weight, q_bias, v_bias] = [4, 5, 6].map(|seed| of(&[dim], seed));
            let [q_scale, v_scale] = [7, 8].map(|seed| (of(&[tokens], seed) * 30.0).unwrap());
            let rope = of(&[tokens, 64, 2], 9);
            let sums = |x: &Tensor, scale: &Tensor, bias: &Tensor| {
                wan_ops::Sums::new(x.clone(), Some(scale.clone()), Some(bias.clone())).unwrap()
            };
            let (q_sums, v_sums) = (sums(&q, &q_scale, &q_bias), sums(&v, &v_scale, &v_bias));
            let scale = 2.0 / 128f32.sqrt();
            let norm = QkNorm { query: &weight, key: &weight, eps: 1e-6, rope: &rope };
            let products = [q_sums.clone(), (&k).into(), v_sums.clone()];
            let want =
                self_attention_of_products(products, heads, norm, scale, AttentionChoice::Sage).unwrap();

            let shape = AttentionShape { queries: tokens, keys: tokens, heads, head_dim: 128 };
            let k = rms_norm_rope(&k, &weight, 1e-6, &rope).unwrap();
            let finished =
                [rms_norm_rope(q_sums, &weight, 1e-6, &rope).unwrap(), k.clone(), v_sums.finish().unwrap()];
            let [qf, kf, vf] = finished.map(|t| t.reshape((tokens, heads, 128)).unwrap());
            let apart = sage(kernel, &Inputs { shape, q: qf, k: kf, v: vf }, scale);
            let buffers = [&q, &k, &v, &q_scale, &q_bias, &v_scale, &v_bias, &weight, &rope].map(Buffer::of);
            let [q, k, v, q_scale, q_bias, v_scale, v_bias, weight, rope] =
                buffers.each_ref().map(Buffer::ptr);
            let y = Buffer::poisoned(dtype, tokens * dim);
            let rows = |at| TokenRows { at, stride: dim };
            let places = SagePlaces {
                q: SageQueries::Product {
                    sums: Sums { float, x: q, row_scale: q_scale, bias: q_bias },
                    weight,
                    rotation: Rotation { table: rope, head: 128 },
                    eps: 1e-6,
                },
                k: rows(k),
                v: rows(v),
                v_row_scale: v_scale,
                v_bias,
                y: y.ptr(),
            };
            let all: Vec<&Buffer> = buffers.iter().chain([&y]).collect();
            launch(kernel, shape, float, &places, scale, &all);
            let found = y.tensor(dtype, &[tokens, heads, 128]);
            let (error, limit) = (relative_error(&found, &want), 1.05 * relative_error(&apart, &want) + 1e-3);
            assert!(error <= limit, "{kernel:?}, {tokens} tokens, {dtype:?}: {error}, expected {limit}");
        }
    }
}

#[test]
fn says_what_it_cannot_take() {
    let shape = AttentionShape { queries: 1, keys: 1, heads: 1, head_dim: 128 };
    assert!(Sage::new(AttentionShape { head_dim: 64, ..shape }, SageKernel::Half).is_none());
    let y = Buffer::poisoned(DType::BF16, 256);
    let at = |offset: usize, stride: usize| TokenRows { at: y.ptr().offset(offset), stride };
    let sage = Sage::new(shape, SageKernel::Half).unwrap();
    let places = |rows, add| AttentionPlaces { q: rows, k: rows, v: rows, y: y.ptr(), add };
    let launches = |float, rows| sage.launches(float, &plain(places(rows, false)), 1.0, y.ptr());
    assert!(launches(Float::Bf16, at(0, 128)).is_some());
    assert!(launches(Float::F32, at(0, 128)).is_none());
    assert!(launches(Float::Bf16, at(2, 128)).is_none());
    assert!(launches(Float::Bf16, at(0, 132)).is_none());
    assert!(SagePlaces::of(&places(at(0, 128), true)).is_none());
}
