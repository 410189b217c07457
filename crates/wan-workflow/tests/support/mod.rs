//! A catalog of fixed names, and the graphs that the tests change.

use std::path::PathBuf;

use serde_json::Value;
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
        vec!["girl.png".into(), "end.png".into()]
    }

    fn image_path(&self, name: &RootedName) -> Option<PathBuf> {
        ["girl.png", "a/girl.png", "end.png"].contains(&name.path.as_str()).then(|| PathBuf::from(&name.path))
    }

    fn model_path(&self, folder: ModelFolder, name: &str) -> Option<PathBuf> {
        (folder == ModelFolder::Loras).then(|| PathBuf::from("loras").join(name))
    }
}

pub fn guide() -> Value {
    serde_json::from_str(include_str!("../../../../tests/comfyui/wanx-21.api.json")).unwrap()
}

pub fn native() -> Value {
    serde_json::from_str(include_str!("../../../../tests/comfyui/native.api.json")).unwrap()
}

pub fn check(graph: &Value) -> Result<Validated, PromptError> {
    validate(graph, None, &Names)
}

/// `graph` with an input of a node set.
pub fn with(mut graph: Value, node: &str, input: &str, value: Value) -> Value {
    graph[node]["inputs"][input] = value;
    graph
}
