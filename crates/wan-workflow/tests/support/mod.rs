//! A catalog of fixed names, and the graphs that the tests change.

use std::path::PathBuf;

use serde_json::{Value, json};
use wan_workflow::table::ModelFolder;
use wan_workflow::{Catalog, PromptError, RootedName, Validated, validate};

pub struct Names;

impl Catalog for Names {
    fn models(&self, folder: ModelFolder) -> Vec<String> {
        let names: &[&str] = match folder {
            ModelFolder::DiffusionModels => &["Wan2_1-I2V-14B-480P_fp8_e4m3fn.safetensors"],
            ModelFolder::Vae => &["wan2.1/Wan2_1_VAE_bf16.safetensors"],
            ModelFolder::TextEncoders => &["wan2.1/umt5-xxl-enc-bf16.safetensors"],
            ModelFolder::ClipVision => {
                &["wan2.1/open-clip-xlm-roberta-large-vit-huge-14_visual_fp16.safetensors"]
            }
            ModelFolder::Loras => &["a.safetensors", "b.safetensors"],
        };
        names.iter().map(ToString::to_string).collect()
    }

    fn input_images(&self) -> Vec<String> {
        vec!["girl.png".into()]
    }

    fn image_path(&self, name: &RootedName) -> Option<PathBuf> {
        ["girl.png", "a/girl.png"].contains(&name.path.as_str()).then(|| PathBuf::from(&name.path))
    }

    fn model_path(&self, folder: ModelFolder, name: &str) -> Option<PathBuf> {
        (folder == ModelFolder::Loras).then(|| PathBuf::from("loras").join(name))
    }
}

pub fn guide() -> Value {
    serde_json::from_str(include_str!("../../../../tests/comfyui/wanx-21.api.json")).unwrap()
}

pub fn native() -> Value {
    json!({
        "1": {"class_type": "UNETLoader", "inputs": {
            "unet_name": "Wan2_1-I2V-14B-480P_fp8_e4m3fn.safetensors", "weight_dtype": "default"}},
        "2": {"class_type": "CLIPLoader", "inputs": {"clip_name": "umt5-xxl-enc-bf16.safetensors", "type": "wan"}},
        "3": {"class_type": "CLIPVisionLoader", "inputs": {
            "clip_name": "open-clip-xlm-roberta-large-vit-huge-14_visual_fp16.safetensors"}},
        "4": {"class_type": "VAELoader", "inputs": {"vae_name": "Wan2_1_VAE_bf16.safetensors"}},
        "5": {"class_type": "LoadImage", "inputs": {"image": "girl.png"}},
        "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "good", "clip": ["2", 0]}},
        "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "bad", "clip": ["2", 0]}},
        "8": {"class_type": "CLIPVisionEncode", "inputs": {
            "clip_vision": ["3", 0], "image": ["5", 0], "crop": "none"}},
        "9": {"class_type": "WanImageToVideo", "inputs": {
            "positive": ["6", 0], "negative": ["7", 0], "vae": ["4", 0], "width": 832, "height": 480, "length": 33,
            "batch_size": 1, "clip_vision_output": ["8", 0], "start_image": ["5", 0]}},
        "10": {"class_type": "LoraLoaderModelOnly", "inputs": {
            "model": ["1", 0], "lora_name": "a.safetensors", "strength_model": 0.5}},
        "11": {"class_type": "ModelSamplingSD3", "inputs": {"model": ["10", 0], "shift": 3}},
        "12": {"class_type": "KSampler", "inputs": {
            "model": ["11", 0], "seed": 18446744073709551615u64, "steps": 20, "cfg": 6, "sampler_name": "uni_pc",
            "scheduler": "simple", "positive": ["9", 0], "negative": ["9", 1], "latent_image": ["9", 2],
            "denoise": 1}},
        "13": {"class_type": "VAEDecode", "inputs": {"samples": ["12", 0], "vae": ["4", 0]}},
        "14": {"class_type": "CreateVideo", "inputs": {"images": ["13", 0], "fps": 16}},
        "15": {"class_type": "SaveVideo", "inputs": {
            "video": ["14", 0], "filename_prefix": "video/ComfyUI", "format": "auto", "codec": "auto"}},
    })
}

pub fn check(graph: &Value) -> Result<Validated, PromptError> {
    validate(graph, None, &Names)
}

/// `graph` with an input of a node set.
pub fn with(mut graph: Value, node: &str, input: &str, value: Value) -> Value {
    graph[node]["inputs"][input] = value;
    graph
}
