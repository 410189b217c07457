//! ComfyUI's own nodes for Wan (`nodes.py`, `comfy_extras/nodes_wan.py`, `nodes_model_advanced.py`).

use super::kinds::{ModelFolder, NodeClass, Place, choice, float, int, link, model, output, prompt, seed};
use super::wrapper::PRODUCTS;

const LOADERS: Place = Place { category: "loaders", python_module: "nodes" };
const ADVANCED: Place = Place { category: "advanced/loaders", python_module: "nodes" };
const CONDITIONING: Place = Place { category: "conditioning", python_module: "nodes" };
const SAMPLING: Place = Place { category: "sampling", python_module: "nodes" };
const LATENT: Place = Place { category: "latent", python_module: "nodes" };
const EMPTY: Place = Place { category: "latent/video", python_module: "comfy_extras.nodes_hunyuan" };
const WAN: Place = Place { category: "conditioning/video_models", python_module: "comfy_extras.nodes_wan" };
const MODEL: Place = Place { category: "advanced/model", python_module: "comfy_extras.nodes_model_advanced" };

/// In the order of `comfy/samplers.py`, SCHEDULER_HANDLERS.
const SCHEDULERS: &[&str] = &[
    "simple",
    "sgm_uniform",
    "karras",
    "exponential",
    "ddim_uniform",
    "beta",
    "normal",
    "linear_quadratic",
    "kl_optimal",
];

const BATCH: &str = "one video is made at a time; queue the prompt again for another";

pub(super) const NODES: &[NodeClass] = &[
    NodeClass::new("UNETLoader", "Load Diffusion Model", ADVANCED)
        .inputs(&[
            model("unet_name", &[ModelFolder::DiffusionModels]),
            choice("weight_dtype", &["default", "fp8_e4m3fn", "fp8_e4m3fn_fast", "fp8_e5m2"], "default")
                .tip(PRODUCTS),
        ])
        .outputs(&[output("MODEL", "MODEL")]),
    NodeClass::new("CLIPLoader", "Load CLIP", ADVANCED)
        .inputs(&[
            model("clip_name", &[ModelFolder::TextEncoders]),
            choice("type", &["wan"], "wan"),
            choice("device", &["default", "cpu"], "default").optional().ignored("the engine runs on one device"),
        ])
        .outputs(&[output("CLIP", "CLIP")]),
    NodeClass::new("CLIPVisionLoader", "Load CLIP Vision", LOADERS)
        .inputs(&[model("clip_name", &[ModelFolder::ClipVision, ModelFolder::TextEncoders])])
        .outputs(&[output("CLIP_VISION", "CLIP_VISION")]),
    NodeClass::new("VAELoader", "Load VAE", LOADERS)
        .inputs(&[model("vae_name", &[ModelFolder::Vae])])
        .outputs(&[output("VAE", "VAE")]),
    NodeClass::new("LoraLoaderModelOnly", "LoraLoaderModelOnly", LOADERS)
        .inputs(&[
            link("model", "MODEL"),
            model("lora_name", &[ModelFolder::Loras]),
            float("strength_model", 1.0, -100.0, 100.0),
        ])
        .outputs(&[output("MODEL", "MODEL")]),
    NodeClass::new("ModelSamplingSD3", "ModelSamplingSD3", MODEL)
        .inputs(&[link("model", "MODEL"), float("shift", 3.0, 0.0, 100.0)])
        .outputs(&[output("MODEL", "MODEL")])
        .note("without it the shift is 8, ComfyUI's for Wan"),
    NodeClass::new("CLIPTextEncode", "CLIP Text Encode (Prompt)", CONDITIONING)
        .inputs(&[prompt("text"), link("clip", "CLIP")])
        .outputs(&[output("CONDITIONING", "CONDITIONING")])
        .note("weights such as `(word:1.2)`, which ComfyUI applies, are read as plain text"),
    NodeClass::new("CLIPVisionEncode", "CLIP Vision Encode", CONDITIONING)
        .inputs(&[
            link("clip_vision", "CLIP_VISION"),
            link("image", "IMAGE"),
            choice("crop", &["center", "none"], "center")
                .tip("none squeezes the whole image into the encoder's square"),
        ])
        .outputs(&[output("CLIP_VISION_OUTPUT", "CLIP_VISION_OUTPUT")]),
    NodeClass::new("WanImageToVideo", "WanImageToVideo", WAN)
        .inputs(&[
            link("positive", "CONDITIONING"),
            link("negative", "CONDITIONING"),
            link("vae", "VAE"),
            int("width", 832, 16, 16384).steps_of(16),
            int("height", 480, 16, 16384).steps_of(16),
            int("length", 81, 1, 10000).steps_of(4),
            int("batch_size", 1, 1, 4096).refused(BATCH),
            link("clip_vision_output", "CLIP_VISION_OUTPUT").optional(),
            link("start_image", "IMAGE").optional(),
        ])
        .outputs(&[
            output("CONDITIONING", "positive"),
            output("CONDITIONING", "negative"),
            output("LATENT", "latent"),
        ])
        .note("needs both optional inputs, of the same image; for the video it is cropped to shape and scaled (Lanczos), and the image encoder sees what it is linked to"),
    NodeClass::new("WanFirstLastFrameToVideo", "WanFirstLastFrameToVideo", WAN)
        .inputs(&[
            link("positive", "CONDITIONING"),
            link("negative", "CONDITIONING"),
            link("vae", "VAE"),
            int("width", 832, 16, 16384).steps_of(16),
            int("height", 480, 16, 16384).steps_of(16),
            int("length", 81, 1, 10000).steps_of(4),
            int("batch_size", 1, 1, 4096).refused(BATCH),
            link("clip_vision_start_image", "CLIP_VISION_OUTPUT").optional(),
            link("clip_vision_end_image", "CLIP_VISION_OUTPUT").optional(),
            link("start_image", "IMAGE").optional(),
            link("end_image", "IMAGE").optional(),
        ])
        .outputs(&[
            output("CONDITIONING", "positive"),
            output("CONDITIONING", "negative"),
            output("LATENT", "latent"),
        ])
        .note("for first-and-last-frame models; needs both images, each with its `clip_vision`, as WanImageToVideo needs one"),
    NodeClass::new("EmptyHunyuanLatentVideo", "EmptyHunyuanLatentVideo", EMPTY)
        .inputs(&[
            int("width", 848, 16, 16384).steps_of(16),
            int("height", 480, 16, 16384).steps_of(16),
            int("length", 25, 1, 10000).steps_of(4),
            int("batch_size", 1, 1, 4096).refused(BATCH),
        ])
        .outputs(&[output("LATENT", "LATENT")])
        .note("for text-to-video models"),
    NodeClass::new("KSampler", "KSampler", SAMPLING)
        .inputs(&[
            link("model", "MODEL"),
            seed("seed"),
            int("steps", 20, 1, 1000),
            float("cfg", 8.0, 0.0, 100.0),
            choice("sampler_name", &["euler", "dpmpp_2m", "dpmpp_2m_sde", "lcm", "res_multistep", "uni_pc"], "euler"),
            choice("scheduler", SCHEDULERS, "simple"),
            link("positive", "CONDITIONING"),
            link("negative", "CONDITIONING"),
            link("latent_image", "LATENT"),
            float("denoise", 1.0, 0.0, 1.0).refused("videos start from noise"),
        ])
        .outputs(&[output("LATENT", "LATENT")])
        .note("`dpmpp_2m_sde` and `lcm` add noise in each step that is not ComfyUI's, which comes from a Brownian tree and from the GPU, so a seed gives another video than there; `ddim_uniform` and `beta` may take a few steps more or fewer than `steps`, as there"),
    NodeClass::new("VAEDecode", "VAE Decode", LATENT)
        .inputs(&[link("samples", "LATENT"), link("vae", "VAE")])
        .outputs(&[output("IMAGE", "IMAGE")])
        .note("in tiles where memory is short"),
    NodeClass::new("VAEDecodeTiled", "VAE Decode (Tiled)", Place { category: "_for_testing", ..LATENT })
        .inputs(&[
            link("samples", "LATENT"),
            link("vae", "VAE"),
            int("tile_size", 512, 64, 4096).steps_of(32),
            int("overlap", 64, 0, 4096).steps_of(32),
            int("temporal_size", 64, 8, 4096).steps_of(4).ignored("time is streamed; it needs no tiles"),
            int("temporal_overlap", 8, 4, 4096).steps_of(4).ignored("time is streamed; it needs no tiles"),
        ])
        .outputs(&[output("IMAGE", "IMAGE")]),
];
