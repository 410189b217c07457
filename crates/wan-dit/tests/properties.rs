//! Properties of the transformer that need no reference: what changes the velocity, what must not, and what is
//! refused. On the weights of the golden files.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};
use float8::F8E4M3;
use wan_core::geometry::LatentSize;
use wan_core::progress::CancelToken;
use wan_core::testkit::{Golden, assert_close, distance, repo_path};
use wan_core::weights::Bytes;
use wan_core::{Stored, WeightSet};
use wan_dit::{Context, Dit, DitConfig, DitInput, KeyCache, ModelType, RopeTable};

fn weights(case: &str) -> WeightSet {
    WeightSet::open(&repo_path(&format!("tests/golden/dit/{case}.weights.safetensors"))).unwrap()
}

fn open(set: &WeightSet) -> Dit {
    Dit::open(set, None, &Device::Cpu, DType::F32).unwrap()
}

/// Everything one forward of a golden case needs.
struct Case {
    dit: Dit,
    latents: Tensor,
    condition: Option<Tensor>,
    timestep: f32,
    text: Tensor,
    image: Option<Tensor>,
    rope: RopeTable,
}

impl Case {
    fn new(case: &str) -> Self {
        Self::with(case, open(&weights(case)))
    }

    fn with(case: &str, dit: Dit) -> Self {
        let io = Golden::open(&format!("dit/{case}.io.safetensors"));
        let latents = io.f32("latents");
        let (_, _, frames, height, width) = latents.dims5().unwrap();
        Self {
            rope: dit.rope(LatentSize { frames, height, width }, 0).unwrap(),
            dit,
            latents,
            condition: io.try_f32("condition"),
            timestep: 735.0,
            text: io.f32("text_embeds"),
            image: io.try_f32("image_embeds"),
        }
    }

    fn context(&self) -> Context {
        self.dit.context(&self.text, self.image.as_ref()).unwrap()
    }

    fn velocity(&self) -> Tensor {
        let context = self.context();
        self.dit.forward(&self.latents, self.condition.as_ref(), self.timestep, &context, &self.rope).unwrap()
    }

    /// The error of a forward with these latents and this condition.
    fn refusal(&self, latents: &Tensor, condition: Option<&Tensor>) -> String {
        let forward = self.dit.forward(latents, condition, self.timestep, &self.context(), &self.rope);
        forward.unwrap_err().to_string()
    }
}

fn values(t: &Tensor) -> Vec<f32> {
    t.flatten_all().unwrap().to_vec1().unwrap()
}

fn zeros(shape: &[usize]) -> Tensor {
    Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap()
}

#[test]
fn every_input_changes_the_velocity() {
    type Change = fn(&mut Case);
    let changes: [(&str, Change); 5] = [
        ("latents", |c| c.latents = (&c.latents * 0.9).unwrap()),
        ("condition", |c| c.condition = Some((c.condition.as_ref().unwrap() * 0.9).unwrap())),
        ("timestep", |c| c.timestep = 500.0),
        ("text", |c| c.text = (&c.text * 0.9).unwrap()),
        ("image", |c| {
            c.image = Some((c.image.as_ref().unwrap() + c.image.as_ref().unwrap().sqr().unwrap()).unwrap())
        }),
    ];
    let base = Case::new("i2v").velocity();
    for (what, change) in changes {
        let mut case = Case::new("i2v");
        change(&mut case);
        let d = distance(&case.velocity(), &base).unwrap();
        assert!(d.relative_l2 > 1e-3 && d.max_abs.is_finite(), "{what} hardly matters: {d:?}");
    }
}

#[test]
fn the_condition_comes_after_the_latents() {
    // Channels of latents and condition exchanged by hand must not give the same.
    let case = Case::new("i2v");
    let all = Tensor::cat(&[&case.latents, case.condition.as_ref().unwrap()], 1).unwrap();
    let (front, back) = (all.narrow(1, 0, 20).unwrap(), all.narrow(1, 20, 16).unwrap());
    let context = case.context();
    let swapped = case.dit.forward(&back, Some(&front), case.timestep, &context, &case.rope).unwrap();
    assert!(distance(&swapped, &case.velocity()).unwrap().relative_l2 > 1e-2);
}

#[test]
fn zero_text_rows_take_part() {
    let mut case = Case::new("i2v");
    let base = case.velocity();
    let rows = case.text.dim(1).unwrap();
    let text = case.text.clone();
    case.text = text.pad_with_zeros(1, 0, 512 - rows).unwrap();
    assert_eq!(values(&case.velocity()), values(&base), "padding by the caller");
    case.text = text.squeeze(0).unwrap();
    assert_eq!(values(&case.velocity()), values(&base), "no batch axis");

    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.json");
    let config = serde_json::json!({ "num_heads": 2, "text_len": rows }).to_string();
    std::fs::write(&file, config).unwrap();
    let short = Dit::open(&weights("i2v"), Some(&file), &Device::Cpu, DType::F32).unwrap();
    assert_eq!(short.config().text_len, rows);
    let unpadded = Case::with("i2v", short).velocity();
    assert!(distance(&unpadded, &base).unwrap().relative_l2 > 1e-3);
}

#[test]
fn lockstep_equals_single_bit_for_bit() {
    for name in ["i2v", "t2v"] {
        let case = Case::new(name);
        let other = case.text.narrow(1, 0, 3).unwrap().contiguous().unwrap();
        let texts = [&case.text, &other, &case.text];
        let input = DitInput {
            latents: &case.latents,
            condition: case.condition.as_ref(),
            timestep: case.timestep,
            rope: &case.rope,
        };
        let single = |text: &Tensor| {
            let context = case.dit.context(text, case.image.as_ref()).unwrap();
            values(
                &case
                    .dit
                    .forward(input.latents, input.condition, input.timestep, &context, input.rope)
                    .unwrap(),
            )
        };
        let want = [single(&case.text), single(&other), single(&case.text)];
        assert_ne!(want[0], want[1]);
        for cache in [KeyCache::Keep, KeyCache::Recompute] {
            let contexts = case.dit.contexts(&texts, case.image.as_ref(), cache).unwrap();
            let contexts: Vec<&Context> = contexts.iter().collect();
            let found = case.dit.forward_lockstep(&input, &contexts, &CancelToken::new()).unwrap();
            assert_eq!(found.iter().map(values).collect::<Vec<_>>(), want, "{name} {cache:?}");
        }
    }
}

#[test]
fn a_cancelled_forward_stops() {
    let case = Case::new("t2v");
    let input =
        DitInput { latents: &case.latents, condition: None, timestep: case.timestep, rope: &case.rope };
    let cancel = CancelToken::new();
    cancel.cancel();
    let result = case.dit.forward_lockstep(&input, &[&case.context()], &cancel);
    assert!(matches!(result, Err(wan_core::Error::Cancelled)));
}

/// A copy of the set with every linear weight of the blocks and the text embedding changed by `change`.
fn map_linears(set: &WeightSet, change: impl Fn(&Stored) -> Stored) -> WeightSet {
    let linear =
        |t: &Stored| t.shape().len() == 2 && t.name().ends_with(".weight") && !t.name().contains("time_");
    WeightSet::from_tensors("changed", set.iter().map(|t| if linear(t) { change(t) } else { t.clone() }))
}

/// The config of a golden case as a file, for sets whose header is gone.
fn config_file(set: &WeightSet, dir: &tempfile::TempDir) -> std::path::PathBuf {
    let file = dir.path().join("config.json");
    std::fs::write(&file, &set.metadata()["config"]).unwrap();
    file
}

#[test]
fn fp8_and_half_weights_equal_their_widened_copies() {
    let set = weights("i2v");
    let dir = tempfile::tempdir().unwrap();
    let config = config_file(&set, &dir);
    let velocity = |set: &WeightSet| {
        Case::with("i2v", Dit::open(set, Some(&config), &Device::Cpu, DType::F32).unwrap()).velocity()
    };
    type Narrow = fn(f32) -> Vec<u8>;
    let narrowings: [(DType, Narrow); 3] = [
        (DType::F8E4M3, |v| vec![F8E4M3::from_f32(v).to_bits()]),
        (DType::BF16, |v| half::bf16::from_f32(v).to_le_bytes().to_vec()),
        (DType::F16, |v| half::f16::from_f32(v).to_le_bytes().to_vec()),
    ];
    for (dtype, narrow) in narrowings {
        let narrowed = map_linears(&set, |t| {
            let bytes: Vec<u8> = t.to_f32_vec().unwrap().into_iter().flat_map(narrow).collect();
            Stored::new(t.name(), dtype, t.shape().to_vec(), Bytes::new(bytes)).unwrap()
        });
        let widened = map_linears(&narrowed, |t| {
            Stored::from_tensor(t.name(), &t.to_f32_tensor(&Device::Cpu).unwrap()).unwrap()
        });
        let narrowed = velocity(&narrowed);
        assert_close(dtype.as_str(), &narrowed, &velocity(&widened), 1e-6);
        let rounding = distance(&narrowed, &velocity(&set)).unwrap().relative_l2;
        assert!(rounding > 1e-5, "{dtype:?}: weights were not narrowed ({rounding:e})");
    }
}

/// The set with other names or tensors.
fn edit(set: &WeightSet, edit: impl FnOnce(&mut BTreeMap<String, Stored>)) -> WeightSet {
    let mut tensors = set.iter().map(|t| (t.name().to_string(), t.clone())).collect();
    edit(&mut tensors);
    let renamed = tensors.into_iter().map(|(name, t)| {
        Stored::new(name, t.dtype(), t.shape().to_vec(), Bytes::new(t.bytes().to_vec())).unwrap()
    });
    WeightSet::from_tensors("edited", renamed)
}

#[test]
fn prefixes_are_recognised() {
    let set = weights("i2v");
    let dir = tempfile::tempdir().unwrap();
    let config = config_file(&set, &dir);
    let base = Case::new("i2v").velocity();
    for prefix in ["model.diffusion_model.", "diffusion_model.", "model."] {
        let prefixed = edit(&set, |tensors| {
            let old = std::mem::take(tensors);
            tensors.extend(old.into_iter().map(|(name, t)| (format!("{prefix}{name}"), t)));
        });
        let dit = Dit::open(&prefixed, Some(&config), &Device::Cpu, DType::F32).unwrap();
        assert_eq!(values(&Case::with("i2v", dit).velocity()), values(&base), "{prefix}");
    }
}

#[test]
fn wrong_weights_are_named() {
    for (case, block_tensor) in
        [("i2v", "blocks.1.cross_attn.norm_k_img.weight"), ("t2v", "blocks.0.self_attn.o.bias")]
    {
        let set = weights(case);
        let dir = tempfile::tempdir().unwrap();
        let config = config_file(&set, &dir);
        let error = |set: &WeightSet| {
            Dit::open(set, Some(&config), &Device::Cpu, DType::F32).unwrap_err().to_string()
        };
        for name in [block_tensor, "patch_embedding.weight", "head.modulation", "time_projection.1.bias"] {
            let message = error(&edit(&set, |t| drop(t.remove(name))));
            assert!(message.contains(name), "{message}");
        }
        let message = error(&edit(&set, |t| {
            let extra = t[block_tensor].clone();
            t.insert("blocks.0.surprise.weight".into(), extra);
        }));
        assert!(message.contains("1 unexpected: blocks.0.surprise.weight"), "{message}");
        let message = error(&edit(&set, |t| {
            let short = t[block_tensor].clone().rows(0, 2).unwrap();
            t.insert(block_tensor.into(), short);
        }));
        assert!(message.contains(&format!("1 misshapen: {block_tensor}")), "{message}");
    }
    let vae = WeightSet::open(&repo_path("tests/golden/vae/vae.weights.safetensors")).unwrap();
    let message = Dit::open(&vae, None, &Device::Cpu, DType::F32).unwrap_err().to_string();
    assert!(message.contains("not a Wan2.1 DiT in a known naming"), "{message}");
}

#[test]
fn the_configuration_comes_from_shapes_where_nothing_else_tells() {
    for case in ["i2v_1x128", "t2v"] {
        let with_header = weights(case);
        let bare = edit(&with_header, |_| {});
        let want = DitConfig::read(&with_header, None).unwrap();
        if case == "t2v" {
            // 96 channels do not split into heads of 128.
            let message = DitConfig::read(&bare, None).unwrap_err().to_string();
            assert!(message.starts_with("dit config num_heads: found none"), "{message}");
            assert_eq!((want.model_type, want.image_dim, want.condition_dim()), (ModelType::T2v, None, 0));
        } else {
            assert_eq!(DitConfig::read(&bare, None).unwrap(), want);
            assert_eq!((want.num_heads, want.head_dim(), want.condition_dim()), (1, 128, 20));
        }
    }
}

#[test]
fn contradicting_configurations_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.json");
    let refusal = |text: &str| {
        std::fs::write(&file, text).unwrap();
        DitConfig::read(&weights("t2v"), Some(&file)).unwrap_err().to_string()
    };
    for (text, message) in [
        (r#"{"num_heads": 5}"#, "dit config num_heads: found 5"),
        (r#"{"num_heads": 32}"#, "dit config num_heads: found 32"), // heads of 3
        (r#"{"num_heads": 0}"#, "dit config num_heads: found 0"),
        (r#"{"num_heads": 2, "freq_dim": 63}"#, "dit config freq_dim: found 63"),
        (r#"{"num_heads": 2, "in_dim": 36}"#, "dit config in_dim: found 36"),
        (r#"{"num_heads": 2, "model_type": "t2v", "in_dim": 20}"#, "dit config in_dim: found 20"),
        (r#"{"num_heads": 2, "eps": 0.0}"#, "dit config eps: found 0"),
        (r#"{"num_heads": 2, "num_layers": 9999999}"#, "dit config num_layers: found 9999999"),
    ] {
        let found = refusal(text);
        assert!(found.starts_with(message), "{text}: {found}");
    }
    assert!(refusal(r#"{"model_type": "v2v"}"#).contains("expected `i2v` or `t2v`"));
    assert!(refusal(r#"{"heads": 2}"#).contains("key `heads`"));
}

#[test]
fn inputs_that_do_not_fit_are_named() {
    let i2v = Case::new("i2v");
    let condition = i2v.condition.as_ref();
    assert_eq!(
        i2v.refusal(&i2v.latents, None),
        "condition: found none, expected shape [1, 20, 3, 4, 6] for an i2v model"
    );
    assert_eq!(
        i2v.refusal(&i2v.latents, Some(&zeros(&[1, 16, 3, 4, 6]))),
        "condition: found shape [1, 16, 3, 4, 6], expected [1, 20, 3, 4, 6], the latents' size with 20 channels"
    );
    for shape in
        [&[1, 15, 3, 4, 6][..], &[2, 16, 3, 4, 6], &[1, 16, 3, 5, 6], &[1, 16, 3, 4, 7], &[16, 3, 4, 6]]
    {
        let message = i2v.refusal(&zeros(shape), condition);
        assert_eq!(
            message,
            format!("latents: found shape {shape:?}, expected [1, 16, F, h, w] with h and w even")
        );
    }
    let message = i2v.refusal(&zeros(&[1, 16, 2, 4, 6]), condition);
    assert_eq!(message, "rope table: found made for 3 x 4 x 6, expected the latents' 2 x 4 x 6");

    let message =
        |text: &Tensor, image: Option<&Tensor>| i2v.dit.context(text, image).unwrap_err().to_string();
    assert_eq!(message(&i2v.text, None), "image_embeds: found none, expected [1, N, 40] for an i2v model");
    assert!(
        message(&i2v.text, Some(&zeros(&[1, 10, 41]))).starts_with("image_embeds: found shape [1, 10, 41]")
    );
    for shape in [&[1, 513, 48][..], &[1, 20, 47], &[2, 20, 48], &[0, 48], &[48]] {
        let found = message(&zeros(shape), i2v.image.as_ref());
        assert_eq!(
            found,
            format!("text_embeds: found shape {shape:?}, expected [1, S, 48] with S of 1 to 512")
        );
    }

    let t2v = Case::new("t2v");
    let message = t2v.refusal(&t2v.latents, Some(&t2v.latents));
    assert_eq!(message, "condition: found shape [1, 16, 5, 4, 6], expected none for a t2v model");
    let message = t2v.dit.context(&t2v.text, Some(&zeros(&[1, 2, 3]))).unwrap_err().to_string();
    assert_eq!(message, "image_embeds: found shape [1, 2, 3], expected none for a t2v model");
    let foreign = i2v.context();
    let result = t2v.dit.forward(&t2v.latents, None, 1.0, &foreign, &t2v.rope);
    assert!(result.unwrap_err().to_string().starts_with("context: found one of another model"));
    let result = t2v.dit.forward(&t2v.latents, None, f32::NAN, &t2v.context(), &t2v.rope);
    assert_eq!(result.unwrap_err().to_string(), "timestep: found NaN, expected a number of 0 to 1000");
}
