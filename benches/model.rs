//! Components at mid size, and the embedded model's stages. The names are those of `peer_torch.py`, so that
//! `compare_torch.py` can put the two side by side.

#![allow(missing_docs)] // criterion's macros make public functions

#[path = "synthetic.rs"]
mod synthetic;

use std::hint::black_box;
use std::time::Duration;

use candle_core::{DType, Device};
use criterion::{Criterion, criterion_group};
use synthetic::randn;
use wan_core::geometry::LatentSize;
use wan_core::progress::{CancelToken, Silent};
use wan_dit::Dit;
use wan_media::{Alpha, decode_image};
use wan_models::Registry;
use wan_ops::attention;
use wan_pipeline::{Pipeline, Request};
use wan_umt5::Umt5;
use wan_vae::Vae;

/// DiT of dim 1536 with 2 blocks over 4,096 tokens: one forward, what a job prepares once included.
fn dit_forward_mid(c: &mut Criterion) {
    let dit = Dit::open(&synthetic::dit(1536, 8960, 2), None, &Device::Cpu, DType::F32).expect("a model");
    let latent = LatentSize { frames: 4, height: 64, width: 64 };
    assert_eq!(latent.tokens(), 4096);
    let latents = randn(1, &[1, 16, 4, 64, 64]);
    let condition = randn(2, &[1, 20, 4, 64, 64]);
    let context =
        dit.context(&randn(3, &[1, 512, 4096]), Some(&randn(4, &[1, 257, 1280]))).expect("a context");
    let rope = dit.rope(latent, 0).expect("positions");
    c.bench_function("dit_forward_mid", |b| {
        b.iter(|| {
            black_box(dit.forward(&latents, Some(&condition), 500.0, &context, &rope).expect("a velocity"))
        })
    });
}

/// The VAE at its real dimensions, 9 frames of 128x128.
fn vae_mid(c: &mut Criterion) {
    let vae = Vae::open(&synthetic::vae(), None, &Device::Cpu, DType::F32).expect("a model");
    let latents = randn(1, &[1, 16, 3, 16, 16]);
    let video = randn(2, &[1, 3, 9, 128, 128]).clamp(-1f32, 1f32).expect("a video");
    c.bench_function("vae_decode_mid", |b| {
        b.iter(|| black_box(vae.decode(&latents, None).expect("a video")))
    });
    c.bench_function("vae_encode_mid", |b| b.iter(|| black_box(vae.encode(&video).expect("latents"))));
}

/// Self-attention of 12 heads of 128 over 4,096 tokens.
fn attention_mid(c: &mut Criterion) {
    let [q, k, v] = [1, 2, 3].map(|seed| randn(seed, &[4096, 12, 128]));
    let scale = 1.0 / 128f32.sqrt();
    c.bench_function("attention_mid", |b| {
        b.iter(|| black_box(attention(&q, &k, &v, scale, None).expect("an output")))
    });
}

/// UMT5 of dim 1024 with 4 layers, 128 tokens.
fn umt5_mid(c: &mut Criterion) {
    let encoder =
        Umt5::open(&synthetic::umt5(1024, 1024, 2816, 4), None, &Device::Cpu, DType::F32).expect("a model");
    let ids: Vec<u32> = (0..128).map(|i| i * 7 % 1024).collect();
    c.bench_function("umt5_mid", |b| b.iter(|| black_box(encoder.encode(&ids).expect("embeddings"))));
}

/// The embedded model at 128x128, 81 frames: text encoding, the attention of one block, one denoising step with
/// guidance, and the decode.
fn tiny(c: &mut Criterion) {
    let registry = Registry::builtin().expect("descriptions");
    let model = registry.find("tiny").expect("the embedded model");
    let files = registry.resolve(&model, &wan_models::Places::default()).expect("its files");
    let encoder = Umt5::open(&files.text_encoder.weights().expect("weights"), None, &Device::Cpu, DType::F32);
    let encoder = encoder.expect("a text encoder");
    let ids: Vec<u32> = (0..32).map(|i| i * 7 % 1024).collect();
    c.bench_function("tiny_text", |b| b.iter(|| black_box(encoder.encode(&ids).expect("embeddings"))));
    let [q, k, v] = [1, 2, 3].map(|seed| randn(seed, &[1344, 2, 64]));
    c.bench_function("tiny_attention", |b| {
        b.iter(|| black_box(attention(&q, &k, &v, 0.125, None).expect("an output")))
    });
    let pipeline = Pipeline::open(files, Device::Cpu, DType::F32).expect("a pipeline");
    let image = decode_image(Registry::sample_image(), "sample", Alpha::Drop).expect("the sample image");
    let request = Request {
        prompt: "a red balloon rises".into(),
        steps: 1,
        ..Request::with_defaults(&model.defaults).expect("defaults")
    };
    let plan = pipeline.plan(request, Some(&image)).expect("a plan");
    let cancel = CancelToken::new();
    let job = pipeline.prepare(plan, Some(&image), None, &Silent, &cancel).expect("conditioning");
    c.bench_function("tiny_denoise_step", |b| {
        b.iter(|| {
            let mut job = job.clone();
            pipeline.denoise(&mut job, &Silent, &cancel).expect("a step");
        })
    });
    c.bench_function("tiny_decode", |b| {
        b.iter(|| {
            let mut sink = |frame: &[u8]| {
                black_box(frame);
                Ok(())
            };
            pipeline.decode(&job.plan, &job.state.latents, &mut sink, &Silent, &cancel).expect("frames");
        })
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10).warm_up_time(Duration::from_secs(2)).measurement_time(Duration::from_secs(10));
    targets = dit_forward_mid, attention_mid, vae_mid, umt5_mid, tiny
}

fn main() {
    wan_core::memory::keep_freed(); // as the program does
    benches();
    Criterion::default().configure_from_args().final_summary();
}
