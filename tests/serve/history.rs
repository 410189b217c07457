//! What a finished job leaves.

use serde_json::{Value, json};
use wan_media::probe::probe;

use super::server::{Server, guide};

#[test]
fn a_finished_job_has_comfyuis_shape_and_a_playable_video() {
    let server = Server::start();
    let workflow = json!({"nodes": [], "links": [], "extra": {}});
    let extra = json!({"extra_pnginfo": {"workflow": workflow}});
    let id = server.submit_with(&guide(), json!({"client_id": "c", "extra_data": extra}));
    let entry = server.wait(&id);
    let keys: Vec<&String> = entry.as_object().expect("an object").keys().collect();
    assert_eq!(keys, ["prompt", "outputs", "status", "meta"]);
    assert_eq!((&entry["prompt"][1], &entry["prompt"][3]["client_id"]), (&json!(id), &json!("c")));
    assert_eq!(
        (&entry["status"]["status_str"], &entry["status"]["completed"]),
        (&json!("success"), &json!(true))
    );
    let messages = entry["status"]["messages"].as_array().expect("messages");
    let kinds: Vec<&Value> = messages.iter().map(|message| &message[0]).collect();
    assert_eq!(kinds, ["execution_start", "execution_cached", "execution_success"]);
    let gif = &entry["outputs"]["54"]["gifs"][0];
    assert_eq!(gif["filename"], "WanVideo2_1_00001.mp4");
    assert_eq!(gif["fullpath"], "output/WanVideo2_1_00001.mp4");
    assert_eq!(
        (&gif["subfolder"], &gif["type"], &gif["format"]),
        (&json!(""), &json!("output"), &json!("video/h264-mp4"))
    );
    assert_eq!(
        (gif["frame_rate"].to_string().as_str(), &gif["workflow"]),
        ("16.0", &json!("WanVideo2_1_00001.png"))
    );
    assert_eq!(entry["meta"]["54"]["node_id"], "54");

    let facts = probe(&server.data("output/WanVideo2_1_00001.mp4")).expect("a video");
    assert_eq!((facts.width, facts.height), (64, 64));
    let still = std::fs::read(server.data("output/WanVideo2_1_00001.png")).expect("a picture");
    let still = String::from_utf8_lossy(&still);
    assert!(still.contains("CreationTime") && still.contains("WanVideoSampler"), "texts in the PNG");
    let video = std::fs::read(server.data("output/WanVideo2_1_00001.mp4")).expect("a video");
    assert!(String::from_utf8_lossy(&video).contains("WanVideoSampler"), "the graph is in the MP4");

    let second = server.wait(&server.submit(&guide()));
    assert_eq!(second["outputs"]["54"]["gifs"][0]["filename"], "WanVideo2_1_00002.mp4");
}

#[test]
fn the_history_is_paged_and_can_be_emptied() {
    let server = Server::start();
    assert_eq!(server.get("/history/unknown").json(), json!({}));
    let ids: Vec<String> = (0..3).map(|_| server.submit(&guide())).collect();
    ids.iter().for_each(|id| drop(server.wait(id)));
    let keys = |path: &str| -> Vec<String> {
        server.get(path).json().as_object().expect("entries").keys().cloned().collect()
    };
    assert_eq!(keys("/history"), ids);
    assert_eq!(keys("/history?max_items=2"), ids[1..]);
    assert_eq!(keys("/history?max_items=1&offset=1"), ids[1..2]);
    assert_eq!(keys("/history?offset=2"), ids[2..]);
    assert_eq!(server.get("/history?max_items=x").status, 400);
    assert_eq!(server.post("/history", &json!({"delete": [ids[0]]})).status, 200);
    assert_eq!(keys("/history"), ids[1..]);
    assert_eq!(server.post("/history", &json!({"clear": true})).status, 200);
    assert!(keys("/history").is_empty());
    assert!(server.data("output/WanVideo2_1_00001.mp4").exists(), "files stay");
}

#[test]
fn prefixes_make_folders_and_do_not_lead_out() {
    let server = Server::start();
    let mut graph = guide();
    graph["54"]["inputs"]["filename_prefix"] = json!("vid/x");
    let entry = server.wait(&server.submit(&graph));
    assert_eq!(entry["outputs"]["54"]["gifs"][0]["subfolder"], "vid");
    assert_eq!(server.get("/view?filename=x_00001.mp4&subfolder=vid").status, 200);
    graph["54"]["inputs"]["filename_prefix"] = json!("../x");
    let refused = server.post("/prompt", &json!({"prompt": graph}));
    assert_eq!(refused.json()["node_errors"]["54"]["errors"][0]["type"], "custom_validation_failed");
}

#[test]
fn a_job_that_fails_is_in_the_history_and_the_server_goes_on() {
    let server = Server::start();
    let blocker = server.submit(&super::server::long());
    server.wait_running(&blocker);
    server.upload("gone.png", &super::server::picture(9), &[]);
    let mut graph = guide();
    graph["42"]["inputs"]["image"] = json!("gone.png");
    let id = server.submit(&graph);
    std::fs::remove_file(server.data("input/gone.png")).expect("removed");
    server.post("/interrupt", &json!({}));
    let entry = server.wait(&id);
    assert_eq!((&entry["status"]["status_str"], &entry["outputs"]), (&json!("error"), &json!({})));
    let last = entry["status"]["messages"].as_array().expect("messages").last().expect("one").clone();
    assert_eq!((&last[0], &last[1]["traceback"]), (&json!("execution_error"), &json!([])));
    let text = last[1]["exception_message"].as_str().expect("text");
    assert!(text.ends_with('\n') && !text.contains(server.outside().to_str().expect("a path")), "{text}");
    assert_eq!(server.wait(&server.submit(&guide()))["status"]["completed"], true);
}
