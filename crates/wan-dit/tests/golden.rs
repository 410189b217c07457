//! The whole transformer against velocities that PyTorch computed in f32 (tests/golden/dit).

use candle_core::{DType, Device, Tensor};
use wan_core::WeightSet;
use wan_core::geometry::LatentSize;
use wan_core::testkit::{Golden, assert_close, distance, repo_path};
use wan_dit::Dit;

/// PyTorch's own f32 is 4e-6 away from its f64 here, mostly from the f32 angles of its time embedding.
const TOLERANCE: f64 = 1e-5;

fn open(case: &str, dtype: DType) -> Dit {
    let path = repo_path(&format!("tests/golden/dit/{case}.weights.safetensors"));
    Dit::open(&WeightSet::open(&path).unwrap(), None, &Device::Cpu, dtype).unwrap()
}

/// Runs a golden file's inputs.
fn run(dit: &Dit, io: &Golden) -> Tensor {
    let latents = io.f32("latents");
    let (_, _, frames, height, width) = latents.dims5().unwrap();
    let index = io.0.get("options.riflex_freq_index").map_or(0, |_| io.i64("options.riflex_freq_index")[0]);
    let rope = dit.rope(LatentSize { frames, height, width }, index as usize).unwrap();
    let context = dit.context(&io.f32("text_embeds"), io.try_f32("image_embeds").as_ref()).unwrap();
    let timestep = io.f32("timestep").to_vec1::<f32>().unwrap()[0];
    dit.forward(&latents, io.try_f32("condition").as_ref(), timestep, &context, &rope).unwrap()
}

fn golden(case: &str) -> Golden {
    Golden::open(&format!("dit/{case}.io.safetensors"))
}

fn assert_golden(weights: &str, io: &str) {
    let io = golden(io);
    assert_close(weights, &run(&open(weights, DType::F32), &io), &io.f32("expected.velocity"), TOLERANCE);
}

#[test]
fn i2v() {
    assert_golden("i2v", "i2v");
}

#[test]
fn three_heads_of_28() {
    assert_golden("i2v_3x28", "i2v_3x28");
}

#[test]
fn one_head_of_128_and_unpadded_text() {
    assert_golden("i2v_1x128", "i2v_1x128");
}

#[test]
fn t2v() {
    assert_golden("t2v", "t2v");
}

#[test]
fn t2v_with_riflex() {
    assert_golden("t2v", "t2v_riflex");
}

#[test]
fn two_images() {
    assert_golden("flf2v", "flf2v");
    let dit = open("flf2v", DType::F32);
    assert_eq!((dit.config().image_positions, dit.config().takes_end_image()), (Some(14), true));
    assert!(!open("i2v", DType::F32).config().takes_end_image());
    // More tokens than positions.
    let (text, image) = (golden("flf2v").f32("text_embeds"), golden("flf2v").f32("image_embeds"));
    let error =
        dit.context(&text, Some(&Tensor::cat(&[&image, &image], 1).unwrap())).unwrap_err().to_string();
    assert!(
        error.contains("found shape [1, 28, 12], expected [1, N, 12] with N at least 1 and at most 14"),
        "{error}"
    );
}

#[test]
fn diffusers_naming_gives_the_same_bits() {
    assert_golden("i2v_diffusers", "i2v_diffusers");
    let io = golden("i2v");
    let (original, diffusers) = (open("i2v", DType::F32), open("i2v_diffusers", DType::F32));
    assert_eq!(original.config(), diffusers.config());
    let values = |dit: &Dit| run(dit, &io).flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert_eq!(values(&original), values(&diffusers));
}

/// Activations of 8 or 11 bits of mantissa through two blocks.
#[test]
fn half_precision_stays_near_the_golden() {
    let io = golden("i2v");
    for (dtype, tolerance) in [(DType::BF16, 2e-2), (DType::F16, 3e-3)] {
        let velocity = run(&open("i2v", dtype), &io);
        assert_eq!(velocity.dtype(), DType::F32);
        assert_close(dtype.as_str(), &velocity, &io.f32("expected.velocity"), tolerance);
        let off = distance(&velocity, &io.f32("expected.velocity")).unwrap().relative_l2;
        assert!(off > 1e-6, "{dtype:?} computes in f32: {off:e}");
    }
}
