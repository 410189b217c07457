//! The namings in which people have the encoder. Canonical are the original's (Wan2.1 `wan/modules/t5.py`).

use wan_core::{Dialect, Rule, Unused};

/// Original Wan2.1 and Kijai's files; transformers' `UMT5EncoderModel` and ComfyUI's files; llama.cpp's GGUF files.
pub static DIALECTS: &[Dialect] = &[
    Dialect {
        name: "original",
        markers: &["token_embedding.weight"],
        prefixes: &[],
        rules: &[],
        unused: &[GGUF_VOCABULARY],
    },
    Dialect {
        name: "transformers",
        markers: &["shared.weight"],
        prefixes: TRANSFORMERS_PREFIXES,
        rules: TRANSFORMERS_RULES,
        unused: &[
            SPIECE_MODEL,
            GGUF_VOCABULARY,
            Unused { name: "encoder.embed_tokens.weight", why: "the same table as shared.weight" },
        ],
    },
    // Files that were saved without the duplicate keep one of the two names, and not always the same one.
    Dialect {
        name: "transformers, table under encoder.embed_tokens",
        markers: &["encoder.embed_tokens.weight"],
        prefixes: TRANSFORMERS_PREFIXES,
        rules: TRANSFORMERS_RULES,
        unused: &[SPIECE_MODEL, GGUF_VOCABULARY],
    },
    Dialect {
        name: "llama.cpp",
        markers: &["token_embd.weight", "enc.output_norm.weight"],
        prefixes: &[],
        rules: LLAMA_CPP_RULES,
        unused: &[
            GGUF_VOCABULARY,
            Unused { name: "dec.*", why: "the decoder, which Wan does not use" },
            Unused { name: "output.weight", why: "the decoder's output layer, which Wan does not use" },
        ],
    },
];

/// ComfyUI's checkpoints with several components put the encoder's names behind this.
const TRANSFORMERS_PREFIXES: &[&str] = &["text_encoders.umt5xxl.transformer."];

/// ComfyUI's way to keep the vocabulary.
const SPIECE_MODEL: Unused = Unused {
    name: "spiece_model",
    why: "the SentencePiece model as bytes, which the tokenizer reads where no tokenizer file is found",
};

/// That of GGUF files, whatever their tensors are called.
const GGUF_VOCABULARY: Unused = Unused {
    name: wan_core::weights::GGUF_VOCABULARY,
    why: "the vocabulary, which the tokenizer reads where no tokenizer file is found",
};

const TRANSFORMERS_RULES: &[Rule] = &[
    Rule { from: "shared.weight", to: &["token_embedding.weight"] },
    Rule { from: "encoder.embed_tokens.weight", to: &["token_embedding.weight"] },
    Rule { from: "encoder.final_layer_norm.weight", to: &["norm.weight"] },
    Rule { from: "encoder.block.{}.layer.0.layer_norm.weight", to: &["blocks.{}.norm1.weight"] },
    Rule {
        from: "encoder.block.{}.layer.0.SelfAttention.relative_attention_bias.weight",
        to: &["blocks.{}.pos_embedding.embedding.weight"],
    },
    Rule { from: "encoder.block.{}.layer.0.SelfAttention.*", to: &["blocks.{}.attn.*"] },
    Rule { from: "encoder.block.{}.layer.1.layer_norm.weight", to: &["blocks.{}.norm2.weight"] },
    Rule { from: "encoder.block.{}.layer.1.DenseReluDense.wi_0.*", to: &["blocks.{}.ffn.gate.0.*"] },
    Rule { from: "encoder.block.{}.layer.1.DenseReluDense.wi_1.*", to: &["blocks.{}.ffn.fc1.*"] },
    Rule { from: "encoder.block.{}.layer.1.DenseReluDense.wo.*", to: &["blocks.{}.ffn.fc2.*"] },
];

/// Source: gguf-py `constants.py` (MODEL_ARCH.T5ENCODER).
const LLAMA_CPP_RULES: &[Rule] = &[
    Rule { from: "token_embd.weight", to: &["token_embedding.weight"] },
    Rule { from: "enc.output_norm.weight", to: &["norm.weight"] },
    Rule { from: "enc.blk.{}.attn_norm.weight", to: &["blocks.{}.norm1.weight"] },
    Rule { from: "enc.blk.{}.attn_rel_b.weight", to: &["blocks.{}.pos_embedding.embedding.weight"] },
    Rule { from: "enc.blk.{}.attn_q.weight", to: &["blocks.{}.attn.q.weight"] },
    Rule { from: "enc.blk.{}.attn_k.weight", to: &["blocks.{}.attn.k.weight"] },
    Rule { from: "enc.blk.{}.attn_v.weight", to: &["blocks.{}.attn.v.weight"] },
    Rule { from: "enc.blk.{}.attn_o.weight", to: &["blocks.{}.attn.o.weight"] },
    Rule { from: "enc.blk.{}.ffn_norm.weight", to: &["blocks.{}.norm2.weight"] },
    Rule { from: "enc.blk.{}.ffn_gate.weight", to: &["blocks.{}.ffn.gate.0.weight"] },
    Rule { from: "enc.blk.{}.ffn_up.weight", to: &["blocks.{}.ffn.fc1.weight"] },
    Rule { from: "enc.blk.{}.ffn_down.weight", to: &["blocks.{}.ffn.fc2.weight"] },
];
