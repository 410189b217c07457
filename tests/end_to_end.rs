//! The whole pipeline on the embedded model: it equals PyTorch's, every input matters, and the video is right.

use candle_core::{DType, Device, Tensor};
use wan_core::progress::{CancelToken, Silent};
use wan_core::testkit::{Golden, assert_close, distance};
use wan_media::{Alpha, RgbImage, load_image};
use wan_models::Registry;
use wan_pipeline::{Job, Pipeline, Request};

use crate::support::{Sandbox, sample_image, tensor, tiny_args};

fn pipeline() -> Pipeline {
    let registry = Registry::builtin().unwrap();
    let model = registry.find("tiny").unwrap();
    let files = registry.resolve(&model, &wan_models::Places::default()).unwrap();
    Pipeline::open(files, Device::Cpu, DType::F32).unwrap()
}

fn request(pipeline: &Pipeline) -> Request {
    Request {
        prompt: "a red balloon rises".into(),
        negative_prompt: "static".into(),
        width: 64,
        height: 64,
        frames: 5,
        steps: 2,
        seed: 42,
        ..Request::with_defaults(&pipeline.model().defaults).unwrap()
    }
}

fn sample() -> RgbImage {
    load_image(&sample_image(), Alpha::Drop).unwrap()
}

fn prepare(pipeline: &Pipeline, request: Request, image: &RgbImage) -> Job {
    let plan = pipeline.plan(request, Some(image)).unwrap();
    pipeline.prepare(plan, Some(image), None, &Silent, &CancelToken::new()).unwrap()
}

fn denoised(pipeline: &Pipeline, mut job: Job) -> Tensor {
    pipeline.denoise(&mut job, &Silent, &CancelToken::new()).unwrap();
    job.state.latents
}

#[test]
fn every_input_changes_the_latents() {
    let pipeline = pipeline();
    let base = request(&pipeline);
    let image = sample();
    let reference = denoised(&pipeline, prepare(&pipeline, base.clone(), &image));
    let mirrored = {
        let mut data = image.data().to_vec();
        data.as_chunks_mut::<3>().0.reverse();
        RgbImage::new(image.width(), image.height(), data).unwrap()
    };
    let variants = [
        ("image", prepare(&pipeline, base.clone(), &mirrored)),
        (
            "prompt",
            prepare(&pipeline, Request { prompt: "a blue square falls".into(), ..base.clone() }, &image),
        ),
        (
            "negative prompt",
            prepare(&pipeline, Request { negative_prompt: "colour".into(), ..base.clone() }, &image),
        ),
        ("seed", prepare(&pipeline, Request { seed: 43, ..base.clone() }, &image)),
        ("cfg", prepare(&pipeline, Request { cfg: 3.0, ..base.clone() }, &image)),
        ("cfg 1", prepare(&pipeline, Request { cfg: 1.0, ..base.clone() }, &image)),
        ("shift", prepare(&pipeline, Request { shift: 3.0, ..base.clone() }, &image)),
        (
            "noise augmentation",
            prepare(&pipeline, Request { noise_aug_strength: 0.5, ..base.clone() }, &image),
        ),
        ("latent strength", prepare(&pipeline, Request { latent_strength: 0.5, ..base.clone() }, &image)),
    ];
    for (what, job) in variants {
        let d = distance(&denoised(&pipeline, job), &reference).unwrap();
        assert!(d.relative_l2 > 1e-4, "{what} does not matter: {d:?}");
    }
}

#[test]
fn every_encoder_matters() {
    let pipeline = pipeline();
    let job = prepare(&pipeline, request(&pipeline), &sample());
    let reference = denoised(&pipeline, job.clone());
    let zeroed = |change: &dyn Fn(&mut Job)| {
        let mut job = job.clone();
        change(&mut job);
        distance(&denoised(&pipeline, job), &reference).unwrap().relative_l2
    };
    let zero = |t: &Tensor| t.zeros_like().unwrap();
    assert!(zeroed(&|j| j.conditioning.text = zero(&j.conditioning.text)) > 1e-4, "text");
    assert!(
        zeroed(&|j| j.conditioning.negative = j.conditioning.negative.as_ref().map(zero)) > 1e-4,
        "negative"
    );
    assert!(zeroed(&|j| j.conditioning.image = j.conditioning.image.as_ref().map(zero)) > 1e-4, "image");
    assert!(
        zeroed(&|j| j.conditioning.condition = j.conditioning.condition.as_ref().map(zero)) > 1e-4,
        "condition"
    );
}

/// The image embedding begins with a layer norm, which takes out a factor on its input: the reference's
/// `clip_embed_strength` therefore acts on the embeddings, and hardly on the video.
#[test]
fn the_clip_strength_scales_the_embeddings() {
    let pipeline = pipeline();
    let half = Request { clip_embed_strength: 0.5, ..request(&pipeline) };
    let (whole, half) =
        (prepare(&pipeline, request(&pipeline), &sample()), prepare(&pipeline, half, &sample()));
    let doubled = (half.conditioning.image.unwrap() * 2.0).unwrap();
    assert_close("embeddings", &doubled, whole.conditioning.image.as_ref().unwrap(), 1e-6);
}

/// Every tensor between the prompt and the final latents, against diffusers and transformers on the same weights.
///
/// Tolerances: 1e-4 for what one network computes; 2e-3 for the image embeddings, because the resized image is
/// rounded to 8 bits before CLIP sees it, and where torch's f32 sum and ours fall on two sides of a tie, a pixel
/// differs by a whole level; 1e-3 for the latents, since four steps under a guidance scale of 6 multiply rounding
/// differences.
#[test]
fn the_run_equals_diffusers() {
    let pipeline = pipeline();
    let golden = Golden::open("e2e/tiny.io.safetensors");
    let frames: usize = golden.metadata("frames").parse().unwrap();
    let size = |key: &str| golden.metadata(key).parse::<usize>().unwrap();
    for scheduler in ["dpm++", "unipc", "euler"] {
        let request = Request {
            prompt: golden.metadata("prompt").into(),
            negative_prompt: golden.metadata("negative_prompt").into(),
            width: size("width"),
            height: size("height"),
            frames,
            steps: size("steps"),
            cfg: golden.metadata("cfg").parse().unwrap(),
            shift: golden.metadata("shift").parse().unwrap(),
            seed: golden.metadata("seed").parse().unwrap(),
            scheduler: scheduler.parse().unwrap(),
            ..request(&pipeline)
        };
        let job = prepare(&pipeline, request, &sample());
        let c = &job.conditioning;
        let rows = [
            ("text_embeds", c.text.unsqueeze(0).unwrap(), 1e-4),
            ("negative_embeds", c.negative.as_ref().unwrap().unsqueeze(0).unwrap(), 1e-4),
            ("image_embeds", c.image.clone().unwrap(), 2e-3),
            ("condition", c.condition.clone().unwrap(), 1e-4),
        ];
        for (name, found, tolerance) in rows {
            assert_close(name, &found, &golden.f32(name), tolerance);
        }
        assert_close("noise", &job.state.latents, &golden.f32("noise"), 0.0);
        let name = format!("expected.latents.{scheduler}");
        assert_close(&name, &denoised(&pipeline, job), &golden.f32(&name), 1e-3);
    }
}

#[test]
fn one_and_two_threads_give_the_same_bytes() {
    let run = |threads: &str| {
        let sandbox = Sandbox::new();
        // Larger than the other tests' videos, so that every op has work for two.
        let args = tiny_args(&[
            "--width",
            "128",
            "--height",
            "128",
            "--frames",
            "9",
            "--save-latents",
            "l.safetensors",
        ]);
        let output = sandbox.command().env("RAYON_NUM_THREADS", threads).args(args).output().unwrap();
        assert!(output.status.success(), "{}", crate::support::stderr(&output));
        let read = |name: &str| std::fs::read(sandbox.path(name)).unwrap();
        (read("l.safetensors"), read("out.mp4"))
    };
    let one = run("1");
    assert!(one == run("2"), "the number of threads shows");
    assert!(one == run("2"), "the same run differs");
}

#[test]
fn the_video_is_what_was_asked_for() {
    let sandbox = Sandbox::new();
    sandbox.ok(&tiny_args(&["--frames", "9", "--contact-sheet", "sheet.png", "--preview", "preview.png"]));
    let facts = wan_media::probe::probe(&sandbox.path("out.mp4")).unwrap();
    assert_eq!((facts.codec.as_str(), facts.pixel_format.as_str()), ("h264", "yuv420p"));
    assert_eq!((facts.width, facts.height, facts.frames), (64, 64, 9));
    assert_eq!((facts.fps, facts.seconds), ((16, 1), 9.0 / 16.0));
    let record = wan_media::read_metadata(&sandbox.path("out.mp4")).unwrap().expect("a record");
    let record: serde_json::Value = serde_json::from_str(&record).unwrap();
    assert_eq!((record["prompt"].as_str(), record["seed"].as_u64()), (Some("a red balloon rises"), Some(42)));
    assert!(image::open(sandbox.path("sheet.png")).unwrap().width() > 64);
    let preview = image::open(sandbox.path("preview.png")).unwrap();
    assert_eq!((preview.width(), preview.height()), (3 * 64, 64));

    let frames = |args: &[&str]| {
        sandbox.ok(&tiny_args(&[&["--format", "rgb", "--overwrite", "--output", "o.rgb"], args].concat()));
        std::fs::read(sandbox.path("o.rgb")).unwrap()
    };
    let plain = frames(&[]);
    assert_eq!(plain.len(), 5 * 64 * 64 * 3);
    assert_eq!(frames(&["--pingpong"]).len(), 8 * 64 * 64 * 3);
    assert_eq!(frames(&["--loop-count", "2"]).len(), 15 * 64 * 64 * 3);
    let stretched = frames(&["--output-range", "minmax"]);
    assert_eq!((stretched.iter().min(), stretched.iter().max()), (Some(&0), Some(&255)));
}

#[test]
fn other_formats_are_written() {
    let sandbox = Sandbox::new();
    for format in ["webp", "gif", "png"] {
        let output = format!("out.{format}");
        sandbox.ok(&tiny_args(&["--format", format, "--output", &output]));
    }
    assert_eq!(std::fs::read_dir(sandbox.path("out.png")).unwrap().count(), 5);
    assert!(std::fs::read(sandbox.path("out.gif")).unwrap().starts_with(b"GIF8"));
    assert!(std::fs::read(sandbox.path("out.webp")).unwrap().starts_with(b"RIFF"));
}

#[test]
fn tiles_change_little_and_one_tile_nothing() {
    let sandbox = Sandbox::new();
    let frames = |args: &[&str]| {
        sandbox.ok(&tiny_args(&[&["--format", "rgb", "--overwrite", "--output", "o.rgb"], args].concat()));
        std::fs::read(sandbox.path("o.rgb")).unwrap()
    };
    let whole = frames(&["--vae-tiling", "off"]);
    assert!(whole == frames(&["--vae-tiling", "on"]), "272x272 covers 64x64");
    let tile = [
        "--tile-height",
        "48",
        "--tile-width",
        "48",
        "--tile-stride-height",
        "32",
        "--tile-stride-width",
        "32",
    ];
    assert!(whole != frames(&[&["--vae-tiling", "on"], &tile[..]].concat()));
}

#[test]
fn saved_latents_are_finite_and_of_the_right_shape() {
    let sandbox = Sandbox::new();
    sandbox.ok(&tiny_args(&["--save-latents", "l.safetensors"]));
    let latents = tensor(&sandbox.path("l.safetensors"), "latents");
    assert_eq!(latents.dims(), [1, 16, 2, 8, 8]);
    assert!(latents.flatten_all().unwrap().to_vec1::<f32>().unwrap().iter().all(|v| v.is_finite()));
}
