//! What the names in a LoRA file say: which module, and what of it.

use std::collections::HashMap;

use wan_core::WeightSet;

use crate::names::DIALECTS;

/// What one tensor of a LoRA file is for its module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    /// First factor, `[rank, inputs]`.
    Down,
    /// Second factor, `[outputs, rank]`.
    Up,
    /// Bias of the second factor.
    UpBias,
    /// Scalar; the product counts `alpha / rank`.
    Alpha,
    /// Change of the weight.
    Diff,
    /// Change of the bias.
    DiffBias,
    /// Change of the modulation.
    DiffModulation,
}

/// How the parts are called; names are compared without a `.default` in them.
const PARTS: &[(&str, Part)] = &[
    (".lora_A.weight", Part::Down),
    (".lora_down.weight", Part::Down),
    (".lora.down.weight", Part::Down),
    (".lora_B.weight", Part::Up),
    (".lora_up.weight", Part::Up),
    (".lora.up.weight", Part::Up),
    (".lora_B.bias", Part::UpBias),
    (".alpha", Part::Alpha),
    (".diff", Part::Diff),
    (".diff_b", Part::DiffBias),
    (".diff_m", Part::DiffModulation),
];

/// Endings of methods that are not additions of a product or a difference. A file that has one would act otherwise
/// than its author meant if only the rest were applied.
const REFUSED: &[(&str, &str)] = &[
    (".dora_scale", "DoRA"),
    (".lora_magnitude_vector", "DoRA"),
    (".lora_magnitude_vector.weight", "DoRA"),
    (".set_weight", "replaced weights"),
    (".reshape_weight", "reshaped weights"),
    (".lora_mid.weight", "a Tucker decomposition"),
    (".hada_w1_a", "LoHa"),
    (".lokr_w1", "LoKr"),
    (".lokr_w1_a", "LoKr"),
    (".oft_blocks", "OFT"),
    (".w_norm", "LyCORIS norms"),
    (".b_norm", "LyCORIS norms"),
];

/// Prefixes on dotted names. Files put several before one another.
const PREFIXES: &[&str] = &[
    "base_model.model.",
    "model.diffusion_model.",
    "diffusion_model.",
    "transformer.",
    "pipe.dit.",
    "model.",
];

/// Prefixes on names whose dots became `_`; the longest first.
const FLAT_PREFIXES: &[&str] = &["lora_unet__", "lora_unet_", "lora_transformer_", "lycoris_"];

/// One name, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// A part of a module, in the file's own naming.
    Part(String, Part),
    /// A tensor of this method, which is not supported.
    Refused(&'static str),
    /// Nothing known.
    Unknown,
}

impl Key {
    pub(super) fn parse(name: &str) -> Self {
        let name = name.replace(".default.", ".");
        if let Some((_, method)) = REFUSED.iter().find(|(ending, _)| name.ends_with(ending)) {
            return Self::Refused(method);
        }
        match PARTS.iter().find_map(|(ending, part)| Some((name.strip_suffix(ending)?, *part))) {
            Some((module, part)) => Self::Part(module.to_string(), part),
            None => Self::Unknown,
        }
    }
}

/// A model's modules, by every name that LoRA files have for them.
pub(super) struct Modules {
    dotted: HashMap<String, String>,
    flat: HashMap<String, String>,
}

impl Modules {
    /// `weights`: under canonical names. Flattened names are made from these, since they cannot be split again:
    /// an underscore may be a dot or one of `k_img`'s own.
    pub(super) fn new(weights: &WeightSet) -> Self {
        let mut modules = Self { dotted: HashMap::new(), flat: HashMap::new() };
        for tensor in weights.names() {
            let others = DIALECTS.iter().filter_map(|d| d.name_of(tensor));
            for name in others.chain([tensor.to_string()]) {
                let module = |name: &str| {
                    let end = [".weight", ".bias", ".modulation"].iter().find_map(|e| name.strip_suffix(e));
                    end.unwrap_or(name).to_string()
                };
                modules.flat.insert(module(&name).replace('.', "_"), module(tensor));
                modules.dotted.insert(module(&name), module(tensor));
            }
        }
        modules
    }

    /// The canonical name of a file's `module`.
    pub(super) fn find(&self, module: &str) -> Option<&str> {
        for prefix in FLAT_PREFIXES {
            if let Some(rest) = module.strip_prefix(prefix) {
                return self.flat.get(rest).map(String::as_str);
            }
        }
        let mut rest = module;
        loop {
            if let Some(found) = self.dotted.get(rest) {
                return Some(found);
            }
            rest = PREFIXES.iter().find_map(|prefix| rest.strip_prefix(prefix))?;
        }
    }
}

/// The block that a canonical module belongs to.
pub(super) fn block_of(module: &str) -> Option<usize> {
    module.strip_prefix("blocks.")?.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::DType;
    use wan_core::Stored;
    use wan_core::weights::Bytes;

    #[test]
    fn names_are_taken_apart() {
        let part = |name: &str, module: &str, part| {
            assert_eq!(Key::parse(name), Key::Part(module.into(), part), "{name}");
        };
        part("diffusion_model.a.q.lora_A.weight", "diffusion_model.a.q", Part::Down);
        part("a.q.lora_B.default.weight", "a.q", Part::Up);
        part("lora_unet_a_q.alpha", "lora_unet_a_q", Part::Alpha);
        part("a.norm.diff", "a.norm", Part::Diff);
        part("a.norm.diff_b", "a.norm", Part::DiffBias);
        part("blocks.3.diff_m", "blocks.3", Part::DiffModulation);
        assert_eq!(Key::parse("a.q.dora_scale"), Key::Refused("DoRA"));
        assert_eq!(Key::parse("a.q.weight"), Key::Unknown);
    }

    #[test]
    fn every_naming_of_a_module_leads_to_it() {
        let names = [
            "blocks.0.cross_attn.k_img.weight",
            "blocks.0.cross_attn.k.weight",
            "blocks.0.self_attn.o.bias",
            "blocks.10.ffn.0.weight",
            "blocks.10.modulation",
            "blocks.10.norm3.weight",
            "text_embedding.0.weight",
        ];
        let empty = |name: &str| Stored::new(name, DType::F32, vec![0], Bytes::new([])).unwrap();
        let modules = Modules::new(&WeightSet::from_tensors("m", names.map(empty)));
        for (name, module) in [
            ("diffusion_model.blocks.0.cross_attn.k_img", "blocks.0.cross_attn.k_img"),
            ("transformer.blocks.0.cross_attn.k", "blocks.0.cross_attn.k"),
            ("transformer.blocks.0.attn2.add_k_proj", "blocks.0.cross_attn.k_img"),
            ("blocks.0.attn1.to_out.0", "blocks.0.self_attn.o"),
            ("base_model.model.diffusion_model.blocks.10.ffn.0", "blocks.10.ffn.0"),
            ("pipe.dit.blocks.10.ffn.net.0.proj", "blocks.10.ffn.0"),
            ("lora_unet_blocks_0_cross_attn_k_img", "blocks.0.cross_attn.k_img"),
            ("lora_unet__blocks_0_cross_attn_k", "blocks.0.cross_attn.k"),
            ("lora_unet_blocks_10_ffn_net_0_proj", "blocks.10.ffn.0"),
            ("lycoris_blocks_0_self_attn_o", "blocks.0.self_attn.o"),
            ("blocks.10", "blocks.10"),
            ("diffusion_model.blocks.10.norm2", "blocks.10.norm3"), // diffusers' number
            ("transformer.condition_embedder.text_embedder.linear_1", "text_embedding.0"),
        ] {
            assert_eq!(modules.find(name), Some(module), "{name}");
        }
        for name in ["blocks.1.ffn.0", "lora_unet_blocks_0_cross_attn", "lora_te_blocks_0_cross_attn_k", ""] {
            assert_eq!(modules.find(name), None, "{name}");
        }
    }
}
