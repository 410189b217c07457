//! Against tensors of diffusers' `AutoencoderKLWan` (tests/golden/make_golden.py), in both namings.

use candle_core::{DType, Device};
use wan_core::WeightSet;
use wan_core::testkit::{Golden, assert_close, distance, repo_path};
use wan_vae::{Tiling, Vae};

/// Relative L2. Rounding in f32 gives some 1e-6 here.
const TOLERANCE: f64 = 2e-5;

fn vae(file: &str, dtype: DType) -> Vae {
    let set = WeightSet::open(&repo_path("tests/golden/vae").join(file)).unwrap();
    Vae::open(&set, None, &Device::Cpu, dtype).unwrap()
}

fn tiling(golden: &Golden) -> Tiling {
    let value = |name: &str| golden.i64(&format!("options.{name}"))[0] as usize;
    Tiling {
        tile_height: value("tile_height"),
        tile_width: value("tile_width"),
        stride_height: value("tile_stride_height"),
        stride_width: value("tile_stride_width"),
    }
}

#[test]
fn encodes_like_the_reference() {
    for weights in ["vae.weights.safetensors", "vae_diffusers.weights.safetensors"] {
        let vae = vae(weights, DType::F32);
        for case in ["encode_t1", "encode_t5", "encode_t9"] {
            let golden = Golden::open(&format!("vae/{case}.io.safetensors"));
            let latents = vae.encode(&golden.f32("video")).unwrap();
            assert_close(&format!("{weights} {case}"), &latents, &golden.f32("expected.latents"), TOLERANCE);
        }
    }
}

#[test]
fn decodes_like_the_reference() {
    for weights in ["vae.weights.safetensors", "vae_diffusers.weights.safetensors"] {
        let vae = vae(weights, DType::F32);
        for case in ["decode_t1", "decode_t5", "decode_t9"] {
            let golden = Golden::open(&format!("vae/{case}.io.safetensors"));
            let video = vae.decode(&golden.f32("latents"), None).unwrap();
            assert_close(&format!("{weights} {case}"), &video, &golden.f32("expected.video"), TOLERANCE);
        }
    }
}

#[test]
fn another_architecture_opens_in_both_namings() {
    for weights in ["vae_other.weights.safetensors", "vae_other_diffusers.weights.safetensors"] {
        let vae = vae(weights, DType::F32);
        assert_eq!((vae.config.spatial_factor(), vae.config.temporal_factor()), (4, 2));
        let golden = Golden::open("vae/encode_other.io.safetensors");
        let latents = vae.encode(&golden.f32("video")).unwrap();
        assert_close(weights, &latents, &golden.f32("expected.latents"), TOLERANCE);
        let golden = Golden::open("vae/decode_other.io.safetensors");
        let video = vae.decode(&golden.f32("latents"), None).unwrap();
        assert_close(weights, &video, &golden.f32("expected.video"), TOLERANCE);
    }
}

#[test]
fn tiles_blend_like_the_reference() {
    let vae = vae("vae.weights.safetensors", DType::F32);
    let golden = Golden::open("vae/encode_tiled.io.safetensors");
    let latents = vae.encoder.encode(&golden.f32("video"), Some(&tiling(&golden))).unwrap();
    assert_close("tiled encode", &latents, &golden.f32("expected.latents"), TOLERANCE);
    let whole = vae.encode(&golden.f32("video")).unwrap();
    assert!(distance(&whole, &latents).unwrap().relative_l2 > 1e-2, "tiles change the result");

    let golden = Golden::open("vae/decode_tiled.io.safetensors");
    let video = vae.decode(&golden.f32("latents"), Some(&tiling(&golden))).unwrap();
    assert_close("tiled decode", &video, &golden.f32("expected.video"), TOLERANCE);
    let whole = vae.decode(&golden.f32("latents"), None).unwrap();
    assert!(distance(&whole, &video).unwrap().relative_l2 > 1e-2, "tiles change the result");
}

#[test]
fn computes_in_bf16_and_f16_close_to_f32() {
    let golden = Golden::open("vae/decode_t5.io.safetensors");
    let expected = golden.f32("expected.video");
    // Some thirty roundings one after the other, of 2^-9 and 2^-12 each.
    for (dtype, tolerance) in [(DType::BF16, 5e-2), (DType::F16, 1e-2)] {
        let video = vae("vae.weights.safetensors", dtype).decode(&golden.f32("latents"), None).unwrap();
        assert_eq!(video.dtype(), DType::F32);
        assert_close(&format!("{dtype:?}"), &video, &expected, tolerance);
    }
}
