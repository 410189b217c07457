//! Graphs other than the guide's, run to their end.

use serde_json::{Value, json};
use wan_media::probe::probe;

use super::server::{Server, TOKEN, guide, picture};
use crate::flf2v::{graph_between_two_images, write_dit};
use crate::support::repo_path;

fn read(path: &str) -> Value {
    let text = std::fs::read_to_string(repo_path(path)).expect("the workflow");
    serde_json::from_str(&text).expect("JSON")
}

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
    let saved = read("tests/comfyui/wanvideo_480p_I2V_example_01.json");
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
    let mut graph = read("tests/comfyui/native.api.json");
    // There is no LoRA for the embedded model.
    graph["11"]["inputs"]["model"] = json!(["1", 0]);
    graph.as_object_mut().expect("nodes").remove("10");
    graph["5"]["inputs"]["image"] = json!("sample.png");
    graph["12"]["inputs"]["steps"] = json!(2);
    let size = &mut graph["9"]["inputs"];
    (size["width"], size["height"], size["length"]) = (json!(64), json!(48), json!(5));
    let video = json!({"filename": "ComfyUI_00001_.mp4", "subfolder": "video", "type": "output"});
    assert_eq!(outputs(&server, &graph), json!({"15": {"images": [video], "animated": [true]}}));
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

#[test]
fn a_graph_with_an_end_image_goes_to_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let models = folder.path().join("diffusion_models");
    std::fs::create_dir(&models).expect("made");
    write_dit(&models.join("between.safetensors"));
    let server = Server::with(&["--token", TOKEN, "--models-dir", folder.path().to_str().expect("a path")]);
    let mut graph = graph_between_two_images();
    let tiny = graph["48"]["inputs"]["model"].clone();
    graph["42"]["inputs"]["image"] = json!("sample.png");
    let mut made = |model: &Value, shade: u8| {
        graph["48"]["inputs"]["model"] = model.clone();
        let end = format!("{shade}.png");
        assert_eq!(server.upload(&end, &picture(shade), &[]).status, 200);
        graph["61"]["inputs"]["image"] = json!(end);
        server.wait(&server.submit(&graph))
    };
    let video = |entry: &Value| {
        let name =
            entry["outputs"]["54"]["gifs"][0]["filename"].as_str().unwrap_or_else(|| panic!("{entry}"));
        server.get(&format!("/view?filename={name}")).body
    };
    let between = json!("between.safetensors");
    assert!(video(&made(&between, 10)) != video(&made(&between, 240)));
    let refused = made(&tiny, 10);
    let told = refused["status"]["messages"].to_string();
    assert!(told.contains("first-and-last-frame model"), "{told}");
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
    let last = entry["status"]["messages"].as_array().expect("messages").last().expect("one");
    let (kind, told) = (&last[0], &last[1]);
    assert_eq!(
        (kind, &told["node_id"], &told["node_type"]),
        (&json!("execution_error"), &json!("52"), &json!("WanVideoSampler"))
    );
    outputs(&server, &guide());
}
