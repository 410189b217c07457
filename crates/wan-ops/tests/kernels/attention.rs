use candle_core::{DType, Tensor};
use wan_cuda::ops::{self, AttentionPlaces, AttentionShape, KeySource, TokenRows};
use wan_cuda::{DevPtr, Float, Launch};
use wan_ops::attention;

use crate::FLOATS;
use crate::host::{Buffer, run};
use crate::testing::{assert_close, random};

/// q, k and v of an attention, `[tokens, heads, D]` each.
pub struct Inputs {
    pub shape: AttentionShape,
    pub q: Tensor,
    pub k: Tensor,
    pub v: Tensor,
}

impl Inputs {
    pub fn random([queries, keys, heads, head_dim]: [usize; 4], dtype: DType) -> Self {
        let shape = AttentionShape { queries, keys, heads, head_dim };
        let tokens = |n, seed| random(&[n, heads, head_dim], seed).to_dtype(dtype).unwrap();
        Self { shape, q: tokens(queries, 1), k: tokens(keys, 2), v: tokens(keys, 3) }
    }

    /// The scale that gives scores of deviation `deviation`.
    pub fn scale(&self, deviation: f32) -> f32 {
        deviation / (self.shape.head_dim as f32).sqrt()
    }

    pub fn dims(&self) -> [usize; 3] {
        [self.shape.queries, self.shape.heads, self.shape.head_dim]
    }
}

/// Rows of a contiguous buffer.
pub fn rows(buffer: &Buffer, shape: AttentionShape) -> TokenRows {
    TokenRows { at: buffer.ptr(), stride: shape.heads * shape.head_dim }
}

/// What kernels make of `inputs`, given the launches for its places.
#[track_caller]
fn compute<L: IntoIterator<Item = Launch>>(
    inputs: &Inputs,
    beside: &[&Buffer],
    launches: impl FnOnce(&AttentionPlaces) -> L,
) -> Tensor {
    let dtype = inputs.q.dtype();
    let [q, k, v] = [&inputs.q, &inputs.k, &inputs.v].map(Buffer::of);
    let y = Buffer::poisoned(dtype, inputs.dims().iter().product());
    let places = AttentionPlaces {
        q: rows(&q, inputs.shape),
        k: rows(&k, inputs.shape),
        v: rows(&v, inputs.shape),
        y: y.ptr(),
        add: false,
    };
    let mut buffers = vec![&q, &k, &v, &y];
    buffers.extend(beside);
    for launch in launches(&places) {
        run(&launch, &buffers);
    }
    y.tensor(dtype, &inputs.dims())
}

#[track_caller]
fn general(float: Float, inputs: &Inputs, scale: f32) -> Tensor {
    compute(inputs, &[], |places| {
        [ops::attention(float, inputs.shape, places, scale, DevPtr::NULL).expect("a kernel")]
    })
}

#[track_caller]
fn mma(float: Float, inputs: &Inputs, scale: f32) -> Tensor {
    compute(inputs, &[], |places| [ops::attention_mma(float, inputs.shape, places, scale).expect("a kernel")])
}

#[track_caller]
fn sm90(float: Float, inputs: &Inputs, scale: f32) -> Tensor {
    let scratch = scratch(float, inputs.shape);
    compute(inputs, &[&scratch], |places| {
        ops::attention_sm90(float, inputs.shape, places, None, scale, scratch.ptr()).expect("kernels")
    })
}

fn scratch(float: Float, shape: AttentionShape) -> Buffer {
    Buffer::poisoned_bytes(ops::attention_sm90_scratch(float, shape, None).expect("a kernel"))
}

#[track_caller]
fn want(inputs: &Inputs, scale: f32, bias: Option<&Tensor>) -> Tensor {
    attention(&inputs.q, &inputs.k, &inputs.v, scale, bias).unwrap()
}

const HALVES: [(Float, DType); 2] = [(Float::Bf16, DType::BF16), (Float::F16, DType::F16)];

/// Largest error of the tensor-core kernel relative to the largest result: weights and result are each rounded to the
/// format once.
fn half_tolerance(float: Float) -> f32 {
    if float == Float::Bf16 { 1.0 / 100.0 } else { 1.0 / 800.0 }
}

#[test]
fn the_general_kernel_equals_the_cpu() {
    for (float, dtype, tolerance) in FLOATS {
        // One key; a tile and one more; CLIP's 80 channels; the VAE's 384; channels that are no whole float4.
        for sizes in
            [[1, 1, 1, 1], [33, 65, 2, 7], [5, 40, 2, 80], [9, 33, 1, 384], [70, 31, 1, 64], [3, 64, 3, 126]]
        {
            let inputs = Inputs::random(sizes, dtype);
            let scale = inputs.scale(3.0);
            assert_close(&general(float, &inputs, scale), &want(&inputs, scale, None), tolerance.max(1e-5));
        }
    }
}

#[test]
fn the_general_kernel_adds_a_bias_even_an_infinite_one() {
    for (float, dtype, tolerance) in FLOATS {
        let inputs = Inputs::random([37, 100, 2, 32], dtype);
        let free = random(&[2, 37, 100], 4);
        let mask = (random(&[2, 37, 70], 5) * f64::INFINITY).unwrap().abs().unwrap().neg().unwrap();
        let masked = Tensor::cat(&[&mask, &free.narrow(2, 70, 30).unwrap()], 2).unwrap();
        for bias in [free, masked] {
            let buffer = Buffer::of(&bias);
            let found = compute(&inputs, &[&buffer], |places| {
                [ops::attention(float, inputs.shape, places, 0.3, buffer.ptr()).expect("a kernel")]
            });
            assert_close(&found, &want(&inputs, 0.3, Some(&bias)), tolerance.max(1e-5));
        }
    }
}

#[test]
fn the_tensor_core_kernel_equals_the_cpu() {
    for (float, dtype) in HALVES {
        // One key, a tile less one, whole tiles, several blocks of queries, more keys than two stages; then the VAE's, in
        // parts.
        for sizes in [
            [1, 1, 1, 128],
            [17, 63, 2, 128],
            [128, 64, 1, 128],
            [130, 200, 1, 128],
            [40, 129, 3, 64],
            [1, 1, 1, 384],
            [64, 32, 1, 384],
            [70, 100, 2, 384],
        ] {
            let inputs = Inputs::random(sizes, dtype);
            let scale = inputs.scale(3.0);
            assert_close(&mma(float, &inputs, scale), &want(&inputs, scale, None), half_tolerance(float));
        }
    }
}

/// One key, some, a tile less one, one and two whole ones, more than the ring has places, all of them in part.
#[test]
fn the_warpgroup_kernel_equals_the_cpu() {
    for (float, dtype) in HALVES {
        for sizes in [
            [1, 1, 1, 128],
            [70, 20, 2, 128],
            [17, 127, 2, 128],
            [128, 128, 1, 128],
            [130, 256, 1, 128],
            [129, 200, 2, 128],
            [40, 920, 3, 128],
        ] {
            let inputs = Inputs::random(sizes, dtype);
            let scale = inputs.scale(3.0);
            assert_close(&sm90(float, &inputs, scale), &want(&inputs, scale, None), half_tolerance(float));
        }
    }
}

/// Scores of several hundred neither overflow nor lose the largest; equal keys give the mean of the values.
#[test]
fn large_scores_and_equal_keys() {
    for (float, dtype) in HALVES {
        let mut inputs = Inputs::random([20, 150, 1, 128], dtype);
        let scale = inputs.scale(200.0);
        // Weights of scores this large are 0 or 1 but for ties, where f32 sums of another order decide.
        for kernel in [mma, sm90, general] {
            let found = kernel(float, &inputs, scale);
            assert_close(&found, &want(&inputs, scale, None), 2.0 * half_tolerance(float));
        }
        inputs.k =
            inputs.k.narrow(0, 0, 1).unwrap().broadcast_as(inputs.k.dims()).unwrap().contiguous().unwrap();
        // Sums of many values of either sign: the error is relative to the values, not to their mean.
        let largest = 10.0 * half_tolerance(float);
        for kernel in [mma, sm90, general] {
            assert_close(&kernel(float, &inputs, 1.0), &want(&inputs, 1.0, None), largest);
        }
    }
}

/// Equal keys have equal weights however many tiles they come in, so that opposite values leave exactly nothing.
#[test]
fn weights_do_not_fade_with_the_tiles() {
    for (float, dtype) in HALVES {
        let mut inputs = Inputs::random([17, 1280, 1, 128], dtype);
        let first = inputs.k.narrow(0, 0, 1).unwrap();
        inputs.k = first.broadcast_as(inputs.k.dims()).unwrap().contiguous().unwrap();
        let half = |value: f32| Tensor::full(value, (640, 1, 128), inputs.v.device()).unwrap();
        inputs.v = Tensor::cat(&[half(1.0), half(-1.0)], 0).unwrap().to_dtype(dtype).unwrap();
        for kernel in [mma, sm90] {
            let y = kernel(float, &inputs, inputs.scale(7.0)).to_dtype(DType::F32).unwrap();
            let most = y.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
            assert_eq!(most, 0.0);
        }
    }
}

#[test]
fn a_nan_key_is_not_hidden() {
    let mut inputs = Inputs::random([3, 20, 1, 128], DType::BF16);
    let nan = Tensor::full(f32::NAN, (1, 1, 128), inputs.k.device()).unwrap().to_dtype(DType::BF16).unwrap();
    inputs.k = Tensor::cat(&[&inputs.k.narrow(0, 0, 19).unwrap(), &nan], 0).unwrap();
    for kernel in [mma, sm90, general] {
        let y = kernel(Float::Bf16, &inputs, 0.1);
        let values = y.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert!(values.iter().all(|v| v.is_nan()));
    }
}

/// q, k and v side by side in one buffer, as one product for all three writes them, and a second attention added to
/// the first, as cross-attention to the text and the image does.
#[test]
fn a_fused_buffer_and_a_sum() {
    let (shape, dtype) = (AttentionShape { queries: 150, keys: 150, heads: 2, head_dim: 128 }, DType::BF16);
    let fused = random(&[150, 3, 2, 128], 7).to_dtype(dtype).unwrap();
    let part = |i| fused.narrow(1, i, 1).unwrap().squeeze(1).unwrap().contiguous().unwrap();
    let inputs = Inputs { shape, q: part(0), k: part(1), v: part(2) };
    let first = random(&[150, 2, 128], 8).to_dtype(dtype).unwrap();
    let want = (want(&inputs, 0.2, None) + &first).unwrap();

    let buffer = Buffer::of(&fused);
    let at = |i: usize| TokenRows { at: buffer.ptr().offset(i * 2 * 128 * 2), stride: 3 * 2 * 128 };
    type Kernel = fn(AttentionShape, &AttentionPlaces, DevPtr) -> Vec<Launch>;
    let kernels: [Kernel; 3] = [
        |shape, places, _| vec![ops::attention_mma(Float::Bf16, shape, places, 0.2).expect("a kernel")],
        |shape, places, _| {
            vec![ops::attention(Float::Bf16, shape, places, 0.2, DevPtr::NULL).expect("a kernel")]
        },
        |shape, places, scratch| {
            ops::attention_sm90(Float::Bf16, shape, places, None, 0.2, scratch).expect("kernels")
        },
    ];
    let scratch = scratch(Float::Bf16, shape);
    for kernel in kernels {
        let y = Buffer::of(&first);
        let places = AttentionPlaces { q: at(0), k: at(1), v: at(2), y: y.ptr(), add: true };
        for launch in kernel(shape, &places, scratch.ptr()) {
            run(&launch, &[&buffer, &y, &scratch]);
        }
        assert_close(&y.tensor(dtype, &inputs.dims()), &want, half_tolerance(Float::Bf16));
    }
}

/// A second source in the same launch: fewer keys than the first, more of them, one.
#[test]
fn the_warpgroup_kernel_adds_two_attentions() {
    for (float, dtype) in HALVES {
        for (queries, keys, more, heads) in
            [(130, 300, 200, 2), (64, 100, 520, 3), (5, 600, 1, 3), (129, 1, 128, 1)]
        {
            let inputs = Inputs::random([queries, keys, heads, 128], dtype);
            let scale = inputs.scale(3.0);
            let tokens = |seed| random(&[more, heads, 128], seed).to_dtype(dtype).unwrap();
            let second = Inputs { shape: inputs.shape, q: inputs.q.clone(), k: tokens(8), v: tokens(9) };
            let [k, v] = [&second.k, &second.v].map(Buffer::of);
            let source = KeySource { k: rows(&k, inputs.shape), v: rows(&v, inputs.shape), keys: more };
            let bytes = ops::attention_sm90_scratch(float, inputs.shape, Some(&source)).expect("a kernel");
            let scratch = Buffer::poisoned_bytes(bytes);
            let found = compute(&inputs, &[&k, &v, &scratch], |places| {
                ops::attention_sm90(float, inputs.shape, places, Some(&source), scale, scratch.ptr())
                    .expect("kernels")
            });
            let want = (want(&inputs, scale, None) + want(&second, scale, None)).unwrap();
            assert_close(&found, &want, half_tolerance(float));
        }
    }
}

/// What the tensor-core kernels cannot take is refused, so that another is chosen.
#[test]
fn the_tensor_core_kernels_say_what_they_cannot_take() {
    let inputs = Inputs::random([1, 1, 1, 80], DType::BF16);
    let y = Buffer::poisoned(DType::BF16, 80);
    let at = |offset: usize, stride: usize| TokenRows { at: y.ptr().offset(offset), stride };
    let places = |rows| AttentionPlaces { q: rows, k: rows, v: rows, y: y.ptr(), add: false };
    let shape = |head_dim| AttentionShape { head_dim, ..inputs.shape };
    let aligned = places(at(0, 128));
    assert!(ops::attention_mma(Float::Bf16, shape(128), &aligned, 1.0).is_some());
    assert!(ops::attention_mma(Float::F32, shape(128), &aligned, 1.0).is_none());
    assert!(ops::attention_mma(Float::Bf16, shape(384), &places(at(0, 384)), 1.0).is_some());
    assert!(ops::attention_mma(Float::Bf16, shape(80), &aligned, 1.0).is_none());
    assert!(ops::attention_mma(Float::Bf16, shape(128), &places(at(2, 128)), 1.0).is_none());
    assert!(ops::attention_mma(Float::Bf16, shape(128), &places(at(0, 132)), 1.0).is_none());
    let sm90 = |float, d, places| ops::attention_sm90(float, shape(d), &places, None, 1.0, y.ptr()).is_some();
    assert!(sm90(Float::Bf16, 128, aligned) && sm90(Float::F16, 128, aligned));
    assert!(!sm90(Float::F32, 128, aligned) && !sm90(Float::Bf16, 64, aligned));
    assert!(!sm90(Float::Bf16, 128, places(at(2, 128))) && !sm90(Float::Bf16, 128, places(at(0, 132))));
    assert!(ops::attention(Float::Bf16, shape(385), &aligned, 1.0, DevPtr::NULL).is_none());
}
