//! The namings in which people have DiT weights on disk, translated to the original Wan names.

use wan_core::{Dialect, Rule, Unused, WeightSet};

/// Namings of a Wan2.1 DiT: the original one (also ComfyUI's and Kijai's, which may put a prefix before every
/// name) and that of diffusers.
pub const DIALECTS: &[Dialect] = &[ORIGINAL, DIFFUSERS];

/// Prefixes that whole pipelines in one file put before a DiT's names: ComfyUI's and diffusers'.
const PREFIXES: &[&str] = &["model.diffusion_model.", "diffusion_model.", "model.", "transformer."];

const ORIGINAL: Dialect =
    Dialect { name: "original", markers: &["head.modulation"], prefixes: PREFIXES, rules: &[], unused: &[] };

/// Source: diffusers `loaders/single_file_utils.py`, `convert_wan_transformer_to_diffusers`, read backwards.
const DIFFUSERS: Dialect = Dialect {
    name: "diffusers",
    markers: &["condition_embedder.time_proj.weight"],
    prefixes: PREFIXES,
    rules: &[
        rule("condition_embedder.text_embedder.linear_1.{}", &["text_embedding.0.{}"]),
        rule("condition_embedder.text_embedder.linear_2.{}", &["text_embedding.2.{}"]),
        rule("condition_embedder.time_embedder.linear_1.{}", &["time_embedding.0.{}"]),
        rule("condition_embedder.time_embedder.linear_2.{}", &["time_embedding.2.{}"]),
        rule("condition_embedder.time_proj.{}", &["time_projection.1.{}"]),
        rule("condition_embedder.image_embedder.norm1.{}", &["img_emb.proj.0.{}"]),
        rule("condition_embedder.image_embedder.ff.net.0.proj.{}", &["img_emb.proj.1.{}"]),
        rule("condition_embedder.image_embedder.ff.net.2.{}", &["img_emb.proj.3.{}"]),
        rule("condition_embedder.image_embedder.norm2.{}", &["img_emb.proj.4.{}"]),
        rule("condition_embedder.image_embedder.pos_embed", &["img_emb.emb_pos"]),
        rule("blocks.{}.scale_shift_table", &["blocks.{}.modulation"]),
        rule("blocks.{}.attn1.to_q.{}", &["blocks.{}.self_attn.q.{}"]),
        rule("blocks.{}.attn1.to_k.{}", &["blocks.{}.self_attn.k.{}"]),
        rule("blocks.{}.attn1.to_v.{}", &["blocks.{}.self_attn.v.{}"]),
        rule("blocks.{}.attn1.to_out.0.{}", &["blocks.{}.self_attn.o.{}"]),
        rule("blocks.{}.attn1.norm_q.{}", &["blocks.{}.self_attn.norm_q.{}"]),
        rule("blocks.{}.attn1.norm_k.{}", &["blocks.{}.self_attn.norm_k.{}"]),
        rule("blocks.{}.attn2.to_q.{}", &["blocks.{}.cross_attn.q.{}"]),
        rule("blocks.{}.attn2.to_k.{}", &["blocks.{}.cross_attn.k.{}"]),
        rule("blocks.{}.attn2.to_v.{}", &["blocks.{}.cross_attn.v.{}"]),
        rule("blocks.{}.attn2.to_out.0.{}", &["blocks.{}.cross_attn.o.{}"]),
        rule("blocks.{}.attn2.norm_q.{}", &["blocks.{}.cross_attn.norm_q.{}"]),
        rule("blocks.{}.attn2.norm_k.{}", &["blocks.{}.cross_attn.norm_k.{}"]),
        rule("blocks.{}.attn2.add_k_proj.{}", &["blocks.{}.cross_attn.k_img.{}"]),
        rule("blocks.{}.attn2.add_v_proj.{}", &["blocks.{}.cross_attn.v_img.{}"]),
        rule("blocks.{}.attn2.norm_added_k.{}", &["blocks.{}.cross_attn.norm_k_img.{}"]),
        // diffusers numbers a block's norms in order of use, the original in order of definition.
        rule("blocks.{}.norm2.{}", &["blocks.{}.norm3.{}"]),
        rule("blocks.{}.ffn.net.0.proj.{}", &["blocks.{}.ffn.0.{}"]),
        rule("blocks.{}.ffn.net.2.{}", &["blocks.{}.ffn.2.{}"]),
        rule("scale_shift_table", &["head.modulation"]),
        rule("proj_out.{}", &["head.head.{}"]),
    ],
    unused: &[Unused {
        name: "blocks.{}.attn2.norm_added_q.weight",
        why: "a generic attention class carries it; Wan normalises the one query with norm_q only",
    }],
};

const fn rule(from: &'static str, to: &'static [&'static str]) -> Rule {
    Rule { from, to }
}

/// The set under original names.
///
/// Errors: `WeightsError::UnknownNaming`.
pub(crate) fn canonical(weights: &WeightSet) -> wan_core::Result<WeightSet> {
    Ok(weights.canonical("Wan2.1 DiT", DIALECTS)?.0)
}
