//! The vision tower against transformers' `CLIPVisionModel`, and preprocessing against torch: fixtures of
//! `tests/golden/clip` and `tests/golden/image`.

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use wan_clip::{ClipVision, Config, ImageFit, MEAN, STD, preprocess_rgb_f32, preprocess_rgb8};
use wan_core::testkit::{Golden, assert_close, repo_path};
use wan_core::{Stored, WeightSet};

const ORIGINAL: &str = "clip/clip.weights.safetensors";
const TRANSFORMERS: &str = "clip/clip_transformers.weights.safetensors";

fn open(weights: &str, dtype: DType) -> ClipVision {
    ClipVision::open(&Golden::open(weights).0, None, &Device::Cpu, dtype).unwrap()
}

fn bits(t: &Tensor) -> Vec<u32> {
    t.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
}

fn zeros(name: &str, shape: &[usize]) -> Stored {
    Stored::from_tensor(name, &Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap()).unwrap()
}

/// The weights of a golden file without its configuration, `change` applied to the list.
fn bare(weights: &str, change: impl FnOnce(&mut Vec<Stored>)) -> WeightSet {
    let mut tensors: Vec<Stored> = Golden::open(weights).0.iter().cloned().collect();
    change(&mut tensors);
    WeightSet::from_tensors("file", tensors)
}

/// Opens `set` with the configuration `json`; the error's text.
fn error_of(set: &WeightSet, test: &str, json: &str) -> String {
    let file = std::env::temp_dir().join(format!("wan-clip-{test}-{}.json", std::process::id()));
    std::fs::write(&file, json).unwrap();
    let error = ClipVision::open(set, Some(Path::new(&file)), &Device::Cpu, DType::F32).map(|_| ());
    std::fs::remove_file(&file).unwrap();
    error.unwrap_err().to_string()
}

#[test]
fn equals_transformers_in_both_namings() {
    for (weights, io) in
        [(ORIGINAL, "clip/clip.io.safetensors"), (TRANSFORMERS, "clip/clip_transformers.io.safetensors")]
    {
        let io = Golden::open(io);
        let found = open(weights, DType::F32).encode(&io.f32("pixel_values")).unwrap();
        // f32 rounding through three blocks.
        assert_close(weights, &found, &io.f32("expected.image_embeds"), 5e-6);
    }
    let pixels = Golden::open("clip/clip.io.safetensors").f32("pixel_values");
    let [a, b] =
        [ORIGINAL, TRANSFORMERS].map(|weights| bits(&open(weights, DType::F32).encode(&pixels).unwrap()));
    assert_eq!(a, b, "the namings hold the same weights");
}

#[test]
fn half_precisions_stay_near_f32() {
    let io = Golden::open("clip/clip.io.safetensors");
    // A little above the dtype's rounding step (2^-8, 2^-11), as errors add up over the layers.
    for (dtype, tolerance) in [(DType::BF16, 0.02), (DType::F16, 0.003)] {
        let found = open(ORIGINAL, dtype).encode(&io.f32("pixel_values")).unwrap();
        assert_eq!(found.dtype(), DType::F32);
        assert_close("half", &found, &io.f32("expected.image_embeds"), tolerance);
    }
}

#[test]
fn shapes_tell_all_but_the_heads() {
    let pixels = Golden::open("clip/clip.io.safetensors").f32("pixel_values");
    let expected = bits(&open(ORIGINAL, DType::F32).encode(&pixels).unwrap());
    let heads = std::env::temp_dir().join(format!("wan-clip-heads-{}.json", std::process::id()));
    std::fs::write(&heads, r#"{"num_heads": 3}"#).unwrap();
    for weights in [ORIGINAL, TRANSFORMERS] {
        let set = bare(weights, |_| {});
        let model = ClipVision::open(&set, Some(&heads), &Device::Cpu, DType::F32).unwrap();
        assert_eq!((model.config().image_size, model.config().num_layers), (56, 4));
        assert_eq!(bits(&model.encode(&pixels).unwrap()), expected, "{weights}");
        let error = ClipVision::open(&set, None, &Device::Cpu, DType::F32).unwrap_err().to_string();
        assert!(error.contains("`dim`: found 48, expected a multiple of 80"), "{error}");
    }
    std::fs::remove_file(&heads).unwrap();
}

#[test]
fn only_the_last_block_has_no_say() {
    let pixels = Golden::open("clip/clip.io.safetensors").f32("pixel_values");
    let expected = bits(&open(ORIGINAL, DType::F32).encode(&pixels).unwrap());
    let heads = std::env::temp_dir().join(format!("wan-clip-last-{}.json", std::process::id()));
    std::fs::write(&heads, r#"{"num_heads": 3}"#).unwrap();
    for (block, same) in [(3, true), (2, false)] {
        let set = bare(ORIGINAL, |tensors| {
            let name = format!("visual.transformer.{block}.mlp.2.weight");
            tensors.retain(|t| t.name() != name);
            tensors.push(zeros(&name, &[48, 192]));
        });
        let model = ClipVision::open(&set, Some(&heads), &Device::Cpu, DType::F32).unwrap();
        assert_eq!(bits(&model.encode(&pixels).unwrap()) == expected, same, "block {block}");
    }
    std::fs::remove_file(&heads).unwrap();
}

#[test]
fn files_with_the_whole_clip_are_read() {
    let extra: [(&str, &[&str]); 2] = [
        (ORIGINAL, &["textual.token_embedding.weight", "visual.post_norm.bias"]),
        (
            TRANSFORMERS,
            &[
                "visual_projection.weight",
                "logit_scale",
                "text_model.embeddings.x.weight",
                "vision_model.post_layernorm.weight",
            ],
        ),
    ];
    let pixels = Golden::open("clip/clip.io.safetensors").f32("pixel_values");
    for (weights, names) in extra {
        let golden = Golden::open(weights).0;
        let all = golden.iter().cloned().chain(names.iter().map(|name| zeros(name, &[2])));
        let set = WeightSet::from_tensors("file", all);
        let heads = std::env::temp_dir().join(format!("wan-clip-whole-{}.json", std::process::id()));
        std::fs::write(&heads, r#"{"num_heads": 3}"#).unwrap();
        let model = ClipVision::open(&set, Some(&heads), &Device::Cpu, DType::F32).unwrap();
        std::fs::remove_file(&heads).unwrap();
        assert_eq!(model.encode(&pixels).unwrap().dims(), [1, 17, 48]);
    }
}

#[test]
fn a_wrong_file_is_named() {
    let heads = r#"{"num_heads": 3}"#;
    let missing =
        |name: &str| error_of(&bare(ORIGINAL, |t| t.retain(|t| t.name() != name)), "missing", heads);
    for name in ["visual.pos_embedding", "visual.patch_embedding.weight", "visual.transformer.3.norm2.bias"] {
        let error = missing(name);
        assert!(error.starts_with("file: ") && error.contains(name), "{error}");
    }
    let error = missing("visual.transformer.1.attn.to_qkv.weight");
    assert_eq!(error, "file: 1 missing: visual.transformer.1.attn.to_qkv.weight");
    let k_proj = "vision_model.encoder.layers.1.self_attn.k_proj.weight";
    let error = error_of(&bare(TRANSFORMERS, |t| t.retain(|t| t.name() != k_proj)), "split", heads);
    assert_eq!(error, format!("file: 1 missing: {k_proj}"));
    let unexpected = error_of(&bare(ORIGINAL, |t| t.push(zeros("visual.extra", &[2]))), "extra", heads);
    assert_eq!(unexpected, "file: 1 unexpected: visual.extra");
    let misshapen = error_of(
        &bare(ORIGINAL, |t| {
            t.retain(|t| t.name() != "visual.transformer.3.attn.to_qkv.bias");
            t.push(zeros("visual.transformer.3.attn.to_qkv.bias", &[145]));
        }),
        "misshapen",
        heads,
    );
    assert!(misshapen.contains("visual.transformer.3.attn.to_qkv.bias: found shape [145]"), "{misshapen}");
}

#[test]
fn bad_configurations_and_inputs_are_errors() {
    let set = Golden::open(ORIGINAL).0;
    for (json, part) in [
        (r#"{"num_heads": 5}"#, "`dim`: found 48, expected a multiple of num_heads 5"),
        (r#"{"num_heads": 3, "num_layers": 0}"#, "`num_layers`: found 0"),
        (r#"{"num_heads": 3, "mlp_ratio": -1}"#, "`mlp_ratio` times `dim`: found 0"),
        (r#"{"num_heads": 3, "image_size": 13}"#, "`image_size`: found 13, expected at least patch_size 14"),
        (
            r#"{"num_heads": 3, "image_size": 70}"#,
            "visual.pos_embedding (found [1, 17, 48], expected [26, 48])",
        ),
        (r#"{"num_heads": 3, "width": 1}"#, "key `width`"),
    ] {
        let error = error_of(&set, "config", json);
        assert!(error.contains(part), "{json}: {error}");
    }
    let model = open(ORIGINAL, DType::F32);
    let wrong = Tensor::zeros((1, 3, 56, 55), DType::F32, &Device::Cpu).unwrap();
    let error = model.encode(&wrong).unwrap_err().to_string();
    assert_eq!(error, "pixel_values: found shape [1, 3, 56, 55], expected [1, 3, 56, 56]");
}

#[test]
fn memory_figures_count_what_is_run() {
    let model = open(ORIGINAL, DType::F32);
    // Of the four blocks three; patch, class and position embeddings, the norm before them; nothing after.
    let block = 4 * 48 * 48 + 2 * 48 * 192 + 9 * 48 + 192;
    let outside = 48 * 3 * 14 * 14 + 48 + 17 * 48 + 2 * 48;
    assert_eq!(model.weight_bytes(), 4 * (3 * block + outside) as u64);
    let vit_h =
        Config { image_size: 224, patch_size: 14, dim: 1280, mlp_dim: 5120, num_heads: 16, num_layers: 32 };
    assert_eq!(vit_h.activation_bytes(DType::F32), 257 * 4 * (2 * 1280 + 2 * 5120));
}

#[test]
fn preprocessing_equals_torch() {
    let mut cases = 0;
    for entry in std::fs::read_dir(repo_path("tests/golden/image")).unwrap() {
        let file = entry.unwrap().file_name().into_string().unwrap();
        if !file.starts_with("clip_") {
            continue;
        }
        cases += 1;
        let io = Golden::open(&format!("image/{file}"));
        let image = io.0.get("image").unwrap();
        let (height, width) = (image.shape()[0], image.shape()[1]);
        let size = io.i64("options.size")[0] as usize;
        let found = preprocess_rgb8(image.bytes(), height, width, size, ImageFit::Crop).unwrap();
        let levels = io.0.get("expected.levels").unwrap().bytes();
        let values = found.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let mut moved = 0;
        for (i, (value, level)) in values.iter().zip(levels).enumerate() {
            let c = i / (size * size);
            let normalised = |level: i32| (level as f32 / 255.0 - MEAN[c]) / STD[c];
            let level = i32::from(*level);
            if *value != normalised(level) {
                moved += 1;
                let beside = [level - 1, level + 1].map(normalised).contains(value);
                assert!(beside, "{file} value {i}: {value}, expected {}", normalised(level));
            }
        }
        // A value within 1e-5 of the middle of two levels may round to either.
        assert!(moved <= 3, "{file}: {moved} of {} values are one level off", values.len());
        if let Some(expected) = io.try_f32("expected.pixel_values") {
            assert_close(&file, &found, &expected, if moved == 0 { 1e-7 } else { 1e-3 });
        }
        let floats: Vec<f32> = image.bytes().iter().map(|level| f32::from(*level) / 255.0).collect();
        let of_floats = preprocess_rgb_f32(&floats, height, width, size, ImageFit::Crop).unwrap();
        assert_eq!(bits(&of_floats), bits(&found), "{file}");
    }
    assert!(cases >= 7, "{cases} fixtures");
}
