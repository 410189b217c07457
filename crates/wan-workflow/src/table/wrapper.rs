//! ComfyUI-WanVideoWrapper's nodes (`nodes.py` and `nodes_model_loading.py`; definitions of 1.0.6 with later inputs).

use super::kinds::{
    Input, ModelFolder, NodeClass, Place, boolean, choice, float, int, link, model, output, prompt, seed,
};

const PLACE: Place =
    Place { category: "WanVideoWrapper", python_module: "custom_nodes.ComfyUI-WanVideoWrapper" };

const MEMORY: &str =
    "memory is managed by the engine: each component is loaded for its stage and then released";
const NO_COMPILER: &str = "there is no graph compiler; the kernels are compiled ahead of time";
const STORED: &str = "weights are used in the precision in which they are stored";
/// Of names such as `fp8_e4m3fn_fast`.
pub(super) const PRODUCTS: &str =
    "on a GPU: FP8 products for the fast kinds; weights stay as they are stored";

const DEVICES: &[&str] = &["main_device", "offload_device"];
const PRECISIONS: &[&str] = &["fp16", "fp32", "bf16"];
const QUANTIZATIONS: &[&str] = &[
    "disabled",
    "fp8_e4m3fn",
    "fp8_e4m3fn_fast",
    "fp8_e4m3fn_scaled",
    "fp8_e4m3fn_scaled_fast",
    "fp8_e5m2",
    "fp8_e5m2_fast",
    "fp8_e5m2_scaled",
    "fp8_e5m2_scaled_fast",
    "torchao_fp8dq",
    "torchao_fp8dqrow",
    "torchao_int8dq",
    "torchao_fp6",
    "torchao_int4",
    "torchao_int8",
];
/// In the order of `wanvideo/schedulers/__init__.py`, scheduler_list.
const SCHEDULERS: &[&str] = &[
    "unipc",
    "unipc/beta",
    "dpm++",
    "dpm++/beta",
    "dpm++_sde",
    "dpm++_sde/beta",
    "euler",
    "euler/beta",
    "deis",
    "lcm",
    "lcm/beta",
    "res_multistep",
    "flowmatch_distill",
];
const ATTENTIONS: &[&str] = &[
    "sdpa",
    "flash_attn_2",
    "flash_attn_3",
    "sageattn",
    "sageattn_compiled",
    "sageattn_3",
    "spargeattn",
    "spargeattn_tune",
    "flex_attention",
    "radial_sage_attention",
];

const OFFLOAD: Input = boolean("force_offload", true).ignored(MEMORY);
const LOAD_DEVICE: Input = choice("load_device", DEVICES, "offload_device").ignored(MEMORY);

/// The blocks' names: `blocks.0.` to `blocks.39.`, each an input.
macro_rules! block_inputs {
    ($($number:literal)+) => {
        &[$(boolean(concat!("blocks.", $number, "."), true)),+]
    };
}

pub(super) const NODES: &[NodeClass] = &[
    NodeClass::new("WanVideoVAELoader", "WanVideo VAE Loader", PLACE)
        .inputs(&[
            model("model_name", &[ModelFolder::Vae]),
            choice("precision", PRECISIONS, "bf16").optional().ignored(STORED),
            link("compile_args", "WANCOMPILEARGS").optional().ignored(NO_COMPILER),
        ])
        .outputs(&[output("WANVAE", "vae")]),
    NodeClass::new("LoadWanVideoClipTextEncoder", "WanVideo CLIP Vision Encoder Loader", PLACE)
        .inputs(&[
            model("model_name", &[ModelFolder::ClipVision, ModelFolder::TextEncoders]),
            choice("precision", PRECISIONS, "fp16").ignored(STORED),
            LOAD_DEVICE.optional(),
        ])
        .outputs(&[output("CLIP_VISION", "wan_clip_vision")]),
    NodeClass::new("LoadWanVideoT5TextEncoder", "WanVideo T5 Text Encoder Loader", PLACE)
        .inputs(&[
            model("model_name", &[ModelFolder::TextEncoders]),
            choice("precision", PRECISIONS, "bf16").ignored(STORED),
            LOAD_DEVICE.optional(),
            choice("quantization", &["disabled", "fp8_e4m3fn"], "disabled").optional().ignored(STORED),
        ])
        .outputs(&[output("WANTEXTENCODER", "wan_t5_model")]),
    NodeClass::new("WanVideoBlockSwap", "WanVideo BlockSwap", PLACE)
        .inputs(&[
            int("blocks_to_swap", 20, 0, 48).tip("transformer blocks that stay in main memory until needed"),
            boolean("offload_img_emb", false).ignored(MEMORY),
            boolean("offload_txt_emb", false).ignored(MEMORY),
            boolean("use_non_blocking", true).optional().ignored(MEMORY),
            int("vace_blocks_to_swap", 0, 0, 15).optional().ignored("there is no VACE model"),
            int("prefetch_blocks", 0, 0, 40).optional().ignored(MEMORY),
            boolean("block_swap_debug", false).optional().ignored(MEMORY),
        ])
        .outputs(&[output("BLOCKSWAPARGS", "block_swap_args")]),
    NodeClass::new("WanVideoVRAMManagement", "WanVideo VRAM Management", PLACE)
        .inputs(&[float("offload_percent", 1.0, 0.0, 1.0).ignored(MEMORY)])
        .outputs(&[output("VRAM_MANAGEMENTARGS", "vram_management_args")]),
    NodeClass::new("WanVideoTorchCompileSettings", "WanVideo Torch Compile Settings", PLACE)
        .inputs(&[
            choice("backend", &["inductor", "cudagraphs"], "inductor").ignored(NO_COMPILER),
            boolean("fullgraph", false).ignored(NO_COMPILER),
            choice(
                "mode",
                &["default", "max-autotune", "max-autotune-no-cudagraphs", "reduce-overhead"],
                "default",
            )
            .ignored(NO_COMPILER),
            boolean("dynamic", false).ignored(NO_COMPILER),
            int("dynamo_cache_size_limit", 64, 0, 1024).ignored(NO_COMPILER),
            boolean("compile_transformer_blocks_only", true)
                .optional()
                .alias(&["compile_transformer_blocks"])
                .ignored(NO_COMPILER),
            int("dynamo_recompile_limit", 128, 0, 1024).optional().ignored(NO_COMPILER),
        ])
        .outputs(&[output("WANCOMPILEARGS", "torch_compile_args")]),
    NodeClass::new("WanVideoModelLoader", "WanVideo Model Loader", PLACE)
        .inputs(&[
            model("model", &[ModelFolder::DiffusionModels]),
            choice("base_precision", &["fp32", "bf16", "fp16", "fp16_fast"], "bf16").ignored(STORED),
            choice("quantization", QUANTIZATIONS, "disabled").tip(PRODUCTS),
            choice("load_device", DEVICES, "main_device").ignored(MEMORY),
            choice("attention_mode", ATTENTIONS, "sdpa")
                .optional()
                .tip("on a GPU: 8-bit attention for sageattn, the fastest exact one for all others"),
            link("compile_args", "WANCOMPILEARGS").optional().ignored(NO_COMPILER),
            link("block_swap_args", "BLOCKSWAPARGS").optional(),
            link("lora", "WANVIDLORA").optional(),
            link("vram_management_args", "VRAM_MANAGEMENTARGS").optional().ignored(MEMORY),
        ])
        .outputs(&[output("WANVIDEOMODEL", "model")])
        .note("`quantization`, `attention_mode` and `blocks_to_swap` act on a GPU"),
    NodeClass::new("WanVideoLoraSelect", "WanVideo Lora Select", PLACE)
        .inputs(&[
            model("lora", &[ModelFolder::Loras]),
            float("strength", 1.0, -10.0, 10.0),
            link("prev_lora", "WANVIDLORA").optional(),
            link("blocks", "SELECTEDBLOCKS").optional(),
            boolean("low_mem_load", false).optional().ignored(MEMORY),
            boolean("merge_loras", true).optional().ignored("a LoRA is always a branch beside its matrix"),
        ])
        .outputs(&[output("WANVIDLORA", "lora")]),
    NodeClass::new("WanVideoLoraBlockEdit", "WanVideo Lora Block Edit", PLACE)
        .inputs(block_inputs!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31
            32 33 34 35 36 37 38 39))
        .outputs(&[output("SELECTEDBLOCKS", "blocks")]),
    NodeClass::new("WanVideoTextEncode", "WanVideo TextEncode", PLACE)
        .inputs(&[
            prompt("positive_prompt"),
            prompt("negative_prompt"),
            link("t5", "WANTEXTENCODER"),
            OFFLOAD.optional(),
            link("model_to_offload", "WANVIDEOMODEL").optional().ignored(MEMORY),
        ])
        .outputs(&[output("WANVIDEOTEXTEMBEDS", "text_embeds")])
        .note("`(text:1.3)` multiplies the embeddings of the whole positive prompt, as in the wrapper; of one with `|` in it \
            only the first part counts, but with context windows"),
    NodeClass::new("WanVideoImageClipEncode", "WanVideo ImageClip Encode", PLACE)
        .inputs(&[
            link("clip_vision", "CLIP_VISION").alias(&["clip"]),
            link("image", "IMAGE"),
            link("vae", "WANVAE"),
            int("generation_width", 832, 64, 2048).steps_of(8),
            int("generation_height", 480, 64, 29048).steps_of(8),
            int("num_frames", 81, 1, 10000).steps_of(4),
            OFFLOAD.optional(),
            float("noise_aug_strength", 0.0, 0.0, 10.0).optional(),
            float("latent_strength", 1.0, 0.0, 10.0).optional(),
            float("clip_embed_strength", 1.0, 0.0, 10.0).optional(),
            boolean("adjust_resolution", true).optional(),
        ])
        .outputs(&[output("WANVIDIMAGE_EMBEDS", "image_embeds")]),
    NodeClass::new("WanVideoClipVisionEncode", "WanVideo ClipVision Encode", PLACE)
        .inputs(&[
            link("clip_vision", "CLIP_VISION"),
            link("image_1", "IMAGE"),
            float("strength_1", 1.0, 0.0, 10.0),
            float("strength_2", 1.0, 0.0, 10.0).tip("of `image_2`; the same as `strength_1`"),
            choice("crop", &["center", "disabled"], "center")
                .tip("disabled squeezes the whole image into the encoder's square; only LoadWanVideoClipTextEncoder's"),
            choice("combine_embeds", &["average", "sum", "concat", "batch"], "average")
                .tip("with `image_2` `concat` or `batch`, which are the same"),
            OFFLOAD,
            link("image_2", "IMAGE").optional().tip("the end image"),
            link("negative_image", "IMAGE").optional().refused("negative image embeddings are not supported"),
            int("tiles", 0, 0, 16).optional().refused("the image encoder does not work in tiles"),
            float("ratio", 0.5, 0.0, 1.0).optional().ignored("there are no tiles"),
        ])
        .outputs(&[output("WANVIDIMAGE_CLIPEMBEDS", "image_embeds")])
        .note("`crop` acts on the encoder of `LoadWanVideoClipTextEncoder`; that of `CLIPVisionLoader` always crops, as in the wrapper"),
    NodeClass::new("WanVideoImageToVideoEncode", "WanVideo ImageToVideo Encode", PLACE)
        .inputs(&[
            link("vae", "WANVAE"),
            int("width", 832, 64, 8096).steps_of(8),
            int("height", 480, 64, 8096).steps_of(8),
            int("num_frames", 81, 1, 10000).steps_of(4),
            float("noise_aug_strength", 0.0, 0.0, 10.0),
            float("start_latent_strength", 1.0, 0.0, 10.0).tip("on the first latent frame"),
            float("end_latent_strength", 1.0, 0.0, 10.0).tip("on the last latent frame, with or without `end_image`"),
            OFFLOAD,
            link("clip_embeds", "WANVIDIMAGE_CLIPEMBEDS").optional(),
            link("start_image", "IMAGE").optional(),
            link("end_image", "IMAGE").optional().tip("for first-and-last-frame models"),
            link("control_embeds", "WANVIDIMAGE_EMBEDS").optional().refused("control models are not supported"),
            boolean("fun_or_fl2v_model", true).optional().tip("with `end_image` only true"),
            link("temporal_mask", "MASK").optional().refused("masks over time are not supported"),
            link("extra_latents", "LATENT").optional().refused("further latents are not supported"),
            boolean("tiled_vae", false).optional().ignored(MEMORY),
            link("add_cond_latents", "ADD_COND_LATENTS").optional().refused("further latents are not supported"),
        ])
        .outputs(&[output("WANVIDIMAGE_EMBEDS", "image_embeds")])
        .note("needs `start_image` and `clip_embeds` of the same image, and of the same `end_image` if there is one"),
    NodeClass::new("WanVideoEmptyEmbeds", "WanVideo Empty Embeds", PLACE)
        .inputs(&[
            int("width", 832, 64, 8096).steps_of(8),
            int("height", 480, 64, 8096).steps_of(8),
            int("num_frames", 81, 1, 10000).steps_of(4),
            link("control_embeds", "WANVIDIMAGE_EMBEDS").optional().refused("control models are not supported"),
            link("extra_latents", "LATENT").optional().refused("further latents are not supported"),
        ])
        .outputs(&[output("WANVIDIMAGE_EMBEDS", "image_embeds")])
        .note("for text-to-video models"),
    NodeClass::new("WanVideoTeaCache", "WanVideo TeaCache", PLACE)
        .inputs(&[
            float("rel_l1_thresh", 0.04, 0.0, 1.0)
                .tip("higher skips more steps, 0 none; with coefficients about ten times as high"),
            int("start_step", 6, 0, 9999).tip("this step, counted from 0, and those before it are always computed"),
            int("end_step", -1, -1, 9999).optional().tip("the last step that may be skipped; -1 is the last of all"),
            choice("cache_device", DEVICES, "offload_device").optional().ignored(MEMORY),
            boolean("use_coefficients", false)
                .optional()
                .tip("published ones: for 1.3B and 14B, and for images with 480p or 720p in the model's name"),
            choice("mode", &["e", "e0"], "e").optional().tip("compared are time embeddings, or their projections"),
        ])
        .outputs(&[output("TEACACHEARGS", "teacache_args")])
        .note("distances are those to the step before, as TeaCache publishes it"),
    NodeClass::new("WanVideoContextOptions", "WanVideo Context Options", PLACE)
        .inputs(&[
            choice("context_schedule", &["uniform_standard", "static_standard"], "uniform_standard")
                .tip("whether windows move from step to step, or stay"),
            int("context_frames", 81, 2, 1000).tip("frames of a window"),
            int("context_stride", 4, 4, 100).tip("8 and more add windows that skip frames"),
            int("context_overlap", 16, 4, 100).tip("frames that two windows have in common"),
            boolean("freenoise", true).tip("later windows begin with the first one's noise in another order"),
            boolean("verbose", false).ignored("progress is always told"),
            choice("fuse_method", &["linear"], "linear").optional(),
            link("reference_latent", "LATENT").optional().refused("further latents are not supported"),
        ])
        .outputs(&[output("WANVIDCONTEXT", "context_options")])
        .note("for text-to-video; parts of the prompt between `|` follow each other"),
    NodeClass::new("WanVideoSampler", "WanVideo Sampler", PLACE)
        .inputs(&[
            link("model", "WANVIDEOMODEL"),
            link("text_embeds", "WANVIDEOTEXTEMBEDS"),
            link("image_embeds", "WANVIDIMAGE_EMBEDS"),
            int("steps", 30, 1, 1000),
            float("cfg", 6.0, 0.0, 30.0).tip("1 leaves out the negative prompt and halves the time"),
            float("shift", 5.0, 0.0, 1000.0),
            seed("seed"),
            OFFLOAD,
            choice("scheduler", SCHEDULERS, "unipc"),
            int("riflex_freq_index", 0, 0, 1000),
            link("samples", "LATENT").optional().refused("video-to-video is not supported; videos start from noise"),
            float("denoise_strength", 1.0, 0.0, 1.0)
                .optional()
                .tip("image-to-video starts from noise: a value below 1 lowers the quality"),
            link("feta_args", "FETAARGS").optional().refused("Enhance-A-Video is not supported"),
            link("context_options", "WANVIDCONTEXT").optional(),
            link("teacache_args", "TEACACHEARGS").alias(&["cache_args"]).optional(),
            boolean("batched_cfg", false).optional().ignored("both prompts go through each block together anyway"),
            choice("rope_function", &["comfy", "default", "comfy_chunked"], "comfy")
                .optional()
                .ignored("the same function computed in another order"),
            int("start_step", 0, 0, 10000).optional().refused("a job runs all of its steps"),
            int("end_step", -1, -1, 10000).optional().refused("a job runs all of its steps"),
            boolean("add_noise_to_samples", false).optional().ignored("videos start from noise"),
        ])
        .outputs(&[output("LATENT", "samples")]),
    NodeClass::new("WanVideoDecode", "WanVideo Decode", PLACE)
        .inputs(&[
            link("vae", "WANVAE"),
            link("samples", "LATENT"),
            boolean("enable_vae_tiling", true),
            int("tile_x", 272, 64, 2048).tip("height of a tile in pixels"),
            int("tile_y", 272, 64, 2048).tip("width of a tile in pixels"),
            int("tile_stride_x", 144, 32, 2048).tip("from one tile to the one below it; at most its height"),
            int("tile_stride_y", 128, 32, 2048).tip("from one tile to the one beside it; at most its width"),
            choice("normalization", &["default", "minmax"], "default")
                .optional()
                .tip("default: [-1, 1] becomes black to white; minmax: stretched over the whole video"),
        ])
        .outputs(&[output("IMAGE", "images")]),
];
