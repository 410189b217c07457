//! Speed of single ops on the CPU at shapes of the models. Throughput is in floating-point operations (a
//! multiply-add counts two), so `Gelem/s` reads GFLOP/s; for row-wise ops it is in values.
//!
//! `cargo bench -p wan-ops`, with `RAYON_NUM_THREADS` for the number of threads.

#![allow(missing_docs)] // what criterion's macros generate has none

use std::time::Duration;

use candle_core::{DType, Device, Tensor};
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, measurement::WallTime};
use wan_core::Stored;
use wan_core::weights::Bytes;
use wan_ops::{
    Activation, Affine, Conv3d, ConvSpec, Linear, RowFormat, activate, attention, channel_rms_norm,
    residual_layer_norm, rms_norm_rope,
};

fn random(shape: &[usize]) -> Tensor {
    Tensor::randn(0f32, 1.0, shape, &Device::Cpu).expect("a CPU tensor")
}

fn stored(shape: &[usize], dtype: DType) -> Stored {
    let values: usize = shape.iter().product();
    // 0x3c in every byte: a moderate number in each float format.
    let bytes = Bytes::new(vec![0x3c; values * dtype.size_in_bytes()]);
    Stored::new("weight", dtype, shape.to_vec(), bytes).expect("a whole tensor")
}

fn group<'a>(c: &'a mut Criterion, name: &str) -> BenchmarkGroup<'a, WallTime> {
    let mut group = c.benchmark_group(name);
    group.sample_size(10).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    group
}

fn linear(c: &mut Criterion) {
    let mut group = group(c, "linear");
    for (rows, inputs, outputs, dtype) in [
        (4096, 1536, 8960, DType::F32),
        (4096, 1536, 8960, DType::F8E4M3),
        (4096, 256, 1024, DType::BF16),
        (512, 4096, 4096, DType::BF16),
        (77, 1280, 5120, DType::F16),
        (1, 5120, 5120, DType::F8E4M3),
        (1, 5120, 5120, DType::BF16),
        (1, 5120, 5120, DType::F32),
    ] {
        let layer = Linear::new(stored(&[outputs, inputs], dtype), None);
        let x = random(&[rows, inputs]);
        group.throughput(Throughput::Elements((2 * rows * inputs * outputs) as u64));
        group
            .bench_function(format!("{rows}x{inputs}x{outputs} {dtype:?}"), |b| b.iter(|| layer.forward(&x)));
    }
}

fn attentions(c: &mut Criterion) {
    let mut group = group(c, "attention");
    for (l, s, heads, d) in [
        (4096, 4096, 12, 128),
        (4096, 4096, 4, 64),
        (21504, 769, 4, 64),
        (4096, 4096, 1, 384),
        (257, 257, 16, 80),
        (512, 512, 64, 64),
    ] {
        let (q, k, v) = (random(&[l, heads, d]), random(&[s, heads, d]), random(&[s, heads, d]));
        group.throughput(Throughput::Elements((4 * l * s * heads * d) as u64));
        group.bench_function(format!("{l}x{s} {heads} heads of {d}"), |b| {
            b.iter(|| attention(&q, &k, &v, 0.1, None));
        });
    }
}

fn convolutions(c: &mut Criterion) {
    let mut group = group(c, "conv3d");
    let same = |channels| ConvSpec::causal(channels, channels, [3, 3, 3]);
    let up = |inputs, outputs| ConvSpec { upsample: true, ..ConvSpec::causal(inputs, outputs, [1, 3, 3]) };
    for (name, spec, input) in [
        ("96", same(96), [4, 128, 128]),
        ("16", same(16), [4, 256, 256]),
        ("32", same(32), [4, 128, 128]),
        ("64", same(64), [4, 64, 64]),
        ("384", same(384), [1, 60, 104]),
        ("16 to 3", ConvSpec::causal(16, 3, [3, 3, 3]), [4, 256, 256]),
        ("3 to 96", ConvSpec::causal(3, 96, [3, 3, 3]), [4, 128, 128]),
        ("64 to 32 upsampled", up(64, 32), [4, 64, 64]),
        ("1x1x1 192 to 96", ConvSpec::causal(192, 96, [1, 1, 1]), [4, 64, 64]),
    ] {
        let [kt, kh, kw] = spec.kernel;
        let weight = stored(&[spec.outputs, spec.inputs, kt, kh, kw], DType::F32);
        let layer = Conv3d::new(spec, weight, random(&[spec.outputs])).expect("a layer");
        let [t, h, w] = input;
        let x = random(&[t, h, w, spec.inputs]);
        let history = random(&[2, h, w, spec.inputs]);
        let voxels: usize = spec.output(input).expect("it fits").iter().product();
        group.throughput(Throughput::Elements(
            (2 * voxels * kt * kh * kw * spec.inputs * spec.outputs) as u64,
        ));
        group.bench_function(format!("{name}, {t}x{h}x{w}"), |b| {
            b.iter(|| layer.forward(&x, Some(&history), None));
        });
    }
}

fn row_wise(c: &mut Criterion) {
    let mut group = group(c, "rows");
    let (l, dim) = (4096, 1536);
    let (x, y, w) = (random(&[l, dim]), random(&[l, dim]), random(&[dim]));
    let rope = random(&[l, 64, 2]);
    let video = random(&[4, 256, 256, 16]);
    let gamma = random(&[16]);
    group.throughput(Throughput::Elements((l * dim) as u64));
    for activation in [Activation::GeluTanh, Activation::GeluErf, Activation::Silu] {
        group.bench_function(format!("{activation:?} {l}x{dim}"), |b| b.iter(|| activate(&x, activation)));
    }
    group.bench_function(format!("residual_layer_norm {l}x{dim}"), |b| {
        let affine = Affine::Modulation { shift: &w, scale: &w };
        b.iter(|| residual_layer_norm(&x, &y, Some(&w), 1e-6, affine, RowFormat::Float(DType::F32)));
    });
    group.bench_function(format!("rms_norm_rope {l}x{dim}"), |b| {
        b.iter(|| rms_norm_rope(&x, &w, 1e-6, &rope))
    });
    group.throughput(Throughput::Elements(video.elem_count() as u64));
    group.bench_function("channel_rms_norm silu 4x256x256x16", |b| {
        b.iter(|| channel_rms_norm(&video, &gamma, Activation::Silu));
    });
}

criterion_group!(ops, linear, attentions, convolutions, row_wise);

fn main() {
    wan_core::memory::keep_freed(); // as the program does
    ops();
    Criterion::default().configure_from_args().final_summary();
}
