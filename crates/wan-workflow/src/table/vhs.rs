//! ComfyUI-VideoHelperSuite's and ComfyUI-KJNodes' nodes.

use super::kinds::{NodeClass, Place, boolean, choice, float, int, link, output, text};

const VHS: Place = Place {
    category: "Video Helper Suite 🎥🅥🅗🅢",
    python_module: "custom_nodes.comfyui-videohelpersuite",
};
const KJ: Place = Place { category: "KJNodes/image", python_module: "custom_nodes.comfyui-kjnodes" };

pub(super) const NODES: &[NodeClass] = &[
    NodeClass::new("VHS_VideoCombine", "Video Combine 🎥🅥🅗🅢", VHS)
        .inputs(&[
            link("images", "IMAGE,LATENT"),
            float("frame_rate", 8.0, 1.0, 1000.0),
            int("loop_count", 0, 0, 100).tip("mp4: repeats the clip this many more times; gif: the same, 0 without end; webp: plays in all, 0 without end"),
            text("filename_prefix", "AnimateDiff"),
            choice("format", &["image/gif", "image/webp", "video/h264-mp4"], "video/h264-mp4"),
            boolean("pingpong", false).tip("forwards, then backwards"),
            boolean("save_output", true).tip("off: into the temporary folder"),
            link("audio", "AUDIO").optional().refused("videos have no sound"),
            link("meta_batch", "VHS_BatchManager").optional().refused("a video is made at once, not in batches"),
            link("vae", "VAE").optional().refused("decode the latents with a decoder node"),
            choice("pix_fmt", &["yuv420p", "yuv420p10le"], "yuv420p").undeclared(),
            int("crf", 19, 0, 100).undeclared().tip("quality of H.264: 0 is without loss; more than 51 counts as 51"),
            boolean("save_metadata", true).undeclared(),
            boolean("trim_to_audio", false).undeclared().ignored("videos have no sound"),
        ])
        .outputs(&[output("VHS_FILENAMES", "Filenames")])
        .note("`loop_count`: mp4 repeats the clip this many more times, gif as well, 0 without end; webp plays it so often in all, 0 without end")
        .ends_jobs(&[("prompt", "PROMPT"), ("extra_pnginfo", "EXTRA_PNGINFO"), ("unique_id", "UNIQUE_ID")]),
    NodeClass::new("GetImageSizeAndCount", "Get Image Size & Count", KJ)
        .inputs(&[link("image", "IMAGE")])
        .outputs(&[output("IMAGE", "image"), output("INT", "width"), output("INT", "height"), output("INT", "count")])
        .note("passes the frames on and shows their number and size; the three numbers cannot be linked onwards"),
];
