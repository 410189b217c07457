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

#[test]
fn lines_of_a_batch_name_videos_of_other_formats_than_the_workflow() {
    let sandbox = sandbox(&shipped("tests/comfyui/wanx-21.api.json"));
    std::fs::write(sandbox.path("jobs.jsonl"), "{\"output\": \"a.gif\"}\n{\"seed\": 2}\n").unwrap();
    let small = ["--model", "tiny", "--width", "64", "--height", "64", "--frames", "5", "--steps", "1", "-q"];
    sandbox.ok(&[&["generate", "--workflow", "w.json", "--batch", "jobs.jsonl"], &small[..]].concat());
    for video in ["a.gif", "WanVideo2_1_00001.mp4"] {
        assert!(sandbox.path(video).is_file(), "{video}: {:?}", sandbox.names());
    }
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

const SMALL: [&str; 12] = [
    "generate",
    "--workflow",
    "w.json",
    "--model",
    "tiny",
    "--width",
    "64",
    "--height",
    "64",
    "--frames",
    "5",
    "-q",
];

/// The guide's graph with a preview before its video and two more outputs.
fn many_outputs() -> Value {
    let mut graph = shipped("tests/comfyui/wanx-21.api.json");
    graph["10"] = json!({"class_type": "PreviewImage", "inputs": {"images": ["53", 0]}});
    graph["55"] = graph["54"].clone();
    graph["55"]["inputs"]["format"] = json!("image/gif");
    graph["55"]["inputs"]["frame_rate"] = json!(8);
    graph["56"] = json!({"class_type": "SaveAnimatedWEBP", "inputs":
        {"images": ["53", 0], "filename_prefix": "clips/x_%width%x%height%", "fps": 4.0, "lossless": true, "quality": 80,
         "method": "default"}});
    graph
}

const ALL: [&str; 3] = ["WanVideo2_1_00001.gif", "WanVideo2_1_00001.mp4", "x_64x64_00001.webp"];

#[test]
fn all_outputs_are_written_and_previews_are_not() {
    let sandbox = sandbox(&many_outputs());
    let output = sandbox.ok(&[&SMALL[..11], &["--steps", "1"]].concat());
    let mut made: Vec<String> = crate::support::stdout(&output).lines().map(str::to_owned).collect();
    made.sort();
    assert_eq!(made, ALL);
    assert_eq!(sandbox.names(), [&ALL[..2], &["girl.png", "w.json"], &ALL[2..]].concat());
    let text = stderr(&output);
    assert!(text.contains("left out of the workflow, as previews are not kept: PreviewImage 10"), "{text}");
    let speed = |name: &str| {
        let record = wan_media::read_metadata(&sandbox.path(name)).unwrap().unwrap();
        serde_json::from_str::<Value>(&record).unwrap()["fps"].clone()
    };
    assert_eq!(ALL.map(speed), ["8", "16", "4"]);

    // A name is that of one video.
    let output = sandbox.ok(&[&SMALL[..11], &["--steps", "1", "--output", "one.mp4"]].concat());
    let text = stderr(&output);
    assert!(text.contains("mean one video: VHS_VideoCombine 55, SaveAnimatedWEBP 56"), "{text}");
    assert_eq!(crate::support::stdout(&output), "one.mp4\n");
    // The variable says which model it is only where nothing else does.
    let args = ["generate", "--workflow", "w.json"];
    let output = sandbox.command().args(args).env("WAN_RUN_MODEL", "tiny").output().unwrap();
    assert!(stderr(&output).contains("wan2.1-i2v-14b-480p-fp8"), "{}", stderr(&output));
}

#[test]
fn a_workflow_that_was_stopped_writes_all_its_outputs() {
    let sandbox = sandbox(&many_outputs());
    let args: Vec<String> = SMALL[..11].iter().chain(&["--steps", "300"]).map(ToString::to_string).collect();
    let last = crate::batch::interrupted(&sandbox, &args, "step 2 of 300", || {});
    let (_, command) = last.split_once("go on with ").unwrap_or_else(|| panic!("{last}"));
    sandbox.shell(command);
    let names = sandbox.names();
    assert!(ALL.iter().all(|name| names.contains(&(*name).to_owned())), "{names:?}");
}

#[test]
fn a_workflow_with_nothing_but_a_preview_writes_that() {
    let mut graph = many_outputs();
    for output in ["54", "55", "56"] {
        graph.as_object_mut().unwrap().remove(output);
    }
    let sandbox = sandbox(&graph);
    sandbox.ok(&[&SMALL[..], &["--steps", "1"]].concat());
    assert_eq!(sandbox.names(), ["ComfyUI_temp_00001", "girl.png", "w.json"]);
}

/// The guide's graph with the wrapper's newer encoders: node 50 for the video, node 60 for the image encoder.
fn newer_encoders() -> Value {
    let mut graph = shipped("tests/comfyui/wanx-21.api.json");
    graph["50"] = json!({"class_type": "WanVideoImageToVideoEncode", "inputs": {
        "vae": ["43", 0], "width": 96, "height": 64, "num_frames": 9, "noise_aug_strength": 0,
        "start_latent_strength": 1, "end_latent_strength": 1, "force_offload": true, "clip_embeds": ["60", 0],
        "start_image": ["42", 0]}});
    graph["60"] = json!({"class_type": "WanVideoClipVisionEncode", "inputs": {
        "clip_vision": ["44", 0], "image_1": ["42", 0], "strength_1": 1, "strength_2": 1, "crop": "center",
        "combine_embeds": "average", "force_offload": true}});
    graph["70"] = json!({"class_type": "ImageScale", "inputs": {
        "image": ["42", 0], "upscale_method": "lanczos", "width": 96, "height": 64, "crop": "center"}});
    graph["50"]["inputs"]["start_image"] = json!(["70", 0]);
    graph["52"]["inputs"]["steps"] = json!(1);
    graph
}

/// The options that a graph's nodes have and the command line has not.
#[test]
fn every_value_of_the_encoders_changes_the_video() {
    let sandbox = Sandbox::new();
    sandbox.ok(&["sample", "girl.png"]);
    let made = |name: &str, changes: &[(&str, &str, Value)]| {
        let mut graph = newer_encoders();
        for (node, input, value) in changes {
            graph[*node]["inputs"][*input] = value.clone();
        }
        std::fs::write(sandbox.path("w.json"), graph.to_string()).unwrap();
        let file = format!("{name}.rgb");
        let output = sandbox.run(&["generate", "--workflow", "w.json", "--model", "tiny", "-o", &file]);
        assert!(output.status.success(), "{name}: {}", stderr(&output));
        (std::fs::read(sandbox.path(&file)).unwrap(), stderr(&output))
    };
    let (base, _) = made("base", &[]);
    let text = "49";
    let prompt = |text_of: &str| (text, "positive_prompt", json!(text_of));
    assert!(base == made("again", &[]).0);
    let circle = made("circle", &[prompt("a red circle")]).0;
    for (name, changes) in [
        ("start", vec![("50", "start_latent_strength", json!(0.2))]),
        ("end", vec![("50", "end_latent_strength", json!(0.2))]),
        ("scaled", vec![("60", "image_1", json!(["70", 0]))]),
        ("stretched", vec![("60", "image_1", json!(["70", 0])), ("60", "crop", json!("disabled"))]),
    ] {
        assert!(base != made(name, &changes).0, "{name}");
    }
    assert!(
        made("scaled2", &[("60", "image_1", json!(["70", 0]))]).0
            != made("stretched2", &[("60", "image_1", json!(["70", 0])), ("60", "crop", json!("disabled"))])
                .0
    );
    assert!(circle != made("weighted", &[prompt("a (red:1.5) circle")]).0);
    assert!(circle == made("unweighted", &[prompt("a (red:1.0) circle")]).0);
    let (first, said) = made("bar", &[prompt("a red circle | a blue square")]);
    assert!(first == circle && said.contains("only the first is used"), "{said}");
}

#[test]
fn comfyuis_own_prompts_are_taken_as_they_are() {
    let sandbox = Sandbox::new();
    sandbox.ok(&["sample", "girl.png"]);
    let made = |text: &str| {
        let mut graph = shipped("tests/comfyui/native.api.json");
        graph["6"]["inputs"]["text"] = json!(text);
        for (input, value) in [("width", 64), ("height", 32), ("length", 5)] {
            graph["9"]["inputs"][input] = json!(value);
        }
        graph["11"]["inputs"]["model"] = json!(["1", 0]);
        graph["12"]["inputs"]["steps"] = json!(1);
        graph["12"]["inputs"]["sampler_name"] = json!("euler");
        std::fs::write(sandbox.path("w.json"), graph.to_string()).unwrap();
        let args = ["generate", "--workflow", "w.json", "--model", "tiny", "-o", "v.rgb", "--overwrite"];
        let output = sandbox.run(&args);
        assert!(output.status.success(), "{}", stderr(&output));
        (std::fs::read(sandbox.path("v.rgb")).unwrap(), stderr(&output))
    };
    let (circle, _) = made("a red circle");
    let (both, said) = made("a red circle | a (blue:1.5) square");
    assert!(circle != both && !said.contains("only the first is used"), "{said}");
    assert!(said.contains("weights such as `(text:1.3)` are read as plain text"), "{said}");
}

#[test]
fn a_webp_plays_as_often_as_video_combine_says() {
    let mut graph = newer_encoders();
    graph["54"]["inputs"]["format"] = json!("image/webp");
    graph["54"]["inputs"]["loop_count"] = json!(1);
    let sandbox = sandbox(&graph);
    let plays = |args: &[&str], file: &str| {
        let base = ["generate", "--workflow", "w.json", "--model", "tiny", "-q", "-o", file];
        sandbox.ok(&[&base[..], args].concat());
        let bytes = std::fs::read(sandbox.path(file)).unwrap();
        let at = bytes.windows(4).position(|window| window == b"ANIM").unwrap();
        u16::from_le_bytes([bytes[at + 12], bytes[at + 13]])
    };
    assert_eq!(plays(&[], "a.webp"), 1);
    assert_eq!(plays(&["--loop-count", "1"], "b.webp"), 2, "an option counts repetitions");
}

#[test]
fn published_names_of_transformers_belong_to_a_model() {
    for (file, model) in [
        ("Wan2_1-I2V-14B-480P_fp8_e4m3fn", "wan2.1-i2v-14b-480p-fp8"),
        ("wan2.1_i2v_480p_14B_fp8_e4m3fn", "wan2.1-i2v-14b-480p-fp8"),
        ("wan2.1_i2v_480p_14B_fp16", "wan2.1-i2v-14b-480p-bf16"),
        ("wan2.1_i2v_720p_14B_fp16", "wan2.1-i2v-14b-720p-bf16"),
        ("Wan2_1-I2V-14B-480p_fp8_e4m3fn_scaled_KJ", "wan2.1-i2v-14b-480p-fp8-scaled"),
        ("wan2.1_t2v_14B_fp16", "wan2.1-t2v-14b-bf16"),
        ("wan2.1_t2v_14B_fp8_e4m3fn", "wan2.1-t2v-14b-fp8-scaled"),
        ("wanvideo\\Wan2_1-T2V-14B_fp8_e4m3fn", "wan2.1-t2v-14b-fp8-scaled"),
        ("wan2.1_t2v_1.3B_bf16", "wan2.1-t2v-1.3b"),
        ("Wan2_1-T2V-1_3B_fp32", "wan2.1-t2v-1.3b"),
        ("Wan2_1-T2V-1_3B_bf16", "wan2.1-t2v-1.3b"),
    ] {
        let mut graph = shipped("tests/comfyui/wanx-21.api.json");
        graph["48"]["inputs"]["model"] = json!(format!("{file}.safetensors"));
        if model.contains("t2v") {
            graph["50"] = json!({"class_type": "WanVideoEmptyEmbeds", "inputs": {
                "width": 64, "height": 64, "num_frames": 5}});
        }
        let sandbox = sandbox(&graph);
        let output = sandbox.run(&["generate", "--workflow", "w.json"]);
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{file}: {message}");
        assert!(message.contains(&format!("`wan-run models pull {model}`")), "{file}: {message}");
    }
}
