//! Graphs other than the guide's, run to their end.

use serde_json::{Value, json};
use wan_media::probe::probe;

use super::server::{Server, TOKEN, guide};
use crate::support::repo_path;

/// What the history says of a graph that must end well.
fn outputs(server: &Server, graph: &Value) -> Value {
    let entry = server.wait(&server.submit(graph));
    assert_eq!(entry["status"]["completed"], true, "{}", entry["status"]);
    entry["outputs"].clone()
}

/// The Wrapper's example for image-to-video: its nodes, values and links, names of files with backslashes and inputs
/// of an older version included.
#[test]
fn the_wrappers_own_example_runs_and_tells_the_size() {
    let server = Server::start();
    let path = repo_path("tests/comfyui/wanvideo_480p_I2V_example_01.json");
    let saved: Value = serde_json::from_str(&std::fs::read_to_string(path).expect("read")).expect("JSON");
    let mut graph = server.post("/wan-run/convert", &saved).json()["prompt"].clone();
    assert_eq!(graph.as_object().expect("nodes").len(), 13, "notes are left out");
    assert_eq!(graph["27"]["inputs"]["denoise_strength"], 1);
    assert_eq!(graph["30"]["inputs"]["images"], json!(["38", 0]));
    graph["18"]["inputs"]["image"] = json!("sample.png");
    graph["27"]["inputs"]["steps"] = json!(1);
    let size = &mut graph["17"]["inputs"];
    (size["generation_width"], size["generation_height"], size["num_frames"]) =
        (json!(64), json!(64), json!(5));
    let outputs = outputs(&server, &graph);
    assert_eq!(outputs["38"], json!({"text": ["5x64x64"]}));
    assert_eq!(outputs["30"]["gifs"][0]["filename"], "WanVideo2_1_00001.mp4");
}

#[test]
fn comfyuis_own_nodes_make_a_video() {
    let server = Server::start();
    let graph = json!({
        "1": {"class_type": "UNETLoader", "inputs": {
            "unet_name": "wan2.1_i2v_480p_14B_fp16.safetensors", "weight_dtype": "default"}},
        "2": {"class_type": "CLIPLoader", "inputs": {
            "clip_name": "umt5_xxl_fp8_e4m3fn_scaled.safetensors", "type": "wan"}},
        "3": {"class_type": "CLIPVisionLoader", "inputs": {"clip_name": "clip_vision_h.safetensors"}},
        "4": {"class_type": "VAELoader", "inputs": {"vae_name": "wan_2.1_vae.safetensors"}},
        "5": {"class_type": "LoadImage", "inputs": {"image": "sample.png"}},
        "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "the balloon rises", "clip": ["2", 0]}},
        "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "blurry", "clip": ["2", 0]}},
        "8": {"class_type": "CLIPVisionEncode", "inputs": {
            "clip_vision": ["3", 0], "image": ["5", 0], "crop": "none"}},
        "9": {"class_type": "WanImageToVideo", "inputs": {
            "positive": ["6", 0], "negative": ["7", 0], "vae": ["4", 0], "width": 64, "height": 48, "length": 5,
            "batch_size": 1, "clip_vision_output": ["8", 0], "start_image": ["5", 0]}},
        "10": {"class_type": "ModelSamplingSD3", "inputs": {"model": ["1", 0], "shift": 8}},
        "11": {"class_type": "KSampler", "inputs": {
            "model": ["10", 0], "seed": u64::MAX, "steps": 2, "cfg": 6, "sampler_name": "uni_pc",
            "scheduler": "simple", "positive": ["9", 0], "negative": ["9", 1], "latent_image": ["9", 2],
            "denoise": 1}},
        "12": {"class_type": "VAEDecode", "inputs": {"samples": ["11", 0], "vae": ["4", 0]}},
        "13": {"class_type": "CreateVideo", "inputs": {"images": ["12", 0], "fps": 16}},
        "14": {"class_type": "SaveVideo", "inputs": {
            "video": ["13", 0], "filename_prefix": "video/ComfyUI", "format": "auto", "codec": "auto"}},
    });
    let video = json!({"filename": "ComfyUI_00001_.mp4", "subfolder": "video", "type": "output"});
    assert_eq!(outputs(&server, &graph), json!({"14": {"images": [video], "animated": [true]}}));
    let facts = probe(&server.data("output/video/ComfyUI_00001_.mp4")).expect("a video");
    assert_eq!((facts.width, facts.height, facts.frames, facts.fps), (64, 48, 5, (16, 1)));
    let entry = server.get("/history?max_items=1").text();
    assert!(entry.contains("18446744073709551615"), "seeds of 64 bits are kept exactly");
}

#[test]
fn the_wrappers_newer_encoders_make_a_video() {
    let server = Server::start();
    let mut graph = guide();
    graph["50"] = json!({"class_type": "WanVideoImageToVideoEncode", "inputs": {
        "vae": ["43", 0], "width": 80, "height": 64, "num_frames": 5, "noise_aug_strength": 0,
        "start_latent_strength": 1, "end_latent_strength": 1, "force_offload": true, "clip_embeds": ["60", 0],
        "start_image": ["42", 0]}});
    graph["60"] = json!({"class_type": "WanVideoClipVisionEncode", "inputs": {
        "clip_vision": ["44", 0], "image_1": ["42", 0], "strength_1": 1, "strength_2": 1, "crop": "center",
        "combine_embeds": "average", "force_offload": true}});
    outputs(&server, &graph);
    let facts = probe(&server.data("output/WanVideo2_1_00001.mp4")).expect("a video");
    assert_eq!((facts.width, facts.height), (80, 64));
}

#[test]
fn one_run_is_saved_in_every_format() {
    let server = Server::start();
    let mut graph = guide();
    graph["55"] = graph["54"].clone();
    graph["55"]["inputs"]["format"] = json!("image/gif");
    graph["56"] = graph["54"].clone();
    graph["56"]["inputs"]["format"] = json!("image/webp");
    graph["57"] = graph["54"].clone();
    graph["57"]["inputs"]["save_output"] = json!(false);
    graph["58"] =
        json!({"class_type": "SaveImage", "inputs": {"images": ["53", 0], "filename_prefix": "frame"}});
    graph["59"] = json!({"class_type": "PreviewImage", "inputs": {"images": ["53", 0]}});
    let made = outputs(&server, &graph);
    for (node, mime) in [("54", "video/mp4"), ("55", "image/gif"), ("56", "image/webp"), ("57", "video/mp4")]
    {
        let told = &made[node]["gifs"][0];
        let name = told["filename"].as_str().unwrap_or_else(|| panic!("{node} in {made}"));
        let seen =
            server.get(&format!("/view?filename={name}&type={}", told["type"].as_str().expect("text")));
        assert_eq!((seen.status, seen.header("content-type")), (200, Some(mime)), "{name}");
    }
    assert_eq!(
        (&made["57"]["gifs"][0]["type"], &made["54"]["gifs"][0]["type"]),
        (&json!("temp"), &json!("output"))
    );
    for (node, kind) in [("58", "output"), ("59", "temp")] {
        let images = made[node]["images"].as_array().expect("images");
        assert!(images.len() == 5 && images.iter().all(|image| image["type"] == kind), "{images:?}");
    }
    assert_eq!(made["58"]["images"][0]["filename"], "frame_00001_.png");
}

/// A transformer under the guide's name whose weights are no numbers: the sampler fails.
fn broken_models() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let mut weights = std::fs::read(repo_path("models/tiny/dit.safetensors")).expect("weights");
    let header = 8 + u64::from_le_bytes(weights[..8].try_into().expect("eight bytes")) as usize;
    weights[header..].fill(0xff);
    let models = folder.path().join("diffusion_models");
    std::fs::create_dir(&models).expect("made");
    std::fs::write(models.join("broken.safetensors"), weights).expect("written");
    folder
}

#[test]
fn an_error_of_the_sampler_is_told_with_its_node() {
    let models = broken_models();
    let server = Server::with(&["--token", TOKEN, "--models-dir", models.path().to_str().expect("a path")]);
    let mut graph = guide();
    graph["48"]["inputs"]["model"] = json!("broken.safetensors");
    let entry = server.wait(&server.submit(&graph));
    assert_eq!((&entry["status"]["status_str"], &entry["outputs"]), (&json!("error"), &json!({})));
    let (kind, told) = {
        let last = entry["status"]["messages"].as_array().expect("messages").last().expect("one").clone();
        (last[0].clone(), last[1].clone())
    };
    assert_eq!(
        (&kind, &told["node_id"], &told["node_type"]),
        (&json!("execution_error"), &json!("52"), &json!("WanVideoSampler"))
    );
    outputs(&server, &guide());
}
