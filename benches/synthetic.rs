//! Weights of true shapes and random values, for benches at sizes whose weights are not in the repository.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use wan_core::testkit::repo_path;
use wan_core::{Stored, WeightSet};
use wan_sampler::TorchRng;

/// Random tensors of the given shapes: matrices and kernels N(0, 1/fan_in), norms 1, biases 0. Large tensors repeat
/// one block of values, since their timing does not depend on them.
pub fn weights(label: &str, shapes: BTreeMap<String, Vec<usize>>) -> WeightSet {
    let noise = TorchRng::seed(1).randn(1 << 16);
    let tensors = shapes.into_iter().map(|(name, shape)| {
        let elements: usize = shape.iter().product();
        let fan_in: usize = shape[1..].iter().product();
        let values: Vec<f32> = if name.ends_with(".bias") {
            vec![0.0; elements]
        } else if name.ends_with("gamma") || (name.contains("norm") && name.ends_with("weight")) {
            vec![1.0; elements]
        } else {
            let scale = 1.0 / (fan_in.max(1) as f32).sqrt();
            noise.iter().cycle().take(elements).map(|v| v * scale).collect()
        };
        let tensor = Tensor::from_vec(values, shape, &Device::Cpu).expect("a tensor");
        Stored::from_tensor(name, &tensor).expect("a float tensor")
    });
    WeightSet::from_tensors(label, tensors)
}

/// Standard normal values.
pub fn randn(seed: u64, shape: &[usize]) -> Tensor {
    TorchRng::seed(seed).randn_tensor(shape, &Device::Cpu).expect("a tensor")
}

/// An image-to-video DiT of `dim` with heads of 128 and `layers` blocks.
pub fn dit(dim: usize, ffn_dim: usize, layers: usize) -> WeightSet {
    let mut shapes = BTreeMap::new();
    let mut put = |name: String, shape: &[usize]| drop(shapes.insert(name, shape.to_vec()));
    let mut linear = |name: String, inputs: usize, outputs: usize| {
        put(format!("{name}.weight"), &[outputs, inputs]);
        put(format!("{name}.bias"), &[outputs]);
    };
    for (name, inputs, outputs) in [
        ("text_embedding.0", 4096, dim),
        ("text_embedding.2", dim, dim),
        ("time_embedding.0", 256, dim),
        ("time_embedding.2", dim, dim),
        ("time_projection.1", dim, 6 * dim),
        ("img_emb.proj.1", 1280, 1280),
        ("img_emb.proj.3", 1280, dim),
        ("head.head", dim, 64),
    ] {
        linear(name.into(), inputs, outputs);
    }
    for n in 0..layers {
        for name in
            ["self_attn.q", "self_attn.k", "self_attn.v", "self_attn.o", "cross_attn.q", "cross_attn.k"]
        {
            linear(format!("blocks.{n}.{name}"), dim, dim);
        }
        for name in ["cross_attn.v", "cross_attn.o", "cross_attn.k_img", "cross_attn.v_img"] {
            linear(format!("blocks.{n}.{name}"), dim, dim);
        }
        linear(format!("blocks.{n}.ffn.0"), dim, ffn_dim);
        linear(format!("blocks.{n}.ffn.2"), ffn_dim, dim);
    }
    for n in 0..layers {
        for name in [
            "self_attn.norm_q",
            "self_attn.norm_k",
            "cross_attn.norm_q",
            "cross_attn.norm_k",
            "cross_attn.norm_k_img",
            "norm3",
        ] {
            put(format!("blocks.{n}.{name}.weight"), &[dim]);
        }
        put(format!("blocks.{n}.norm3.bias"), &[dim]);
        put(format!("blocks.{n}.modulation"), &[1, 6, dim]);
    }
    for (name, size) in [("img_emb.proj.0", 1280), ("img_emb.proj.4", dim)] {
        put(format!("{name}.weight"), &[size]);
        put(format!("{name}.bias"), &[size]);
    }
    put("patch_embedding.weight".into(), &[dim, 36, 1, 2, 2]);
    put("patch_embedding.bias".into(), &[dim]);
    put("head.modulation".into(), &[1, 2, dim]);
    weights("synthetic dit", shapes)
}

/// The VAE at its real dimensions.
pub fn vae() -> WeightSet {
    let text = std::fs::read_to_string(repo_path("tests/layouts/wan2.1_vae.json")).expect("the shapes");
    weights("synthetic vae", serde_json::from_str(&text).expect("names and shapes"))
}

/// A UMT5 encoder of `dim` with heads of 64.
pub fn umt5(vocab: usize, dim: usize, ffn_dim: usize, layers: usize) -> WeightSet {
    let mut shapes = BTreeMap::new();
    let mut put = |name: String, shape: &[usize]| drop(shapes.insert(name, shape.to_vec()));
    put("token_embedding.weight".into(), &[vocab, dim]);
    put("norm.weight".into(), &[dim]);
    for n in 0..layers {
        for name in ["q", "k", "v", "o"] {
            put(format!("blocks.{n}.attn.{name}.weight"), &[dim, dim]);
        }
        put(format!("blocks.{n}.pos_embedding.embedding.weight"), &[32, dim / 64]);
        for name in ["norm1", "norm2"] {
            put(format!("blocks.{n}.{name}.weight"), &[dim]);
        }
        put(format!("blocks.{n}.ffn.gate.0.weight"), &[ffn_dim, dim]);
        put(format!("blocks.{n}.ffn.fc1.weight"), &[ffn_dim, dim]);
        put(format!("blocks.{n}.ffn.fc2.weight"), &[dim, ffn_dim]);
    }
    weights("synthetic umt5", shapes)
}
