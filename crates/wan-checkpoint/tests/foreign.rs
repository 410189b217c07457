//! Files that other programs wrote (`tests/golden/make_foreign.py`): one set of weights per component, and the
//! same output from every one of its forms.

mod support;

use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use wan_checkpoint::{Component, inspect};
use wan_core::WeightSet;
use wan_core::geometry::LatentSize;
use wan_core::testkit::{Golden, assert_close, distance, repo_path};

use support::gguf;

const CPU: Device = Device::Cpu;

fn foreign(name: &str) -> PathBuf {
    repo_path("tests/golden/foreign").join(name)
}

fn weights(path: &Path) -> WeightSet {
    WeightSet::open(path).unwrap_or_else(|e| panic!("{e}"))
}

fn inputs() -> Golden {
    Golden::open("foreign/io.safetensors")
}

/// The configuration of a component, which these shapes do not tell: real heads have 128 or 64 channels.
struct Config(tempfile::NamedTempFile);

impl Config {
    fn of(component: &str) -> Self {
        let set = weights(&foreign(&format!("{component}.safetensors")));
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &set.metadata()["config"]).unwrap();
        Self(file)
    }
}

fn run(component: &str, path: &Path) -> Tensor {
    let (set, io, config) = (weights(path), inputs(), Config::of(component));
    let config = Some(config.0.path());
    match component {
        "dit" => {
            let dit = wan_dit::Dit::open(&set, config, &CPU, DType::F32).unwrap();
            let latents = io.f32("dit.latents");
            let (_, _, frames, height, width) = latents.dims5().unwrap();
            let rope = dit.rope(LatentSize { frames, height, width }, 0).unwrap();
            let context = dit.context(&io.f32("dit.text_embeds"), Some(&io.f32("dit.image_embeds"))).unwrap();
            dit.forward(&latents, Some(&io.f32("dit.condition")), 437.0, &context, &rope).unwrap()
        }
        "umt5" => {
            let ids: Vec<u32> = io.i64("umt5.input_ids").into_iter().map(|id| id as u32).collect();
            wan_umt5::Umt5::open(&set, config, &CPU, DType::F32).unwrap().encode(&ids).unwrap()
        }
        "clip" => {
            let clip = wan_clip::ClipVision::open(&set, config, &CPU, DType::F32).unwrap();
            clip.encode(&io.f32("clip.pixel_values")).unwrap()
        }
        "vae" => {
            let vae = wan_vae::Vae::open(&set, config, &CPU, DType::F32).unwrap();
            vae.decode(&io.f32("vae.latents"), None).unwrap()
        }
        other => panic!("{other}"),
    }
}

/// Every file of one set of weights in f32 gives the output of the original naming, and that is PyTorch's.
fn assert_same(component: &str, files: &[&str]) {
    let base = run(component, &foreign(&format!("{component}.safetensors")));
    let torch = inputs().f32(&format!("expected.{component}"));
    assert_close("PyTorch", &base.reshape(torch.dims()).unwrap(), &torch, 1e-4);
    for file in files {
        assert_close(file, &run(component, &foreign(file)), &base, 1e-6);
    }
}

fn relative_error(component: &str, file: &str) -> f64 {
    let base = run(component, &foreign(&format!("{component}.safetensors")));
    distance(&run(component, &foreign(file)), &base).unwrap().relative_l2
}

#[test]
fn transformers_of_every_library() {
    assert_same("dit", &["dit_pretrained", "dit_f32.gguf"]);
}

#[test]
fn text_encoders_of_every_library() {
    assert_same("umt5", &["umt5_pretrained", "umt5_comfy.safetensors", "umt5_llama_cpp.gguf", "umt5.pth"]);
}

#[test]
fn image_encoders_of_every_library() {
    assert_same("clip", &["clip_pretrained", "clip_comfy.safetensors", "clip.pth"]);
}

#[test]
fn vaes_of_every_library() {
    assert_same("vae", &["vae_pretrained", "vae.pth"]);
}

/// The rounding of a weight: half a unit of 11 bits (F16), 1 of 254 steps of a block's range (Q8_0), half a unit of
/// 4 bits (FP8). Of independent errors less reaches the output, and the residual stream carries some on unrounded.
#[test]
fn rounded_files_are_within_their_rounding() {
    for (component, file, most) in [
        ("dit", "dit_f16.gguf", 1.0 / 2048.0),
        ("dit", "dit_q8_0.gguf", 1.0 / 64.0),
        ("dit", "dit_comfy_scaled.safetensors", 1.0 / 16.0),
        ("dit", "dit_kj_scaled.safetensors", 1.0 / 16.0),
        ("umt5", "umt5_comfy_scaled.safetensors", 1.0 / 16.0),
    ] {
        let error = relative_error(component, file);
        println!("{file}: {error:.2e}");
        assert!(error > 1e-7 && error <= most, "{file}: {error:e}, allowed {most:e}");
    }
    // Both programs' scaled files hold the same codes and factors under other names and shapes.
    let [comfy, kj] =
        ["dit_comfy_scaled.safetensors", "dit_kj_scaled.safetensors"].map(|f| run("dit", &foreign(f)));
    assert_close("scaled", &comfy, &kj, 1e-6);
}

/// Codes of all kinds, with the values that gguf-py gives them (`tests/golden/make_gguf.py`): the same to the bit.
#[test]
fn blocks_have_the_values_of_gguf_py() {
    let golden = weights(&foreign("gguf_blocks.safetensors"));
    // ggml's numbers of the formats.
    let kinds = [
        ("Q4_0", 2),
        ("Q4_1", 3),
        ("Q5_0", 6),
        ("Q5_1", 7),
        ("Q8_0", 8),
        ("Q2_K", 10),
        ("Q3_K", 11),
        ("Q4_K", 12),
        ("Q5_K", 13),
        ("Q6_K", 14),
    ];
    let tensors = kinds.map(|(name, kind)| {
        let data = golden.get(&format!("{name}.blocks")).unwrap().bytes().to_vec();
        gguf::Tensor { name, shape: vec![2, 512], kind, data }
    });
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("blocks.gguf");
    std::fs::write(&path, gguf::bytes(&tensors)).unwrap();
    let set = weights(&path);
    for (name, _) in kinds {
        let stored = set.get(name).unwrap();
        assert_eq!(stored.dtype_name(), name);
        let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect::<Vec<_>>();
        let want = golden.get(&format!("{name}.values")).unwrap();
        assert_eq!(bits(stored.to_f32_vec().unwrap()), bits(want.to_f32_vec().unwrap()), "{name}");
    }
}

#[test]
fn what_other_programs_wrote_is_recognised() {
    use Component::{Dit, ImageEncoder, TextEncoder, Vae};
    for (file, component, layout) in [
        ("dit_pretrained", Dit, "safetensors, diffusers naming"),
        ("dit_q8_0.gguf", Dit, "GGUF, original naming"),
        ("dit_comfy_scaled.safetensors", Dit, "safetensors, original naming, FP8 scaled per tensor"),
        ("dit_kj_scaled.safetensors", Dit, "safetensors, original naming, FP8 scaled per tensor"),
        ("umt5_pretrained", TextEncoder, "safetensors, transformers naming"),
        (
            "umt5_comfy_scaled.safetensors",
            TextEncoder,
            "safetensors, transformers naming, FP8 scaled per tensor",
        ),
        ("umt5_llama_cpp.gguf", TextEncoder, "GGUF, llama.cpp naming"),
        ("umt5.pth", TextEncoder, "PyTorch zip, original naming"),
        ("clip_pretrained", ImageEncoder, "safetensors, transformers naming"),
        ("clip.pth", ImageEncoder, "PyTorch zip, original naming"),
        ("vae_pretrained", Vae, "safetensors, diffusers naming"),
        ("vae.pth", Vae, "PyTorch zip, original naming"),
    ] {
        let report = inspect(&foreign(file)).unwrap();
        assert_eq!((report.component, report.layout.as_str()), (component, layout), "{file}");
    }
    assert!(inspect(&foreign("dit_pretrained")).unwrap().files > 1, "not sharded");
}

#[test]
fn torch_save_with_code_in_it_is_refused() {
    let error = WeightSet::open(&foreign("code.pth")).unwrap_err().to_string();
    assert!(error.contains(".mkdir`") && error.contains("not run"), "{error}");
    assert!(!Path::new("code-was-run").exists());
}

#[test]
fn torch_save_before_1_6_is_refused_with_advice() {
    let error = WeightSet::open(&foreign("before_1_6.pth")).unwrap_err().to_string();
    assert!(error.contains("a bare pickle") && error.contains("save it again"), "{error}");
}

#[test]
fn a_state_dict_of_a_training_script_is_found() {
    let set = weights(&foreign("nested.pth"));
    assert_eq!(set.names().collect::<Vec<_>>(), ["bias", "weight"]);
    assert_eq!(set.shape("weight"), Some(&[2, 3][..]));
}
