//! LoRA against velocities that PyTorch computed with merged weights (tests/golden/lora), and what is refused.

use candle_core::{DType, Device, Tensor};
use float8::F8E4M3;
use serde_json::Value;
use wan_core::geometry::LatentSize;
use wan_core::testkit::{Golden, assert_close, distance, repo_path};
use wan_core::weights::Bytes;
use wan_core::{Stored, WeightSet};
use wan_dit::{Dit, Lora, LoraReport};

/// As for the plain model: merging and branches differ by the order of f32 sums.
const TOLERANCE: f64 = 1e-5;

fn model() -> WeightSet {
    WeightSet::open(&repo_path("tests/golden/dit/i2v.weights.safetensors")).unwrap()
}

fn tensors() -> Golden {
    Golden::open("lora/lora.safetensors")
}

/// The velocity of `weights` with `loras` on the inputs of the golden case.
fn velocity(weights: &WeightSet, loras: &[Lora]) -> Tensor {
    let (dit, reports) = Dit::open_with_loras(weights, None, loras, &Device::Cpu, DType::F32).unwrap();
    assert_eq!(reports.len(), loras.len());
    let io = Golden::open("dit/i2v.io.safetensors");
    let latents = io.f32("latents");
    let (_, _, frames, height, width) = latents.dims5().unwrap();
    let rope = dit.rope(LatentSize { frames, height, width }, 0).unwrap();
    let context = dit.context(&io.f32("text_embeds"), io.try_f32("image_embeds").as_ref()).unwrap();
    dit.forward(&latents, io.try_f32("condition").as_ref(), 735.0, &context, &rope).unwrap()
}

fn formats() -> serde_json::Map<String, Value> {
    let text = std::fs::read_to_string(repo_path("tests/golden/lora/keys.json")).unwrap();
    let Value::Object(formats) = serde_json::from_str(&text).unwrap() else { panic!("not an object") };
    formats
}

/// The LoRA of the golden file in one of its formats.
fn lora(format: &str, strength: f32) -> Lora {
    let (all, formats) = (tensors(), formats());
    let keys = formats[format]["keys"].as_object().unwrap();
    let named = keys.iter().map(|(key, tensor)| named(key, all.0.get(tensor.as_str().unwrap()).unwrap()));
    Lora { weights: WeightSet::from_tensors(format!("{format}.safetensors"), named), strength, blocks: None }
}

/// The same values under another name.
fn named(name: &str, stored: &Stored) -> Stored {
    let bytes = Bytes::new(stored.bytes().to_vec());
    Stored::new(name, stored.dtype(), stored.shape().to_vec(), bytes).unwrap()
}

/// A LoRA of these tensors of ones.
fn ones(tensors: &[(&str, &[usize])]) -> Lora {
    let tensors = tensors.iter().map(|(name, shape)| {
        Stored::from_tensor(*name, &Tensor::ones(*shape, DType::F32, &Device::Cpu).unwrap()).unwrap()
    });
    Lora { weights: WeightSet::from_tensors("test.safetensors", tensors), strength: 1.0, blocks: None }
}

fn report(lora: Lora) -> LoraReport {
    LoraReport::of(&model(), &[lora]).unwrap().remove(0)
}

fn refusal(lora: Lora) -> String {
    LoraReport::of(&model(), &[lora]).unwrap_err().to_string()
}

fn values(t: &Tensor) -> Vec<f32> {
    t.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn every_format_equals_merged_weights() {
    let (model, golden) = (model(), tensors());
    for (name, format) in formats() {
        let Some(case) = format["expected"].as_str() else { continue };
        let lora = lora(&name, 0.8);
        let found = report(lora.clone());
        assert_eq!(
            (found.applied, found.skipped.len()),
            (lora.weights.iter().count(), 0),
            "{name}: {found:?}"
        );
        assert_close(&name, &velocity(&model, &[lora]), &golden.f32(&format!("expected.{case}")), TOLERANCE);
    }
}

#[test]
fn several_add_up() {
    let loras = [lora("comfy_peft", 0.8), lora("second", -0.5)];
    assert_close("two", &velocity(&model(), &loras), &tensors().f32("expected.two"), TOLERANCE);
}

#[test]
fn strength_0_changes_no_bit() {
    let model = model();
    let plain = velocity(&model, &[]);
    for format in ["comfy_peft", "differences"] {
        assert_eq!(values(&velocity(&model, &[lora(format, 0.0)])), values(&plain), "{format}");
    }
}

#[test]
fn a_selection_limits_the_blocks_and_nothing_else() {
    let chosen =
        |blocks: &str| Lora { blocks: Some(blocks.parse().unwrap()), ..lora("kohya", 0.8 * 3.0 / 1.2) };
    let found = report(chosen("1"));
    assert_eq!((found.applied, found.left_out), (42, 36), "{found:?}");
    assert_close(
        "block 1",
        &velocity(&model(), &[chosen("1")]),
        &tensors().f32("expected.block1"),
        TOLERANCE,
    );
    assert_eq!(
        values(&velocity(&model(), &[chosen("0-1")])),
        values(&velocity(&model(), &[lora("kohya", 0.8 * 3.0 / 1.2)]))
    );
    let error = refusal(chosen("0-2"));
    assert_eq!(error, "lora kohya.safetensors: found blocks 0-2, expected blocks 0 to 1");
}

#[test]
fn diffusers_weights_take_them_too() {
    let model = WeightSet::open(&repo_path("tests/golden/dit/i2v_diffusers.weights.safetensors")).unwrap();
    let expected = tensors().f32("expected.plain");
    assert_close("diffusers model", &velocity(&model, &[lora("comfy_peft", 0.8)]), &expected, TOLERANCE);
}

#[test]
fn unknown_tensors_are_listed() {
    let known: [(&str, &[usize]); 3] = [
        ("diffusion_model.blocks.0.self_attn.q.lora_A.weight", &[2, 64]),
        ("diffusion_model.blocks.0.self_attn.q.lora_B.weight", &[64, 2]),
        ("diffusion_model.blocks.7.self_attn.q.diff_b", &[64]),
    ];
    let more: [(&str, &[usize]); 4] = [
        ("lora_te_text_model_q.alpha", &[1]),
        ("diffusion_model.patch_embedding.diff", &[64, 16, 1, 2, 2]), // of a text-to-video model
        ("diffusion_model.blocks.0.self_attn.norm_q.diff_b", &[64]),
        ("diffusion_model.blocks.0.self_attn.q.weight", &[64, 64]),
    ];
    let found = report(ones(&[&known[..], &more[..]].concat()));
    assert_eq!((found.applied, found.skipped.len()), (2, 5), "{found:?}");
    assert_eq!(
        found.to_string(),
        "lora test.safetensors: 2 tensors applied, 5 skipped that this model has no place for: \
         diffusion_model.blocks.0.self_attn.q.weight, diffusion_model.blocks.7.self_attn.q.diff_b, \
         lora_te_text_model_q.alpha, …"
    );
}

#[test]
fn what_cannot_be_applied_as_meant_is_refused() {
    let q = "diffusion_model.blocks.0.self_attn.q";
    let down = format!("{q}.lora_down.weight");
    let up = format!("{q}.lora_up.weight");
    let pair: [(&str, &[usize]); 2] = [(&down, &[2, 64]), (&up, &[64, 2])];
    let with = |name: &str, shape: &[usize]| refusal(ones(&[&pair[..], &[(name, shape)]].concat()));
    for (ending, method) in [
        ("dora_scale", "DoRA"),
        ("set_weight", "replaced weights"),
        ("lora_mid.weight", "Tucker"),
        ("hada_w1_a", "LoHa"),
        ("lokr_w1", "LoKr"),
        ("reshape_weight", "reshaped"),
    ] {
        let error = with(&format!("{q}.{ending}"), &[64]);
        assert!(
            error.contains(method) && error.contains(ending) && error.contains("test.safetensors"),
            "{error}"
        );
    }
    assert_eq!(
        refusal(ones(&[(&down, &[2, 48]), (&up, &[64, 2])])),
        format!(
            "lora test.safetensors: found {down} [2, 48] and {up} [64, 2], \
             expected factors of blocks.0.self_attn.q.weight [64, 64]"
        )
    );
    for (d, u) in [([2, 64], [64, 3]), ([2, 64], [63, 2]), ([0, 64], [64, 0])] {
        assert!(refusal(ones(&[(&down, &d), (&up, &u)])).contains("expected factors of"));
    }
    assert!(refusal(ones(&[(&down, &[2, 64])])).contains("lora_down.weight alone"));
    assert!(with(&format!("{q}.diff_b"), &[63]).contains("the shape of blocks.0.self_attn.q.bias [64]"));
    assert!(with(&format!("{q}.alpha"), &[2]).contains("one finite number"));
    let twice = with("transformer.blocks.0.attn1.to_q.lora_A.weight", &[2, 64]);
    assert!(twice.contains("both") && twice.contains(&down), "{twice}");
    let nothing = refusal(ones(&[("lora_te_text_model_q.lora_down.weight", &[2, 64])]));
    assert!(nothing.contains("only lora_te_text_model_q.lora_down.weight, …"), "{nothing}");
    assert!(refusal(ones(&[])).contains("no tensors"));
    assert!(refusal(Lora { strength: f32::NAN, ..ones(&pair) }).contains("finite"));
    let outside = Lora { blocks: Some("1".parse().unwrap()), ..ones(&pair) };
    assert!(refusal(outside).contains("nothing in the chosen blocks"));
}

/// Weights as an FP8 file holds them: FP8 in the blocks' linears, all else as it is.
fn fp8(set: &WeightSet) -> WeightSet {
    let narrow = |t: &Stored| {
        if !(t.name().starts_with("blocks.") && t.shape().len() == 2) {
            return t.clone();
        }
        let bytes: Vec<u8> =
            t.to_f32_vec().unwrap().into_iter().map(|v| F8E4M3::from_f32(v).to_bits()).collect();
        Stored::new(t.name(), DType::F8E4M3, t.shape().to_vec(), Bytes::new(bytes)).unwrap()
    };
    WeightSet::from_tensors("fp8", set.iter().map(narrow))
}

/// Merging into FP8 rounds the sum to 3 bits of mantissa: most of a small change is lost. The branch keeps it.
/// `docs/lora.md` has the figures (`cargo test -p wan-dit --test lora -- --nocapture fp8`).
#[test]
fn a_branch_beside_fp8_is_better_than_merging_into_it() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config.json");
    std::fs::write(&config, &model().metadata()["config"]).unwrap();
    let stored = fp8(&model());
    let run = |set: &WeightSet, loras: &[Lora]| {
        let dit = Dit::open_with_loras(set, Some(&config), loras, &Device::Cpu, DType::F32).unwrap().0;
        let io = Golden::open("dit/i2v.io.safetensors");
        let latents = io.f32("latents");
        let (_, _, frames, height, width) = latents.dims5().unwrap();
        let rope = dit.rope(LatentSize { frames, height, width }, 0).unwrap();
        let context = dit.context(&io.f32("text_embeds"), io.try_f32("image_embeds").as_ref()).unwrap();
        dit.forward(&latents, io.try_f32("condition").as_ref(), 735.0, &context, &rope).unwrap()
    };
    let plain = run(&stored, &[]);
    let golden = tensors();
    for strength in [0.8, 0.2] {
        let merged = WeightSet::from_tensors(
            "merged",
            stored.iter().map(|t| {
                let module = t.name().strip_suffix(".weight").unwrap_or("");
                let (down, up) =
                    (golden.try_f32(&format!("a.{module}.down")), golden.try_f32(&format!("a.{module}.up")));
                let (Some(down), Some(up)) = (down, up) else { return t.clone() };
                let change = (up.matmul(&down).unwrap() * strength).unwrap();
                let sum = (t.to_f32_tensor(&Device::Cpu).unwrap() + change).unwrap();
                Stored::from_tensor(t.name(), &sum).unwrap()
            }),
        );
        let exact = run(&merged, &[]);
        let branch = run(&stored, &[lora("comfy_peft", strength as f32)]);
        let rounded = run(&fp8(&merged), &[]);
        let effect = distance(&exact, &plain).unwrap().relative_l2;
        let off = |v: &Tensor| distance(v, &exact).unwrap().relative_l2;
        println!(
            "strength {strength}: the LoRA changes the velocity by {:.1} %; error of the branch {:.1e}, of merging {:.1e} \
             ({:.0} % of the change)",
            100.0 * effect,
            off(&branch),
            off(&rounded),
            100.0 * off(&rounded) / effect
        );
        assert!(off(&branch) < TOLERANCE, "{:e}", off(&branch));
        assert!(off(&rounded) > 1e-3, "merging is exact? {:e}", off(&rounded));
    }
}
