//! One set of weights in every layout gives the same output; quantised ones within the rounding's error.

mod support;

use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use safetensors::tensor::{Dtype, TensorView};
use support::{gguf, pth};
use wan_checkpoint::{ConvertOptions, ScaleUnit, Target, convert};
use wan_core::WeightSet;
use wan_core::geometry::LatentSize;
use wan_core::progress::CancelToken;
use wan_core::testkit::{Golden, assert_close, distance, repo_path};

/// A float tensor of a fixture as f32.
struct Plain {
    name: String,
    shape: Vec<u64>,
    data: Vec<u8>,
}

fn fixture(file: &str) -> Vec<Plain> {
    let set = WeightSet::open(&repo_path("tests/golden").join(file)).unwrap();
    let plain = set.iter().map(|t| Plain {
        name: t.name().to_string(),
        shape: t.shape().iter().map(|d| *d as u64).collect(),
        data: t.to_f32_vec().unwrap().iter().flat_map(|v| v.to_le_bytes()).collect(),
    });
    plain.collect()
}

fn write_safetensors(path: &Path, tensors: &[Plain], prefix: &str) {
    let views = tensors.iter().map(|t| {
        let shape = t.shape.iter().map(|d| *d as usize).collect();
        (format!("{prefix}{}", t.name), TensorView::new(Dtype::F32, shape, &t.data).unwrap())
    });
    std::fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

fn write_pth(path: &Path, tensors: &[Plain]) {
    let tensors: Vec<_> = tensors
        .iter()
        .map(|t| pth::Tensor { name: &t.name, dtype: "F32", shape: t.shape.clone(), data: Some(&t.data) })
        .collect();
    pth::write(path, "archive", &tensors);
}

fn write_gguf(path: &Path, tensors: &[Plain], quantise: bool) {
    let values = |t: &Plain| -> Vec<f32> {
        t.data.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
    };
    let tensors: Vec<_> = tensors
        .iter()
        .map(|t| {
            let matrix =
                quantise && t.shape.len() == 2 && t.shape[1] % 32 == 0 && t.name.starts_with("blocks.");
            let (kind, data) = if matrix { (8, gguf::q8_0(&values(t))) } else { (0, t.data.clone()) };
            gguf::Tensor { name: &t.name, shape: t.shape.clone(), kind, data }
        })
        .collect();
    std::fs::write(path, gguf::bytes(&tensors)).unwrap();
}

/// Half of the tensors in either of two shards, behind an index.
fn write_sharded(folder: &Path, mut tensors: Vec<Plain>) {
    let second = tensors.split_off(tensors.len() / 2);
    let mut map = serde_json::Map::new();
    for (file, tensors) in [("a.safetensors", &tensors), ("b.safetensors", &second)] {
        write_safetensors(&folder.join(file), tensors, "");
        map.extend(tensors.iter().map(|t| (t.name.clone(), file.into())));
    }
    let index = serde_json::json!({"metadata": {}, "weight_map": map}).to_string();
    std::fs::write(folder.join("diffusion_pytorch_model.safetensors.index.json"), index).unwrap();
}

/// Runs the DiT fixture with one head of 128, whose configuration the shapes tell.
fn velocity(path: &Path) -> Tensor {
    let io = Golden::open("dit/i2v_1x128.io.safetensors");
    let dit = wan_dit::Dit::open(&WeightSet::open(path).unwrap(), None, &Device::Cpu, DType::F32).unwrap();
    let latents = io.f32("latents");
    let (_, _, frames, height, width) = latents.dims5().unwrap();
    let rope = dit.rope(LatentSize { frames, height, width }, 0).unwrap();
    let context = dit.context(&io.f32("text_embeds"), io.try_f32("image_embeds").as_ref()).unwrap();
    let timestep = io.f32("timestep").to_vec1::<f32>().unwrap()[0];
    dit.forward(&latents, io.try_f32("condition").as_ref(), timestep, &context, &rope).unwrap()
}

const DIT: &str = "dit/i2v_1x128.weights.safetensors";

#[test]
fn a_dit_in_every_layout() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let base = velocity(&repo_path("tests/golden").join(DIT));
    for (name, prefix) in
        [("plain", ""), ("comfy", "model.diffusion_model."), ("wrapper", "diffusion_model.")]
    {
        write_safetensors(&path(name), &fixture(DIT), prefix);
        assert_close(name, &velocity(&path(name)), &base, 1e-6);
    }
    // What a file is, its content tells: none of these names does.
    write_pth(&path("zip"), &fixture(DIT));
    assert_close("pth", &velocity(&path("zip")), &base, 1e-6);
    write_gguf(&path("gguf"), &fixture(DIT), false);
    assert_close("gguf", &velocity(&path("gguf")), &base, 1e-6);
    let shards = path("shards");
    std::fs::create_dir(&shards).unwrap();
    write_sharded(&shards, fixture(DIT));
    assert_close("sharded", &velocity(&shards), &base, 1e-6);
    write_gguf(&path("q8"), &fixture(DIT), true);
    let off = distance(&velocity(&path("q8")), &base).unwrap().relative_l2;
    assert!((1e-7..1e-2).contains(&off), "Q8_0 is {off:e} away");
}

#[test]
fn a_converted_dit_is_within_its_rounding() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    write_safetensors(&source, &fixture(DIT), "model.diffusion_model.");
    let base = velocity(&source);
    let off = |target: Target, name: &str| {
        let output = folder.path().join(name);
        let options = ConvertOptions { target, overwrite: false };
        let done = convert(&source, &output, &options, &CancelToken::new(), |_, _, _| {}).unwrap();
        assert!(!done.changed.is_empty() && done.left_out.is_empty());
        let worst = done.changed.iter().map(|t| t.relative_error).fold(0.0, f64::max);
        let report = wan_checkpoint::inspect(&output).unwrap();
        assert_eq!(report.problem, None);
        // What was written is what was reported, tensor by tensor.
        let (old, new) = (WeightSet::open(&source).unwrap(), WeightSet::open(&output).unwrap());
        let new = new.with_scales().unwrap();
        for t in &done.changed {
            let value = |set: &WeightSet| set.get(&t.name).unwrap().to_f32_tensor(&Device::Cpu).unwrap();
            let found = distance(&value(&new), &value(&old)).unwrap();
            assert!((found.relative_l2 - t.relative_error).abs() < 1e-6, "{}", t.name);
            assert!((found.max_abs - f64::from(t.largest_error)).abs() < 1e-6, "{}", t.name);
        }
        assert!(
            convert(&source, &output, &options, &CancelToken::new(), |_, _, _| {}).is_err(),
            "overwritten"
        );
        (worst, distance(&velocity(&output), &base).unwrap().relative_l2, report.layout)
    };
    // A value of 4 significant bits is off by at most 1/16, of 8 by at most 1/256.
    let (worst, out, layout) = off(Target::Fp8Scaled(ScaleUnit::Tensor), "tensor");
    assert!(
        worst < 1.0 / 16.0 && out < 0.1 && layout.ends_with("FP8 scaled per tensor"),
        "{worst} {out} {layout}"
    );
    let (by_row, out, layout) = off(Target::Fp8Scaled(ScaleUnit::Row), "row");
    assert!(
        by_row < 1.0 / 16.0 && out < 0.1 && layout.ends_with("FP8 scaled per row"),
        "{by_row} {out} {layout}"
    );
    let (plain, _, layout) = off(Target::Fp8, "plain8");
    assert!(worst < plain && layout.ends_with("FP8 without scales"), "{worst} {plain} {layout}");
    let (bf16, out, _) = off(Target::Bf16, "bf16");
    assert!(bf16 < 1.0 / 256.0 && out < 1e-2, "{bf16} {out}");
}

/// The other components, as the original repository has them.
#[test]
fn components_as_pth() {
    let folder = tempfile::tempdir().unwrap();
    let pth = |file: &str| -> PathBuf {
        let path = folder.path().join(file.replace('/', "-"));
        write_pth(&path, &fixture(file));
        path
    };
    for file in ["umt5/umt5.weights.safetensors", "vae/vae.weights.safetensors"] {
        let (old, new) = (
            WeightSet::open(&repo_path("tests/golden").join(file)).unwrap(),
            WeightSet::open(&pth(file)).unwrap(),
        );
        assert_eq!(old.names().collect::<Vec<_>>(), new.names().collect::<Vec<_>>());
        let run = |set: &WeightSet| match file.starts_with("umt5") {
            true => {
                wan_umt5::Umt5::open(set, None, &Device::Cpu, DType::F32).unwrap().encode(&[5, 7, 1]).unwrap()
            }
            false => {
                let vae = wan_vae::Vae::open(set, None, &Device::Cpu, DType::F32).unwrap();
                let latents = Tensor::ones((1, vae.config.z_dim, 2, 4, 4), DType::F32, &Device::Cpu).unwrap();
                vae.decode(&latents, None).unwrap()
            }
        };
        assert_close(file, &run(&new), &run(&old), 1e-6);
    }
}
