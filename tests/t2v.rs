//! A text-to-video model: no image, no image encoder, and a DiT without a condition.

use std::collections::HashMap;

use safetensors::SafeTensors;
use safetensors::tensor::TensorView;

use crate::support::{Sandbox, assert_fails, repo_path, sample_image, stderr, tensor};

/// The embedded DiT without what belongs to images: random weights in the shapes of text-to-video.
fn write_dit(sandbox: &Sandbox) {
    let bytes = std::fs::read(repo_path("models/tiny/dit.safetensors")).unwrap();
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let config = header.metadata().as_ref().unwrap()["config"].as_str();
    let mut config: serde_json::Value = serde_json::from_str(config).unwrap();
    config["model_type"] = "t2v".into();
    config["in_dim"] = 16.into();
    config.as_object_mut().unwrap().remove("image_dim");
    let whole = SafeTensors::deserialize(&bytes).unwrap();
    // The first 16 of 36 input channels; the last three axes are a patch of 1 x 2 x 2.
    let patch = whole.tensor("patch_embedding.weight").unwrap();
    let row = 36 * 4 * 4;
    let latent: Vec<u8> = patch.data().chunks_exact(row).flat_map(|r| &r[..16 * 4 * 4]).copied().collect();
    let shape = vec![patch.shape()[0], 16, 1, 2, 2];
    let views =
        whole.iter().filter(|(n, _)| !n.starts_with("img_emb.") && !n.contains("_img.")).map(|(n, v)| {
            let view = match n {
                "patch_embedding.weight" => TensorView::new(v.dtype(), shape.clone(), &latent),
                _ => TensorView::new(v.dtype(), v.shape().to_vec(), v.data()),
            };
            (n, view.unwrap())
        });
    let metadata = HashMap::from([("config".to_string(), config.to_string())]);
    std::fs::write(sandbox.path("dit.safetensors"), safetensors::serialize(views, Some(metadata)).unwrap())
        .unwrap();
}

/// `model.toml`: the embedded model as `model_type`, with the DiT of the sandbox.
fn describe(sandbox: &Sandbox, model_type: &str) {
    let text = std::fs::read_to_string(repo_path("models/tiny.toml")).unwrap();
    let text: String = text
        .lines()
        .filter(|l| model_type == "i2v" || !l.starts_with("image_encoder"))
        .map(|l| match l.split(' ').next() {
            Some("name") => "name = \"other\"\n".into(),
            Some("model_type") => format!("model_type = \"{model_type}\"\n"),
            Some("dit") => "dit = { path = \"dit.safetensors\" }\n".into(),
            _ => format!("{l}\n"),
        })
        .collect();
    std::fs::write(sandbox.path("model.toml"), text).unwrap();
}

const MODEL: [&str; 4] = ["--model", "model.toml", "--models-dir", "."];

#[test]
fn text_alone_makes_a_video() {
    let sandbox = Sandbox::new();
    write_dit(&sandbox);
    describe(&sandbox, "t2v");
    let run = |more: &[&str]| {
        let output =
            sandbox.tiny(&[&MODEL, more, &["!--image", "--overwrite", "--save-latents", "l"]].concat());
        assert!(output.status.success(), "{}", stderr(&output));
        // No image decides the shape: the size is as asked.
        let latents = tensor(&sandbox.path("l"), "latents");
        assert_eq!(latents.dims(), [1, 16, 2, 8, 8]);
        latents.flatten_all().unwrap().to_vec1::<f32>().unwrap()
    };
    let first = run(&[]);
    assert_eq!(first, run(&[]));
    assert_ne!(first, run(&["--prompt", "a blue square falls"]));
    assert_ne!(first, run(&["--negative-prompt", "colour"]));
    assert_ne!(first, run(&["--cfg", "1"]));
}

#[test]
fn an_image_is_refused() {
    let sandbox = Sandbox::new();
    write_dit(&sandbox);
    describe(&sandbox, "t2v");
    let sample = sample_image();
    let output = sandbox.tiny(&[&MODEL[..], &["--image", sample.to_str().unwrap()]].concat());
    assert_fails(&output, 2, "expected none: this model makes videos from text alone");
    for option in [&["--end-image", sample.to_str().unwrap()][..], &["--loop"]] {
        let output = sandbox.tiny(&[&MODEL[..], &["!--image"], option].concat());
        assert_fails(&output, 2, "expected one that makes the video between two");
    }
    assert_eq!(sandbox.names(), ["dit.safetensors", "model.toml"]);
}

#[test]
fn a_description_that_contradicts_its_weights_is_refused() {
    let sandbox = Sandbox::new();
    write_dit(&sandbox);
    describe(&sandbox, "i2v");
    assert_fails(&sandbox.tiny(&MODEL), 1, "dit.safetensors: found a t2v model, expected i2v");
    assert_eq!(sandbox.names(), ["dit.safetensors", "model.toml"]);
}

/// A video longer than a window: 11 latent frames in windows of 5, 2 in common.
#[test]
fn a_long_video_is_denoised_in_windows() {
    let sandbox = Sandbox::new();
    write_dit(&sandbox);
    describe(&sandbox, "t2v");
    let run = |more: &[&str]| {
        let long = ["!--image", "--frames", "41", "--overwrite", "--save-latents", "l"];
        let output = sandbox.tiny(&[&MODEL, more, &long].concat());
        assert!(output.status.success(), "{}", stderr(&output));
        let latents = tensor(&sandbox.path("l"), "latents");
        assert_eq!(latents.dims(), [1, 16, 11, 8, 8]);
        (latents.flatten_all().unwrap().to_vec1::<f32>().unwrap(), stderr(&output))
    };
    let windows = ["--context-frames", "17", "--context-overlap", "8"];
    let with = |more: &[&str]| run(&[&windows[..], more].concat()).0;
    let (whole, _) = run(&[]);
    // A window that holds all of the video is no window.
    assert_eq!(whole, run(&["--context-frames", "41"]).0);
    let moving = with(&[]);
    assert!(moving.iter().all(|value| value.is_finite()));
    assert_ne!(moving, whole);
    let still = with(&["--context-schedule", "static_standard"]);
    assert_ne!(moving, still);
    assert_ne!(moving, with(&["--context-freenoise=false"]));
    assert_eq!(whole, with(&["--context-schedule", "none"]));

    // Each part of the prompt has its part of the video.
    let (two, said) = run(&[&windows[..], &["--prompt", "a red balloon | a blue square"]].concat());
    assert!(!said.contains("only the first is used"), "{said}");
    assert_ne!(two, with(&["--prompt", "a red balloon"]));
    assert_ne!(two, with(&["--prompt", "a red balloon | a green tree"]));
    let (first, said) = run(&["--prompt", "a red balloon | a blue square"]);
    assert!(said.contains("without context windows only the first is used"), "{said}");
    assert_eq!(first, run(&["--prompt", "a red balloon"]).0);
    let record = wan_media::read_metadata(&sandbox.path("out.mp4")).unwrap().unwrap();
    assert!(!record.contains("context"), "{record}");
}

#[test]
fn windows_that_make_no_sense_are_refused() {
    let sandbox = Sandbox::new();
    write_dit(&sandbox);
    describe(&sandbox, "t2v");
    let rows: [(&[&str], &str); 5] = [
        (&["--context-frames", "4"], "context-frames: found 4, expected at least 5"),
        (&["--context-frames", "17", "--context-overlap", "20"], "context-overlap: found 20"),
        (&["--context-overlap", "3"], "context-overlap: found 3"),
        (&["--context-stride", "3"], "context-stride: found 3"),
        (&["--context-schedule", "uniform_looped"], "uniform_looped"),
    ];
    for (args, message) in rows {
        assert_fails(&sandbox.tiny(&[&MODEL[..], &["!--image"], args].concat()), 2, message);
    }
    // An image has one window's worth of video.
    let output = sandbox.tiny(&["--context-frames", "17"]);
    assert_fails(
        &output,
        2,
        "context windows are for text-to-video models; --extend continues an image's video",
    );
}

/// Stopped in the middle, windows of later steps are where they would have been.
#[test]
fn a_job_in_windows_can_be_resumed() {
    let sandbox = Sandbox::new();
    write_dit(&sandbox);
    describe(&sandbox, "t2v");
    let registry = wan_models::Registry::builtin().unwrap();
    let model = registry.find(sandbox.path("model.toml").to_str().unwrap()).unwrap();
    let files = registry.resolve(&model, &wan_models::Places::folder(sandbox.path("."))).unwrap();
    let cpu = candle_core::Device::Cpu;
    let pipeline = wan_pipeline::Pipeline::open(files, cpu, candle_core::DType::F32).unwrap();
    let request = wan_pipeline::Request {
        prompt: "a red balloon | a blue square".into(),
        width: 64,
        height: 64,
        frames: 41,
        steps: 4,
        context: Some(wan_pipeline::ContextWindows { frames: 17, overlap: 8, ..Default::default() }),
        ..wan_pipeline::Request::with_defaults(&pipeline.model().defaults).unwrap()
    };
    let (silent, never) = (wan_core::progress::Silent, wan_core::progress::CancelToken::new());
    let plan = pipeline.plan(request, None).unwrap();
    let mut job = pipeline.prepare(plan, None, None, &silent, &never).unwrap();
    let path = sandbox.path("r.safetensors");
    let mut steps = 0;
    let start = job.clone();
    let mut keep = |state: &wan_pipeline::DenoiseState| {
        steps += 1;
        if steps == 2 {
            let job = wan_pipeline::Job { state: state.clone(), ..start.clone() };
            let saved = wan_pipeline::SavedJob { job, model: "other".into(), extra: serde_json::Value::Null };
            saved.save(&path).unwrap();
        }
    };
    pipeline.denoise_keeping(&mut job, &mut keep, &silent, &never).unwrap();
    let mut again = wan_pipeline::SavedJob::open(&path).unwrap().job;
    assert_eq!(again.conditioning.later_texts.len(), 1);
    pipeline.denoise(&mut again, &silent, &never).unwrap();
    wan_core::testkit::assert_close("latents", &again.state.latents, &job.state.latents, 0.0);
}
