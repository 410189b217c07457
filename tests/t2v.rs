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
