//! Properties of streaming and tiling that need the insides.

use candle_core::{DType, Device, Tensor};
use wan_core::WeightSet;
use wan_core::testkit::{assert_close, distance, repo_path};

use crate::cache::{Cache, equal};
use crate::{Tiling, Vae};

fn vae() -> Vae {
    let set = WeightSet::open(&repo_path("tests/golden/vae/vae.weights.safetensors")).unwrap();
    Vae::open(&set, None, &Device::Cpu, DType::F32).unwrap()
}

/// Values between -scale and scale without a visible pattern, the same on every run.
fn field(shape: &[usize], scale: f32) -> Tensor {
    let values = (0..shape.iter().product::<usize>())
        .map(|i| {
            let mixed = (i as u32).wrapping_mul(0x9E37_79B9).rotate_left(15).wrapping_mul(0x85EB_CA6B);
            scale * (mixed as f32 / u32::MAX as f32 * 2.0 - 1.0)
        })
        .collect::<Vec<_>>();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

fn cat(parts: &[Tensor], axis: usize) -> Tensor {
    Tensor::cat(parts, axis).unwrap()
}

#[test]
fn decoding_frame_by_frame_equals_all_later_frames_at_once() {
    let decoder = vae().decoder;
    let latents = field(&[16, 4, 3, 5], 1.5);
    let part = |start: usize, count: usize| latents.narrow(1, start, count).unwrap();
    let run = |chunks: &[(usize, usize)]| {
        let mut cache = Cache::new(decoder.slots());
        let parts: Vec<Tensor> =
            chunks.iter().map(|(s, n)| decoder.chunk(&part(*s, *n), &mut cache).unwrap()).collect();
        cat(&parts, 1)
    };
    let streamed = run(&[(0, 1), (1, 1), (2, 1), (3, 1)]);
    assert_eq!(streamed.dims(), [3, 13, 24, 40]);
    assert_close("one and three", &run(&[(0, 1), (1, 3)]), &streamed, 1e-6);
    assert_close("one, two and one", &run(&[(0, 1), (1, 2), (3, 1)]), &streamed, 1e-6);
}

/// However many are decoded at a time, frames come latent frame by latent frame, and errors name the one.
#[test]
fn latent_frames_decoded_together_come_one_by_one() {
    let vae = vae();
    let tiling = Tiling { tile_height: 24, tile_width: 32, stride_height: 16, stride_width: 16 };
    let latents = field(&[1, 16, 6, 4, 5], 1.0);
    for tiling in [None, Some(&tiling)] {
        let want = vae.decode(&latents, tiling).unwrap();
        for together in [2, 3, 9] {
            let mut parts = Vec::new();
            let mut sink = |frames: Tensor| {
                parts.push(frames);
                Ok(())
            };
            vae.decode_stream(&latents, tiling, together, &mut sink).unwrap();
            assert_eq!(parts.iter().map(|p| p.dim(1).unwrap()).collect::<Vec<_>>(), [1, 4, 4, 4, 4, 4]);
            let what = format!("{together} together, {tiling:?}");
            assert_close(&what, &cat(&parts, 1).unsqueeze(0).unwrap(), &want, 1e-6);
        }
    }
    let bad = (latents.narrow(2, 4, 1).unwrap() / 0.0).unwrap();
    let bad = cat(&[latents.narrow(2, 0, 4).unwrap(), bad, latents.narrow(2, 5, 1).unwrap()], 2);
    let error = vae.decode_stream(&bad, None, 3, &mut |_| Ok(())).unwrap_err().to_string();
    assert!(error.contains("latent frame 5"), "{error}");
}

#[test]
fn encoding_chunk_by_chunk_equals_all_later_frames_at_once() {
    let encoder = vae().encoder;
    let video = field(&[1, 3, 13, 24, 40], 1.0);
    let streamed = encoder.encode(&video, None).unwrap();
    assert_eq!(streamed.dims(), [1, 16, 4, 3, 5]);
    let mut cache = Cache::new(encoder.slots());
    let video = video.squeeze(0).unwrap();
    let first = encoder.chunk_plain(&video.narrow(1, 0, 1).unwrap(), &mut cache).unwrap();
    let rest = encoder.chunk_plain(&video.narrow(1, 1, 12).unwrap(), &mut cache).unwrap();
    assert_close("encode", &cat(&[first, rest], 1).unsqueeze(0).unwrap(), &streamed, 1e-6);
}

#[test]
fn settled_layers_change_nothing() {
    let encoder = vae().encoder;
    let grey = Tensor::zeros((1, 3, 4, 16, 16), DType::F32, &Device::Cpu).unwrap();
    let image = field(&[1, 3, 1, 16, 16], 1.0);
    let moving = field(&[1, 3, 4, 16, 16], 1.0);
    // Grey long enough to settle nearly everything, then motion, then grey again.
    let chunk = |i: usize| match i {
        0 => image.clone(),
        14 => moving.clone(),
        _ => grey.clone(),
    };
    let mut stream = encoder.stream(None);
    let mut plain = Cache::new(encoder.slots());
    let mut settled = vec![];
    for i in 0..18 {
        let found = stream.next(&chunk(i)).unwrap().squeeze(0).unwrap();
        let expected = encoder.chunk_plain(&chunk(i).squeeze(0).unwrap(), &mut plain).unwrap();
        assert!(equal(&found, &expected).unwrap(), "chunk {i}");
        settled.push(stream.settled_layers());
    }
    assert_eq!(settled[..2], [0, 0]);
    assert!(settled[2] >= 1 && settled[13] > settled[2] + 8, "{settled:?}");
    assert_eq!(settled[14..16], [0, 0], "motion starts anew");
}

#[test]
fn the_first_frame_sees_the_first_latent_only() {
    let vae = vae();
    let latents = field(&[1, 16, 3, 2, 3], 1.0);
    let first = latents.narrow(2, 0, 1).unwrap();
    let other = cat(&[first.clone(), field(&[1, 16, 2, 2, 3], 0.3)], 2);
    let (a, b) = (vae.decode(&latents, None).unwrap(), vae.decode(&other, None).unwrap());
    let frames = |v: &Tensor, start: usize, n: usize| v.narrow(2, start, n).unwrap();
    assert!(equal(&frames(&a, 0, 1), &frames(&b, 0, 1)).unwrap());
    assert!(distance(&frames(&a, 1, 1), &frames(&b, 1, 1)).unwrap().relative_l2 > 1e-2);
    assert!(equal(&vae.decode(&first, None).unwrap(), &frames(&a, 0, 1)).unwrap());
}

#[test]
fn tiles_frame_by_frame_equal_tiles_one_after_the_other() {
    let decoder = vae().decoder;
    for (size, tiles) in [([5, 7], 6), ([4, 3], 1), ([3, 7], 3), ([9, 2], 4)] {
        let latents = field(&[1, 16, 3, size[0], size[1]], 1.0);
        let tiling = Tiling { tile_height: 24, tile_width: 32, stride_height: 16, stride_width: 16 };
        let tiling =
            if tiles == 1 { Tiling { tile_height: 32, stride_height: 32, ..tiling } } else { tiling };
        let (mut steps, mut parts) = (Vec::new(), Vec::new());
        let mut done = |step, all| {
            steps.push((step, all));
            Ok(())
        };
        let mut sink = |chunk: Tensor| {
            parts.push(chunk);
            Ok(())
        };
        decoder.decode_tile_by_tile(&latents, &tiling, &mut done, &mut sink).unwrap();
        assert_eq!(steps, (1..=3 * tiles).map(|step| (step, 3 * tiles)).collect::<Vec<_>>());
        assert_eq!(parts.iter().map(|p| p.dim(1).unwrap()).collect::<Vec<_>>(), [1, 4, 4]);
        let found = cat(&parts, 1).unsqueeze(0).unwrap();
        let in_step = decoder.decode(&latents, Some(&tiling)).unwrap();
        assert!(equal(&in_step, &found).unwrap(), "{size:?}");
        assert_eq!(equal(&decoder.decode(&latents, None).unwrap(), &found).unwrap(), tiles == 1, "{size:?}");
    }
}

#[test]
fn what_is_not_finite_or_not_wanted_stops_tile_after_tile() {
    let decoder = vae().decoder;
    let tiling = Tiling { tile_height: 24, tile_width: 32, stride_height: 16, stride_width: 16 };
    let run = |latents: &Tensor, stop_at: usize| {
        let mut done = |step, _| if step == stop_at { Err(wan_core::Error::Cancelled) } else { Ok(()) };
        decoder.decode_tile_by_tile(latents, &tiling, &mut done, &mut |_| Ok(()))
    };
    let good = field(&[1, 16, 2, 5, 4], 1.0);
    run(&good, 0).unwrap();
    assert!(matches!(run(&good, 3), Err(wan_core::Error::Cancelled)));
    let bad = cat(&[good.narrow(2, 0, 1).unwrap(), (good.narrow(2, 1, 1).unwrap() / 0.0).unwrap()], 2);
    assert!(run(&bad, 0).unwrap_err().to_string().contains("latent frame 2"));
    assert!(run(&field(&[1, 15, 2, 5, 4], 1.0), 0).is_err());
}

#[test]
fn a_tile_over_everything_is_no_tile() {
    let vae = vae();
    let latents = field(&[1, 16, 2, 3, 4], 1.0);
    let tiling = Tiling::default();
    let whole = vae.decode(&latents, None).unwrap();
    assert!(equal(&vae.decode(&latents, Some(&tiling)).unwrap(), &whole).unwrap());
    let tiled = vae.encoder.encode(&whole, Some(&tiling)).unwrap();
    assert!(equal(&tiled, &vae.encode(&whole).unwrap()).unwrap());
}

#[test]
fn the_estimated_caches_are_the_real_ones() {
    let vae = vae();
    let mut cache = Cache::new(vae.decoder.slots());
    for t in 0..3 {
        vae.decoder.chunk(&field(&[16, 1, 2, 3], 1.0).narrow(1, 0, 1).unwrap(), &mut cache).unwrap();
        assert!(t == 2 || cache.bytes() > 0);
    }
    let estimate = vae.config.decode_memory(2, 3, None, DType::F32).unwrap();
    assert_eq!(cache.bytes() as u64, estimate.cache);

    let mut cache = Cache::new(vae.encoder.slots());
    for frames in [1, 4, 4] {
        vae.encoder.chunk_plain(&field(&[3, frames, 16, 24], 1.0), &mut cache).unwrap();
    }
    let kept = 4 * 4 * 16 * 24 * 4; // one activation at full resolution, beside the caches
    let estimate = vae.config.encode_memory(2, 3, None, DType::F32).unwrap();
    assert_eq!(cache.bytes() as u64 + kept, estimate.cache);
}
