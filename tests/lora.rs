//! `--lora` through the real binary, on the embedded model.

use std::collections::HashMap;
use std::path::PathBuf;

use candle_core::{DType, Device, Tensor};
use wan_models::{Places, Recipe, Registry};
use wan_pipeline::save_tensors;

use crate::support::{Sandbox, assert_fails, sample_image, stderr, tiny_args};

/// Writes a LoRA of rank 2 for the embedded model's self-attention and one bias, and a tensor it has no place for.
pub fn write(sandbox: &Sandbox, name: &str) -> PathBuf {
    let registry = Registry::builtin().unwrap();
    let tiny = registry.find("tiny").unwrap();
    let weights = registry.resolve(&tiny, &Places::default()).unwrap().dit.weights().unwrap();
    let mut tensors = std::collections::BTreeMap::new();
    let values = |shape: &[usize]| {
        let count: usize = shape.iter().product();
        let wave: Vec<f32> = (0..count).map(|i| (i as f32 * 0.7).sin() * 0.5).collect();
        Tensor::from_vec(wave, shape, &Device::Cpu).unwrap()
    };
    for block in 0..weights.count("blocks") {
        let module = format!("blocks.{block}.self_attn.v");
        let shape = weights.shape(&format!("{module}.weight")).unwrap();
        tensors.insert(format!("diffusion_model.{module}.lora_down.weight"), values(&[2, shape[1]]));
        tensors.insert(format!("diffusion_model.{module}.lora_up.weight"), values(&[shape[0], 2]));
        tensors.insert(format!("diffusion_model.{module}.diff_b"), values(&[shape[0]]));
    }
    tensors.insert("lora_te_layer.alpha".into(), Tensor::ones(1, DType::F32, &Device::Cpu).unwrap());
    let path = sandbox.path(name);
    save_tensors(&path, &tensors, HashMap::new()).unwrap();
    path
}

#[test]
fn a_lora_changes_the_video_and_strength_0_does_not() {
    let sandbox = Sandbox::new();
    write(&sandbox, "a.safetensors");
    let video = |output: &str, more: &[&str]| {
        let run = sandbox.ok(&tiny_args(&[&["--format", "rgb", "--output", output], more].concat()));
        (std::fs::read(sandbox.path(output)).unwrap(), stderr(&run))
    };
    let (plain, _) = video("plain.rgb", &[]);
    let (with, text) = video("with.rgb", &["--lora", "a.safetensors:0.8"]);
    assert!(plain != with, "the LoRA has no effect");
    assert!(text.contains("lora a.safetensors: ") && text.contains("tensors applied, 1 skipped"), "{text}");
    assert!(text.contains("lora_te_layer.alpha"), "{text}");
    assert!(plain == video("zero.rgb", &["--lora", "a.safetensors:0"]).0);
    let (both, _) = video("both.rgb", &["--lora", "a.safetensors:0.8", "--lora", "a.safetensors:-0.8"]);
    let off = plain.iter().zip(&both).map(|(a, b)| a.abs_diff(*b)).max();
    assert!(off.is_some_and(|off| off <= 1), "a LoRA and its opposite: {off:?}");
    let (block, text) = video("block.rgb", &["--lora", "a.safetensors:0.8:blocks=0"]);
    assert!(block != with && block != plain);
    assert!(text.contains("left out by blocks="), "{text}");

    // Defaults, and what takes them away; found in the models folder.
    std::fs::create_dir_all(sandbox.path("m/loras")).unwrap();
    std::fs::rename(sandbox.path("a.safetensors"), sandbox.path("m/loras/b.safetensors")).unwrap();
    std::fs::write(sandbox.path("d.toml"), "lora = [\"b.safetensors:0.8\"]\nmodels-dir = \"m\"\n").unwrap();
    assert!(with == video("defaults.rgb", &["--config", "d.toml"]).0);
    assert!(plain == video("none.rgb", &["--config", "d.toml", "--lora", "none"]).0);
}

/// The key format of lightx2v's files (`tests/layouts/lora_*lightx2v*`): products, biases and norms of every block.
fn write_distilled(sandbox: &Sandbox, name: &str) -> usize {
    let registry = Registry::builtin().unwrap();
    let tiny = registry.find("tiny").unwrap();
    let weights = registry.resolve(&tiny, &Places::default()).unwrap().dit.weights().unwrap();
    let mut tensors = std::collections::BTreeMap::new();
    for stored in weights.iter().filter(|t| t.name().starts_with("blocks.")) {
        let mut put = |part: &str, shape: &[usize]| {
            let count: usize = shape.iter().product();
            let wave: Vec<f32> = (0..count).map(|i| (i as f32 * 0.7 + 1.0).sin() * 0.1).collect();
            let values = Tensor::from_vec(wave, shape, &Device::Cpu).unwrap().to_dtype(DType::BF16).unwrap();
            let module = stored.name().rsplit_once('.').unwrap().0;
            tensors.insert(format!("diffusion_model.{module}.{part}"), values);
        };
        match (stored.name().rsplit('.').next(), stored.shape()) {
            (Some("weight"), [outputs, inputs]) => {
                put("lora_down.weight", &[4, *inputs]);
                put("lora_up.weight", &[*outputs, 4]);
            }
            (Some("weight"), shape) => put("diff", shape),
            (Some("bias"), shape) => put("diff_b", shape),
            _ => {} // the modulation, which these files leave alone
        }
    }
    save_tensors(&sandbox.path(name), &tensors, HashMap::new()).unwrap();
    tensors.len()
}

/// The recipe of docs/lora.md, on the embedded model.
#[test]
fn four_steps_without_guidance_and_a_distilled_lora() {
    let sandbox = Sandbox::new();
    let count = write_distilled(&sandbox, "distilled.safetensors");
    let registry = Registry::builtin().unwrap();
    for lora in registry.loras() {
        let Recipe { strength, steps, cfg, shift, scheduler } = &lora.recipe;
        assert_eq!((*steps, *cfg, *strength), (4, 1.0, 1.0), "{}", lora.name);
        assert_eq!((*shift, scheduler.as_deref()), (Some(5.0), Some("euler/simple")), "{}", lora.name);
    }
    let video = |output: &str, more: &[&str]| {
        let recipe =
            ["--steps", "4", "--cfg", "1", "--shift", "5", "--scheduler", "euler/simple", "--format", "rgb"];
        let run = sandbox.ok(&tiny_args(&[&recipe[..], &["--output", output][..], more].concat()));
        (std::fs::read(sandbox.path(output)).unwrap(), stderr(&run))
    };
    let lora = ["--lora", "distilled.safetensors"];
    let (with, text) = video("with.rgb", &lora);
    assert!(text.contains(&format!("lora distilled.safetensors: {count} tensors applied\n")), "{text}");
    assert!(with != video("plain.rgb", &[]).0, "the LoRA has no effect");
    // Without guidance nothing is left of the negative prompt.
    let other = [&lora[..], &["--negative-prompt", "something else entirely"]].concat();
    assert!(with == video("other.rgb", &other).0, "the negative prompt was run");
}

#[test]
fn a_video_remembers_its_loras() {
    let sandbox = Sandbox::new();
    write(&sandbox, "a.safetensors");
    sandbox.ok(&tiny_args(&["--lora", "a.safetensors:0.5:blocks=0"]));
    let sample = sample_image();
    let image = sample.to_str().unwrap();
    sandbox.ok(&["--from-video", "out.mp4", "--image", image, "--output", "again.mp4"]);
    let read = |name: &str| std::fs::read(sandbox.path(name)).unwrap();
    assert!(read("out.mp4") == read("again.mp4"));
}

#[test]
fn what_cannot_be_used_stops_the_job_before_it_starts() {
    let sandbox = Sandbox::new();
    write(&sandbox, "a.safetensors");
    for text in ["a.safetensors:much", "a.safetensors:nan", "a.safetensors:1:blocks=x", ""] {
        assert_fails(&sandbox.tiny(&["--lora", text]), 2, "lora: found `");
    }
    assert_fails(
        &sandbox.tiny(&["--lora", "absent.safetensors"]),
        1,
        "LoRA absent.safetensors: no such file; also looked",
    );
    assert_fails(&sandbox.tiny(&["--lora", "a.safetensors:1:blocks=99"]), 1, "expected blocks 0 to");
    sandbox.ok(&tiny_args(&["--save-latents", "l.safetensors", "--output", "x.mp4"]));
    assert_fails(&sandbox.tiny(&["--lora", "l.safetensors"]), 1, "lora l.safetensors: found only latents");
    assert_eq!(sandbox.names(), ["a.safetensors", "l.safetensors", "x.mp4"]);
}
