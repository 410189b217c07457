//! How large the values of a tensor are, from its name.
//!
//! With a framework's default initialisation the softmax is nearly flat and no channel stands out, and the errors of
//! 8-bit arithmetic do not show. These values give logits of a deviation of about 3, channel outliers in keys and
//! values, and massive activations in the residual stream, as trained video transformers have them.

use candle_core::DType;

use super::layout::TensorSpec;

/// Distribution of a tensor's values: N(mean, deviation²), but for its outliers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Recipe {
    /// Mean.
    pub mean: f32,
    /// Standard deviation.
    pub deviation: f32,
    /// Rows, or for a vector channels, that differ.
    pub outliers: Option<Outliers>,
}

/// One row, or channel of a vector, in `every`, chosen at random, has `factor` times the deviation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outliers {
    /// One in so many.
    pub every: u64,
    /// How much larger.
    pub factor: f32,
}

/// Deviation of biases.
const BIAS: f32 = 0.02;
/// Smallest deviation of FP8 matrices: e4m3 has no numbers between 0 and 2⁻⁹, and published FP8 files are not mostly 0.
const E4M3: f32 = 0.02;

impl Recipe {
    /// That of a tensor under its original Wan2.1 name.
    pub fn of(spec: &TensorSpec) -> Self {
        let (name, plain) = (spec.name.as_str(), Self { mean: 0.0, deviation: BIAS, outliers: None });
        let fan_in: usize = spec.shape.iter().skip(1).product();
        let unit = 1.0 / (fan_in.max(1) as f32).sqrt();
        let ends = |suffixes: &[&str]| suffixes.iter().any(|s| name.ends_with(s));
        if ends(&["norm_q.weight", "norm_k.weight", "norm_k_img.weight"]) {
            let own = name.contains("self_attn");
            return Self {
                mean: if own { 1.8 } else { 1.5 },
                deviation: if own { 0.25 } else { 0.1 },
                ..plain
            };
        }
        if ends(&["modulation"]) {
            return Self { deviation: 0.3, ..plain };
        }
        if ends(&["time_projection.1.weight"]) {
            return Self { deviation: 0.3 * unit, ..plain };
        }
        if ends(&["self_attn.k.bias", "self_attn.v.bias"]) {
            let deviation = if ends(&["k.bias"]) { 6.0 } else { 3.0 };
            let outliers = Some(Outliers { every: 64, factor: deviation / BIAS });
            return Self { outliers, ..plain };
        }
        if ends(&["gamma"]) || (name.contains("norm") || is_layer_norm(spec)) && ends(&["weight"]) {
            return Self { mean: 1.0, deviation: 0.1, ..plain };
        }
        if ends(&["token_embedding.weight", "pos_embedding.embedding.weight"]) {
            return Self { deviation: 1.0, ..plain };
        }
        if ends(&["bias", "visual.pos_embedding", "cls_embedding"]) || fan_in == 1 {
            return plain;
        }
        // UMT5 does not divide its scores by the root of the head's 64 channels.
        let scores = if ends(&[".attn.q.weight"]) { 0.125 } else { 1.0 };
        let deviation = scores * if spec.dtype == DType::F8E4M3 { unit.max(E4M3) } else { unit };
        let massive = ends(&["ffn.2.weight"]).then_some(Outliers { every: 160, factor: 8.0 });
        Self { deviation, outliers: massive, ..plain }
    }
}

/// The norms inside of `img_emb.proj`, which are only numbered.
fn is_layer_norm(spec: &TensorSpec) -> bool {
    spec.name.starts_with("img_emb.proj.") && spec.shape.len() == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe(name: &str, shape: &[usize], dtype: DType) -> Recipe {
        Recipe::of(&TensorSpec { name: name.into(), dtype, shape: shape.to_vec() })
    }

    #[test]
    fn names_decide() {
        let f32 = DType::F32;
        assert_eq!(recipe("blocks.3.self_attn.norm_q.weight", &[5120], f32).mean, 1.8);
        assert_eq!(recipe("blocks.3.cross_attn.norm_k_img.weight", &[5120], f32).mean, 1.5);
        assert_eq!(recipe("blocks.3.norm3.weight", &[5120], f32).mean, 1.0);
        assert_eq!(recipe("blocks.3.norm3.bias", &[5120], f32).mean, 0.0);
        assert_eq!(recipe("img_emb.proj.0.weight", &[1280], f32).mean, 1.0);
        assert_eq!(recipe("decoder.head.0.gamma", &[96, 1, 1, 1], f32).mean, 1.0);
        assert_eq!(recipe("blocks.3.modulation", &[1, 6, 5120], f32).deviation, 0.3);
        let linear = recipe("blocks.3.cross_attn.q.weight", &[5120, 4096], DType::BF16);
        assert_eq!(linear, Recipe { mean: 0.0, deviation: 1.0 / 64.0, outliers: None });
        assert_eq!(recipe("blocks.3.cross_attn.q.weight", &[5120, 4096], DType::F8E4M3).deviation, 0.02);
        let massive = recipe("blocks.3.ffn.2.weight", &[5120, 13824], DType::F8E4M3);
        assert_eq!(massive.outliers, Some(Outliers { every: 160, factor: 8.0 }));
        assert!(recipe("blocks.3.self_attn.k.bias", &[5120], f32).outliers.is_some());
        assert!(recipe("blocks.3.self_attn.q.bias", &[5120], f32).outliers.is_none());
    }
}
