//! Loaders of ComfyUI-GGUF (`nodes.py`). What is in a file tells its format, so that they load any file, as ComfyUI's own
//! loaders here do.

use super::kinds::{ModelFolder, NodeClass, Place, boolean, choice, model, output};

const BOOTLEG: Place = Place { category: "bootleg", python_module: "custom_nodes.ComfyUI-GGUF" };

const WIDENED: &str = "weights are opened into the format of the activations";
const BESIDE: &str = "the product with a LoRA is computed beside that with the weight";

pub(super) const NODES: &[NodeClass] = &[
    NodeClass::new("UnetLoaderGGUF", "Unet Loader (GGUF)", BOOTLEG)
        .inputs(&[model("unet_name", &[ModelFolder::DiffusionModels])])
        .outputs(&[output("MODEL", "MODEL")]),
    NodeClass::new("UnetLoaderGGUFAdvanced", "Unet Loader (GGUF/Advanced)", BOOTLEG)
        .inputs(&[
            model("unet_name", &[ModelFolder::DiffusionModels]),
            choice("dequant_dtype", FORMATS, "default").ignored(WIDENED),
            choice("patch_dtype", FORMATS, "default").ignored(BESIDE),
            boolean("patch_on_device", false).ignored(BESIDE),
        ])
        .outputs(&[output("MODEL", "MODEL")]),
    NodeClass::new("CLIPLoaderGGUF", "CLIPLoader (GGUF)", BOOTLEG)
        .inputs(&[model("clip_name", &[ModelFolder::TextEncoders]), choice("type", &["wan"], "wan")])
        .outputs(&[output("CLIP", "CLIP")]),
];

const FORMATS: &[&str] = &["default", "target", "float32", "float16", "bfloat16"];
