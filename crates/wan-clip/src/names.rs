//! The namings in which people have the vision tower. Canonical are the original's (Wan2.1
//! `wan/modules/clip.py`), with the fused `to_qkv` split into `q`, `k` and `v`.

use wan_core::{Dialect, Rule, Unused};

/// Original Wan2.1 (with or without its text tower), Kijai's and transformers' / ComfyUI's files.
pub static DIALECTS: &[Dialect] = &[
    Dialect {
        name: "original",
        markers: &["visual.patch_embedding.weight"],
        prefixes: &[],
        rules: &[Rule {
            from: "visual.transformer.{}.attn.to_qkv.*",
            to: &[
                "visual.transformer.{}.attn.q.*",
                "visual.transformer.{}.attn.k.*",
                "visual.transformer.{}.attn.v.*",
            ],
        }],
        unused: &[
            Unused { name: "visual.post_norm.*", why: "follows the last block, which is not run" },
            Unused { name: "visual.head", why: "projects the class token into the space shared with text" },
            Unused { name: "visual.head.*", why: "the same projection, as some variants store it" },
            Unused { name: "log_scale", why: "scales image-text similarities" },
            Unused { name: "textual.*", why: "the text tower" },
        ],
    },
    Dialect {
        name: "transformers",
        markers: &["embeddings.patch_embedding.weight"],
        prefixes: &["vision_model."],
        rules: &[
            Rule { from: "embeddings.patch_embedding.weight", to: &["visual.patch_embedding.weight"] },
            Rule { from: "embeddings.class_embedding", to: &["visual.cls_embedding"] },
            Rule { from: "embeddings.position_embedding.weight", to: &["visual.pos_embedding"] },
            Rule { from: "pre_layrnorm.*", to: &["visual.pre_norm.*"] }, // spelt so in transformers
            Rule { from: "encoder.layers.{}.layer_norm1.*", to: &["visual.transformer.{}.norm1.*"] },
            Rule { from: "encoder.layers.{}.layer_norm2.*", to: &["visual.transformer.{}.norm2.*"] },
            Rule { from: "encoder.layers.{}.self_attn.q_proj.*", to: &["visual.transformer.{}.attn.q.*"] },
            Rule { from: "encoder.layers.{}.self_attn.k_proj.*", to: &["visual.transformer.{}.attn.k.*"] },
            Rule { from: "encoder.layers.{}.self_attn.v_proj.*", to: &["visual.transformer.{}.attn.v.*"] },
            Rule {
                from: "encoder.layers.{}.self_attn.out_proj.*",
                to: &["visual.transformer.{}.attn.proj.*"],
            },
            Rule { from: "encoder.layers.{}.mlp.fc1.*", to: &["visual.transformer.{}.mlp.0.*"] },
            Rule { from: "encoder.layers.{}.mlp.fc2.*", to: &["visual.transformer.{}.mlp.2.*"] },
        ],
        unused: &[
            Unused { name: "embeddings.position_ids", why: "0, 1, 2, …: rows are used in order" },
            Unused { name: "post_layernorm.*", why: "follows the last block, which is not run" },
            Unused {
                name: "visual_projection.weight",
                why: "projects the class token into the space shared with text",
            },
            Unused { name: "logit_scale", why: "scales image-text similarities" },
            Unused { name: "text_projection.weight", why: "belongs to the text tower" },
            Unused { name: "text_model.*", why: "the text tower" },
        ],
    },
];
