//! A model between two images: the embedded one with positions for the tokens of both.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};
use wan_core::progress::{CancelToken, Silent};
use wan_core::testkit::{Golden, assert_close, distance};
use wan_media::{Alpha, RgbImage, load_image};
use wan_models::{Places, Registry};
use wan_pipeline::{Images, Job, Pipeline, Request};

use crate::support::{Sandbox, assert_fails, repo_path, sample_image, stderr, stdout, tiny_args};

/// Writes the embedded DiT with the positions of the golden file.
pub fn write_dit(path: &Path) {
    let positions = Golden::open("e2e/flf2v.io.safetensors").f32("emb_pos");
    let values: Vec<u8> = positions
        .flatten_all()
        .unwrap()
        .to_vec1::<f32>()
        .unwrap()
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    let bytes = std::fs::read(repo_path("models/tiny/dit.safetensors")).unwrap();
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let metadata: HashMap<String, String> = header.metadata().clone().unwrap();
    let whole = SafeTensors::deserialize(&bytes).unwrap();
    let own = TensorView::new(Dtype::F32, positions.dims().to_vec(), &values).unwrap();
    let views = whole.iter().chain([("img_emb.emb_pos", own)]);
    std::fs::write(path, safetensors::serialize(views, Some(metadata)).unwrap()).unwrap();
}

/// Writes `dit.safetensors` and `model.toml`, which names it.
fn write_model(sandbox: &Sandbox) {
    write_dit(&sandbox.path("dit.safetensors"));
    let text = std::fs::read_to_string(repo_path("models/tiny.toml")).unwrap();
    let text: Vec<&str> = text
        .lines()
        .map(|line| match line.split(' ').next() {
            Some("name") => "name = \"between\"",
            Some("dit") => "dit = { path = \"dit.safetensors\" }",
            _ => line,
        })
        .collect();
    std::fs::write(sandbox.path("model.toml"), text.join("\n")).unwrap();
}

const MODEL: [&str; 4] = ["--model", "model.toml", "--models-dir", "."];

fn pipeline(sandbox: &Sandbox) -> Pipeline {
    let registry = Registry::builtin().unwrap();
    let model = registry.find(sandbox.path("model.toml").to_str().unwrap()).unwrap();
    let files = registry.resolve(&model, &Places::folder(sandbox.path("."))).unwrap();
    Pipeline::open(files, Device::Cpu, DType::F32).unwrap()
}

fn upside_down(image: &RgbImage) -> RgbImage {
    let mut data = image.data().to_vec();
    data.as_chunks_mut::<3>().0.reverse();
    RgbImage::new(image.width(), image.height(), data).unwrap()
}

fn prepare(pipeline: &Pipeline, request: &Request, first: &RgbImage, last: Option<&RgbImage>) -> Job {
    let plan = pipeline.plan(request.clone(), Some(first)).unwrap();
    let images = Images { first: Some(first), last, ..Images::default() };
    pipeline.prepare(plan, images, None, &Silent, &CancelToken::new()).unwrap()
}

fn denoised(pipeline: &Pipeline, mut job: Job) -> Tensor {
    pipeline.denoise(&mut job, &Silent, &CancelToken::new()).unwrap();
    job.state.latents
}

/// Against diffusers' `WanImageToVideoPipeline` with a `last_image`. Tolerances as in `end_to_end.rs`.
#[test]
fn the_run_between_two_images_equals_diffusers() {
    let sandbox = Sandbox::new();
    write_model(&sandbox);
    let pipeline = pipeline(&sandbox);
    assert!(pipeline.takes_end_image().unwrap());
    let golden = Golden::open("e2e/flf2v.io.safetensors");
    let number = |key: &str| golden.metadata(key).parse::<f64>().unwrap();
    let request = Request {
        prompt: golden.metadata("prompt").into(),
        negative_prompt: golden.metadata("negative_prompt").into(),
        width: number("width") as usize,
        height: number("height") as usize,
        frames: number("frames") as usize,
        steps: number("steps") as usize,
        cfg: number("cfg"),
        shift: number("shift"),
        seed: number("seed") as u64,
        scheduler: golden.metadata("scheduler").parse().unwrap(),
        ..Request::with_defaults(&pipeline.model().defaults).unwrap()
    };
    let first = load_image(&sample_image(), Alpha::Drop).unwrap();
    let last = upside_down(&first);
    let job = prepare(&pipeline, &request, &first, Some(&last));
    assert_close(
        "image embeddings",
        job.conditioning.image.as_ref().unwrap(),
        &golden.f32("image_embeds"),
        2e-3,
    );
    assert_close("condition", job.conditioning.condition.as_ref().unwrap(), &golden.f32("condition"), 1e-4);
    let latents = denoised(&pipeline, job);
    assert_close("latents", &latents, &golden.f32("expected.latents"), 1e-3);

    // One image alone takes the first positions; another end is another video.
    let alone = denoised(&pipeline, prepare(&pipeline, &request, &first, None));
    let same = denoised(&pipeline, prepare(&pipeline, &request, &first, Some(&first)));
    for (what, other) in [("without an end image", alone), ("with another", same)] {
        assert!(distance(&other, &latents).unwrap().relative_l2 > 1e-3, "{what}");
    }
}

#[test]
fn the_program_makes_the_video_between_two_images() {
    let sandbox = Sandbox::new();
    write_model(&sandbox);
    let end = image::open(sample_image()).unwrap().rotate180();
    end.save(sandbox.path("end.png")).unwrap();
    let run = |more: &[&str]| {
        sandbox.ok(&tiny_args(&[&MODEL, more].concat()));
    };
    run(&["--end-image", "end.png"]);
    let record = wan_media::read_metadata(&sandbox.path("out.mp4")).unwrap().unwrap();
    assert!(record.contains(r#""end_image":"end.png""#), "{record}");
    run(&["--output", "alone.mp4"]);
    let read = |name: &str| std::fs::read(sandbox.path(name)).unwrap();
    assert!(read("out.mp4") != read("alone.mp4"));
    let again =
        ["--from-video", "out.mp4", "--models-dir", ".", "--output", "again.mp4", "--end-image", "end.png"];
    let sample = sample_image();
    // The record has the model's name, which is not enough for one that a file describes.
    let args = [&again[..], &["--image", sample.to_str().unwrap(), "--model", "model.toml"]].concat();
    sandbox.ok(&args);
    assert!(read("again.mp4") == read("out.mp4"));

    let output = sandbox
        .tiny(&[&MODEL[..], &["--end-image", "end.png", "--frames", "1", "--output", "x.mp4"]].concat());
    assert_fails(&output, 2, "frames: found 1, expected at least 5 with an end image");
    image::open(sandbox.path("end.png"))
        .unwrap()
        .crop_imm(0, 0, 512, 256)
        .save(sandbox.path("wide.png"))
        .unwrap();
    let output =
        sandbox.ok(&tiny_args(&[&MODEL[..], &["--end-image", "wide.png", "--output", "w.mp4"]].concat()));
    assert!(
        stderr(&output).contains("the end image (512x256) is stretched to the shape of the image (512x512)")
    );
    let output = sandbox.tiny(&[&MODEL[..], &["--end-image", "absent.png", "--output", "x.mp4"]].concat());
    assert_fails(&output, 1, "absent.png: no such file");
}

/// The guide's graph, small, with the image `first.png` and the end image `end.png`.
pub fn graph_between_two_images() -> Value {
    let text = std::fs::read(repo_path("workflows/wanx-21.api.json")).unwrap();
    let mut graph: Value = serde_json::from_slice(&text).unwrap();
    graph["50"] = json!({"class_type": "WanVideoImageToVideoEncode", "inputs": {
        "vae": ["43", 0], "width": 64, "height": 64, "num_frames": 5, "noise_aug_strength": 0,
        "start_latent_strength": 1, "end_latent_strength": 1, "force_offload": true, "clip_embeds": ["60", 0],
        "start_image": ["42", 0], "end_image": ["61", 0]}});
    graph["60"] = json!({"class_type": "WanVideoClipVisionEncode", "inputs": {
        "clip_vision": ["44", 0], "image_1": ["42", 0], "image_2": ["61", 0], "strength_1": 1, "strength_2": 1,
        "crop": "center", "combine_embeds": "concat", "force_offload": true}});
    graph["42"]["inputs"]["image"] = json!("first.png");
    graph["61"] = json!({"class_type": "LoadImage", "inputs": {"image": "end.png"}});
    graph["52"]["inputs"]["steps"] = json!(2);
    graph
}

#[test]
fn a_workflow_has_both_images() {
    let sandbox = Sandbox::new();
    write_model(&sandbox);
    let first = image::open(sample_image()).unwrap();
    first.save(sandbox.path("first.png")).unwrap();
    first.rotate180().save(sandbox.path("end.png")).unwrap();
    let graph = graph_between_two_images();
    let mut alone = graph.clone();
    alone["50"]["inputs"].as_object_mut().unwrap().remove("end_image");
    alone["60"]["inputs"].as_object_mut().unwrap().remove("image_2");
    let run = |graph: &Value, output: &str, more: &[&str]| {
        std::fs::write(sandbox.path("w.json"), graph.to_string()).unwrap();
        let args = ["generate", "--workflow", "w.json", "--output", output, "-q"];
        sandbox.ok(&[&args, &MODEL[..], more].concat());
        std::fs::read(sandbox.path(output)).unwrap()
    };
    let made = run(&graph, "a.rgb", &[]);
    assert!(made == run(&alone, "b.rgb", &["--end-image", "end.png"]));
    assert!(made != run(&alone, "c.rgb", &[]));
}

#[test]
fn a_loop_ends_where_it_began_and_shows_the_image_once() {
    let sandbox = Sandbox::new();
    write_model(&sandbox);
    let sample = sample_image();
    let looped = ["--loop", "--frames", "9", "--output", "loop.rgb"];
    sandbox.ok(&tiny_args(&[&MODEL[..], &looped].concat()));
    let image = sample.to_str().unwrap();
    let between = ["--end-image", image, "--frames", "9", "--output", "between.rgb"];
    sandbox.ok(&tiny_args(&[&MODEL[..], &between].concat()));
    let read = |name: &str| std::fs::read(sandbox.path(name)).unwrap();
    let frame = 64 * 64 * 3;
    assert_eq!(read("loop.rgb").len(), 8 * frame);
    assert!(read("loop.rgb") == read("between.rgb")[..8 * frame]);
    let both = ["--loop", "--end-image", image, "--output", "x.mp4"];
    assert_eq!(sandbox.tiny(&[&MODEL[..], &both].concat()).status.code(), Some(2));
    std::fs::write(sandbox.path("loop.toml"), "loop = true\n").unwrap();
    let both = ["--config", "loop.toml", "--end-image", image, "--output", "x.mp4"];
    assert_fails(&sandbox.tiny(&[&MODEL[..], &both].concat()), 2, "expected one of the two");
}

#[test]
fn a_stopped_job_between_two_images_goes_on() {
    let sandbox = Sandbox::new();
    write_model(&sandbox);
    let pipeline = pipeline(&sandbox);
    let first = load_image(&sample_image(), Alpha::Drop).unwrap();
    let request = Request {
        width: 64,
        height: 64,
        frames: 5,
        steps: 2,
        ..Request::with_defaults(&pipeline.model().defaults).unwrap()
    };
    let job = prepare(&pipeline, &request, &first, Some(&first));
    let saved = wan_pipeline::SavedJob { job: job.clone(), model: "x".into(), extra: Value::Null };
    let path = sandbox.path("r.safetensors");
    saved.save(&path).unwrap();
    let again = wan_pipeline::SavedJob::open(&path).unwrap().job;
    assert!(again.plan.end_image);
    assert_close("latents", &denoised(&pipeline, again), &denoised(&pipeline, job), 0.0);
}

#[test]
fn other_models_have_no_place_for_a_second_image() {
    let sandbox = Sandbox::new();
    let sample = sample_image();
    let image = sample.to_str().unwrap();
    assert_fails(
        &sandbox.tiny(&["--end-image", image]),
        2,
        "--end-image: found the model tiny, which takes one image, expected one that makes the video between two",
    );
    assert_fails(
        &sandbox.tiny(&["--loop"]),
        2,
        "--pingpong plays the video of any model forwards and backwards",
    );
    assert_eq!(sandbox.names(), Vec::<String>::new());
    // What there is for them.
    sandbox.ok(&tiny_args(&["--pingpong", "--output", "p.rgb"]));
    assert_eq!(std::fs::metadata(sandbox.path("p.rgb")).unwrap().len(), 8 * 64 * 64 * 3);
}

#[test]
fn lines_of_a_batch_have_end_images() {
    let sandbox = Sandbox::new();
    write_model(&sandbox);
    let sample = sample_image();
    let lines = [
        json!({"end-image": sample, "output": "a.mp4"}),
        json!({"loop": true, "output": "b.mp4"}),
        json!({"loop": true, "end-image": sample, "output": "c.mp4"}),
    ];
    let text = lines.map(|line| line.to_string()).join("\n");
    std::fs::write(sandbox.path("jobs.jsonl"), text).unwrap();
    let output = sandbox.tiny(&[&MODEL[..], &["!--output", "--batch", "jobs.jsonl"]].concat());
    assert_fails(&output, 1, "1 of 3 failed (line 3)");
    assert_eq!(stdout(&output), "a.mp4\nb.mp4\n", "{}", stderr(&output));
}
