//! ComfyUI's own nodes for images and videos (`nodes.py`, `comfy_extras/nodes_images.py`, `nodes_video.py`).

use super::kinds::{NodeClass, Place, boolean, choice, float, image, int, link, output, text};

const IMAGE: Place = Place { category: "image", python_module: "nodes" };
const UPSCALING: Place = Place { category: "image/upscaling", python_module: "nodes" };
const ANIMATION: Place = Place { category: "image/animation", python_module: "comfy_extras.nodes_images" };
const VIDEO: Place = Place { category: "image/video", python_module: "comfy_extras.nodes_video" };
const HIDDEN: &[(&str, &str)] = &[("prompt", "PROMPT"), ("extra_pnginfo", "EXTRA_PNGINFO")];

pub(super) const NODES: &[NodeClass] = &[
    NodeClass::new("LoadImage", "Load Image", IMAGE)
        .inputs(&[image("image").tip("a file of the input folder; of an animation, its first frame")])
        .outputs(&[output("IMAGE", "IMAGE"), output("MASK", "MASK")]),
    NodeClass::new("ImageScale", "Upscale Image", UPSCALING)
        .inputs(&[
            link("image", "IMAGE"),
            choice("upscale_method", &["lanczos"], "lanczos"),
            int("width", 512, 0, 16384).tip("0 keeps the aspect ratio"),
            int("height", 512, 0, 16384).tip("0 keeps the aspect ratio"),
            choice("crop", &["disabled", "center"], "disabled"),
        ])
        .outputs(&[output("IMAGE", "IMAGE")])
        .note("between the loaded image and the encoders; Lanczos only"),
    NodeClass::new("PreviewImage", "Preview Image", IMAGE)
        .inputs(&[link("images", "IMAGE")])
        .ends_jobs(HIDDEN)
        .note("each frame a PNG in the temporary folder"),
    NodeClass::new("SaveImage", "Save Image", IMAGE)
        .inputs(&[link("images", "IMAGE"), text("filename_prefix", "ComfyUI")])
        .outputs(&[])
        .ends_jobs(HIDDEN)
        .note("each frame a PNG"),
    NodeClass::new("CreateVideo", "Create Video", VIDEO)
        .inputs(&[
            link("images", "IMAGE"),
            float("fps", 30.0, 1.0, 120.0),
            link("audio", "AUDIO").optional().refused("videos have no sound"),
        ])
        .outputs(&[output("VIDEO", "VIDEO")]),
    NodeClass::new("SaveVideo", "Save Video", VIDEO)
        .inputs(&[
            link("video", "VIDEO"),
            text("filename_prefix", "video/ComfyUI"),
            choice("format", &["auto", "mp4"], "auto"),
            choice("codec", &["auto", "h264"], "auto"),
        ])
        .ends_jobs(HIDDEN),
    NodeClass::new("SaveAnimatedWEBP", "SaveAnimatedWEBP", ANIMATION)
        .inputs(&[
            link("images", "IMAGE"),
            text("filename_prefix", "ComfyUI"),
            float("fps", 6.0, 0.01, 1000.0),
            boolean("lossless", true).ignored("the quality is the encoder's default"),
            int("quality", 80, 0, 100).ignored("the quality is the encoder's default"),
            choice("method", &["default", "fastest", "slowest"], "default").ignored("there is one speed"),
        ])
        .ends_jobs(HIDDEN),
];
