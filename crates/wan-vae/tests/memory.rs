//! Decoding and encoding frame by frame take memory that does not depend on the number of frames.

use candle_core::{DType, Device, Tensor};
use wan_core::WeightSet;
use wan_core::testkit::{PeakMemory, repo_path};
use wan_vae::{Tiling, Vae};

#[global_allocator]
static MEMORY: PeakMemory = PeakMemory::new();

#[test]
fn eighty_one_frames_take_no_more_than_seventeen() {
    // Each thread has buffers of its own, which would count on machines with many.
    rayon::ThreadPoolBuilder::new().num_threads(2).build_global().unwrap();
    let set = WeightSet::open(&repo_path("tests/golden/vae/vae.weights.safetensors")).unwrap();
    let vae = Vae::open(&set, None, &Device::Cpu, DType::F32).unwrap();
    let tiling = Tiling { tile_height: 32, tile_width: 32, stride_height: 16, stride_width: 16 };

    // Whole: the frames go to a sink that drops them, so nothing may grow.
    let decode = |latent_frames: usize, tiling: Option<&Tiling>| {
        let latents = Tensor::randn(0f32, 1f32, (1, 16, latent_frames, 6, 8), &Device::Cpu).unwrap();
        let mut frames = 0;
        let mut sink = |chunk: Tensor| {
            frames += chunk.dim(1)?;
            Ok(())
        };
        let (peak, result) = MEMORY.of(|| vae.decode_stream(&latents, tiling, 1, &mut sink));
        result.unwrap();
        assert_eq!(frames, 4 * latent_frames - 3);
        peak as f64
    };
    for tiling in [None, Some(&tiling)] {
        decode(2, tiling); // weights are packed once
        let (short, long) = (decode(5, tiling), decode(21, tiling));
        assert!(long <= 1.02 * short, "decode, {tiling:?}: {short} bytes for 17 frames, {long} for 81");
    }

    // Tile after tile the frames wait, and the caches are those of one tile.
    let by_tile = |latent_frames: usize| {
        let latents = Tensor::randn(0f32, 1f32, (1, 16, latent_frames, 6, 8), &Device::Cpu).unwrap();
        let mut drop = |_| Ok(());
        let (peak, result) =
            MEMORY.of(|| vae.decoder.decode_tile_by_tile(&latents, &tiling, &mut |_, _| Ok(()), &mut drop));
        result.unwrap();
        peak as f64 - (3 * (4 * latent_frames - 3) * 48 * 64 * 4) as f64
    };
    let (short, long) = (by_tile(5), by_tile(21));
    assert!(long <= 1.05 * short, "tile after tile: {short} bytes for 17 frames, {long} for 81");
    let in_step = decode(5, Some(&tiling));
    assert!(short < in_step / 1.5, "tile after tile: {short} bytes, in step {in_step}");

    // The latents of all frames are the result, and are allowed for: twice, since they are joined at the end.
    let encode = |latent_frames: usize| {
        let chunk = |i| Tensor::zeros((1, 3, if i == 0 { 1 } else { 4 }, 48, 64), DType::F32, &Device::Cpu);
        let (peak, latents) = MEMORY.of(|| vae.encode_chunks(latent_frames, |i| Ok(chunk(i)?), |_| Ok(())));
        peak as f64 - 2.0 * (latents.unwrap().elem_count() * 4) as f64
    };
    encode(2);
    let (short, long) = (encode(5), encode(21));
    assert!(long <= 1.02 * short, "encode: {short} bytes for 17 frames, {long} for 81");
}
