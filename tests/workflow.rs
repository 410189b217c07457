//! `wan-run generate --workflow`: ComfyUI's graphs on the command line.

use serde_json::{Value, json};

use crate::support::{Sandbox, repo_path, stderr};

fn shipped(name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(repo_path(name)).unwrap()).unwrap()
}

/// The guide's graph with an image beside it, small enough for a test.
fn sandbox(graph: &Value) -> Sandbox {
    let sandbox = Sandbox::new();
    std::fs::write(sandbox.path("w.json"), graph.to_string()).unwrap();
    sandbox.ok(&["sample", "girl.png"]);
    sandbox
}

#[test]
fn a_workflow_runs_in_both_formats_and_options_override_it() {
    let small = ["--model", "tiny", "--width", "64", "--height", "64", "--frames", "5", "--steps", "1", "-q"];
    let mut made = Vec::new();
    for name in ["workflows/wanx-21.json", "tests/comfyui/wanx-21.api.json"] {
        let sandbox = sandbox(&shipped(name));
        sandbox.ok(&[&["generate", "--workflow", "w.json"], &small[..]].concat());
        let video = sandbox.path("WanVideo2_1_00001.mp4");
        let record: Value =
            serde_json::from_str(&wan_media::read_metadata(&video).unwrap().unwrap()).unwrap();
        assert_eq!(
            (&record["seed"], &record["steps"], &record["width"]),
            (&json!(42), &json!(1), &json!(64))
        );
        assert_eq!((&record["scheduler"], &record["crf"]), (&json!("dpm++"), &json!(19)));
        made.push(std::fs::read(video).unwrap());
    }
    assert!(made[0] == made[1], "both formats make the same video");
}

/// A graph's solver and its sigmas go with the video, and with another made from its record.
#[test]
fn comfyuis_own_sampler_is_kept_in_the_video() {
    let mut graph = shipped("tests/comfyui/native.api.json");
    // There is no LoRA for the embedded model.
    graph["11"]["inputs"]["model"] = json!(["1", 0]);
    graph.as_object_mut().unwrap().remove("10");
    let sandbox = sandbox(&graph);
    let small = ["--model", "tiny", "--width", "64", "--height", "64", "--frames", "5", "--steps", "4", "-q"];
    sandbox.ok(&[&["generate", "--workflow", "w.json", "--output", "a.mp4"], &small[..]].concat());
    sandbox.ok(&["--from-video", "a.mp4", "--image", "girl.png", "--output", "b.mp4", "-q"]);
    for video in ["a.mp4", "b.mp4"] {
        let record = wan_media::read_metadata(&sandbox.path(video)).unwrap().unwrap();
        let record: Value = serde_json::from_str(&record).unwrap();
        assert_eq!(
            (&record["scheduler"], &record["shift"]),
            (&json!("uni_pc/simple"), &json!(3.0)),
            "{video}"
        );
    }
}

#[test]
fn what_is_wrong_is_told_with_the_node() {
    let guide = || shipped("tests/comfyui/wanx-21.api.json");
    let with = |node: &str, input: &str, value: Value| {
        let mut graph = guide();
        graph[node]["inputs"][input] = value;
        graph
    };
    let with_classes = |classes: &[(&str, &str)]| {
        let mut graph = guide();
        for (node, class) in classes {
            graph[node]["class_type"] = json!(class);
        }
        graph
    };
    for (graph, expected) in [
        (with("52", "steps", json!(0)), "WanVideoSampler 52: Value 0 smaller than min of 1: steps"),
        (
            with("42", "image", json!("nope.png")),
            "workflow w.json: nope.png: not found beside w.json; name it with --image",
        ),
        (
            with_classes(&[("42", "LoadImageFromUrl"), ("52", "SomeSampler"), ("60", "SomeSampler")]),
            "w.json: unsupported nodes: LoadImageFromUrl (42), SomeSampler (52, 60); docs/coming-from-comfyui.md lists",
        ),
        (with("52", "scheduler", json!("foo")), "scheduler: 'foo' not in ['unipc'"),
        (with("48", "model", json!("other.safetensors")), "expected --model NAME"),
        (json!({"a": 1}), "not a ComfyUI workflow"),
    ] {
        let sandbox = sandbox(&graph);
        let output = sandbox.run(&["generate", "--workflow", "w.json"]);
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{message}");
        assert!(message.contains("workflow w.json") && message.contains(expected), "{message}");
        assert!(!message.contains("Prompt outputs failed"), "{message}");
    }
}
