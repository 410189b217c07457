//! Broken inputs: one line, exit 1, no half output.

use std::collections::HashMap;
use std::path::Path;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use crate::support::{Sandbox, assert_fails, repo_path, sample_image, tiny_args};

#[test]
fn broken_images() {
    let sandbox = Sandbox::new();
    let jpeg = {
        let picture = image::open(sample_image()).unwrap().to_rgb8();
        let mut bytes = std::io::Cursor::new(Vec::new());
        picture.write_to(&mut bytes, image::ImageFormat::Jpeg).unwrap();
        bytes.into_inner()
    };
    // A bitmap header that claims 60,000 x 60,000 pixels of 24 bits, and nothing behind it.
    let mut huge = b"BM\x36\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0".to_vec();
    huge.extend(60_000u32.to_le_bytes());
    huge.extend(60_000u32.to_le_bytes());
    huge.extend(b"\x01\0\x18\0");
    huge.extend([0; 24]);
    let mut empty = huge.clone();
    empty[18..26].fill(0);
    let rows: [(&str, Vec<u8>, &str); 6] = [
        ("text.png", b"this is not a picture".to_vec(), "not an image"),
        ("half.jpg", jpeg[..jpeg.len() / 2].to_vec(), "truncated"),
        ("huge.bmp", huge, "60000x60000"),
        ("zero.bmp", empty, "zero size"),
        ("none.jpg", Vec::new(), "empty"),
        ("head.jpg", jpeg[..20].to_vec(), "head.jpg"),
    ];
    for (name, bytes, message) in rows {
        std::fs::write(sandbox.path(name), bytes).unwrap();
        assert_fails(&sandbox.tiny(&["--image", name]), 1, message);
        std::fs::remove_file(sandbox.path(name)).unwrap();
    }
    assert_fails(&sandbox.tiny(&["--image", "absent.png"]), 1, "absent.png: no such file");
    assert_fails(&sandbox.tiny(&["--image", "."]), 1, "folder");
    assert_eq!(sandbox.names(), Vec::<String>::new());
}

/// Tensors of a file by name: dtype, shape, bytes.
pub type Tensors = HashMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

/// A copy of the embedded model in which `change` has been at one file, and a description that points at it.
pub fn altered(sandbox: &Sandbox, file: &str, change: impl FnOnce(&mut Tensors)) {
    let source = repo_path("models/tiny").join(file);
    let bytes = std::fs::read(source).unwrap();
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let mut tensors: Tensors = SafeTensors::deserialize(&bytes)
        .unwrap()
        .iter()
        .map(|(n, v)| (n.to_string(), (v.dtype(), v.shape().to_vec(), v.data().to_vec())))
        .collect();
    change(&mut tensors);
    let views = tensors.iter().map(|(n, (d, s, b))| (n, TensorView::new(*d, s.clone(), b).unwrap()));
    std::fs::write(sandbox.path(file), safetensors::serialize(views, header.metadata().clone()).unwrap())
        .unwrap();
    describe(sandbox);
}

/// `model.toml`: the embedded model, with the files of the sandbox in place of those embedded.
fn describe(sandbox: &Sandbox) {
    let text = std::fs::read_to_string(repo_path("models/tiny.toml")).unwrap();
    let text: String = text
        .lines()
        .map(|line| {
            let file = line.split('"').nth(1).and_then(|p| Path::new(p).file_name()).unwrap_or_default();
            let altered = line.contains("embedded = true") && sandbox.path(file.to_str().unwrap()).exists();
            let line = if altered {
                line.replace(", embedded = true", "").replace("tiny/", "")
            } else {
                line.into()
            };
            line.replace("name = \"tiny\"", "name = \"altered\"") + "\n"
        })
        .collect();
    std::fs::write(sandbox.path("model.toml"), text).unwrap();
}

pub fn run_altered(sandbox: &Sandbox) -> std::process::Output {
    sandbox.tiny(&["--model", "model.toml", "--models-dir", "."])
}

#[test]
fn an_unaltered_copy_works() {
    let sandbox = Sandbox::new();
    altered(&sandbox, "dit.safetensors", |_| {});
    let output = run_altered(&sandbox);
    assert!(output.status.success(), "{}", crate::support::stderr(&output));
}

#[test]
fn weights_that_do_not_fit_are_named() {
    type Change = fn(&mut Tensors);
    let rows: [(&str, Change, &str); 5] = [
        (
            "dit.safetensors",
            |t| drop(t.remove("blocks.1.ffn.0.bias").unwrap()),
            "1 missing: blocks.1.ffn.0.bias",
        ),
        (
            "dit.safetensors",
            |t| drop(t.insert("blocks.0.lora".into(), (Dtype::F32, vec![1], vec![0; 4]))),
            "1 unexpected: blocks.0.lora",
        ),
        (
            "vae.safetensors",
            |t| t.get_mut("conv2.bias").unwrap().1 = vec![4, 4],
            "conv2.bias (found [4, 4], expected [16])",
        ),
        ("umt5.safetensors", |t| drop(t.remove("blocks.1.attn.q.weight").unwrap()), "blocks.1.attn.q.weight"),
        ("clip.safetensors", |t| drop(t.remove("visual.pre_norm.bias").unwrap()), "visual.pre_norm.bias"),
    ];
    for (file, change, message) in rows {
        let sandbox = Sandbox::new();
        altered(&sandbox, file, change);
        assert_fails(&run_altered(&sandbox), 1, message);
        let mut names = [file, "model.toml"];
        names.sort();
        assert_eq!(sandbox.names(), names);
    }
}

#[test]
fn damaged_files_are_refused() {
    let whole = std::fs::read(repo_path("models/tiny/dit.safetensors")).unwrap();
    let mut claims_much = whole.clone();
    claims_much[..8].copy_from_slice(&(1u64 << 40).to_le_bytes());
    for bytes in [whole[..whole.len() - 100].to_vec(), whole[..5].to_vec(), Vec::new(), claims_much] {
        let sandbox = Sandbox::new();
        std::fs::write(sandbox.path("dit.safetensors"), bytes).unwrap();
        describe(&sandbox);
        assert_fails(&run_altered(&sandbox), 1, "dit.safetensors");
        assert_eq!(sandbox.names(), ["dit.safetensors", "model.toml"]);
    }
}

#[test]
fn nan_names_the_step_and_keeps_the_latents() {
    let sandbox = Sandbox::new();
    altered(&sandbox, "dit.safetensors", |t| {
        t.get_mut("head.head.bias").unwrap().2[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    });
    let output = run_altered(&sandbox);
    assert_fails(&output, 1, "denoise step 1 of 2: velocity");
    assert_fails(&output, 1, "--resume out.mp4.resume.safetensors");
    assert_eq!(sandbox.names(), ["dit.safetensors", "model.toml", "out.mp4.resume.safetensors"]);
    // The model is found again where it was described.
    let again = sandbox.run(&["--resume", "out.mp4.resume.safetensors"]);
    assert_fails(&again, 1, "denoise step 1 of 2: velocity");

    let sandbox = Sandbox::new();
    altered(&sandbox, "vae.safetensors", |t| {
        t.get_mut("decoder.conv1.bias").unwrap().2[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    });
    assert_fails(&run_altered(&sandbox), 1, "decode of latent frame 1");
    assert_eq!(sandbox.names(), ["model.toml", "out.mp4.resume.safetensors", "vae.safetensors"]);
}

#[test]
fn each_job_that_fails_keeps_a_file_of_its_own() {
    let sandbox = Sandbox::new();
    altered(&sandbox, "dit.safetensors", |t| {
        t.get_mut("head.head.bias").unwrap().2[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    });
    let fails = |more: &[&str], kept: &str| {
        let model = ["--model", "model.toml", "--models-dir", "."];
        let output = sandbox.tiny(&[&model, more].concat());
        assert_fails(&output, 1, &format!("go on with wan-run --resume {kept}"));
        let text = crate::support::stderr(&output);
        assert!(text.trim_end().ends_with(kept), "{text}");
    };
    fails(&["--format", "png", "--output", "shot.001"], "shot.001.resume.safetensors");
    fails(&["--format", "png", "--output", "shot.002"], "shot.002.resume.safetensors");
    fails(&["--output", "clip.gif"], "clip.gif.resume.safetensors");
    fails(&["--output", "clip.mp4"], "clip.mp4.resume.safetensors");
    fails(&["--output", "clip.mp4"], "clip.mp4.resume-2.safetensors");
    std::fs::write(sandbox.path("clip.mp4"), "").unwrap();
    // The rest of a job that may replace its output may do so too.
    fails(&["--output", "clip.mp4", "--overwrite"], "clip.mp4.resume-3.safetensors --overwrite");
    // Two spaces in a name are two.
    fails(&["--output", "my  clip.mp4"], "'my  clip.mp4.resume.safetensors'");
    let resumed = sandbox.run(&["--resume", "clip.gif.resume.safetensors"]);
    assert_fails(&resumed, 1, "--resume clip.gif.resume.safetensors");
    assert!(!sandbox.path("clip.gif.resume-2.safetensors").exists(), "its own is renewed");
}

#[test]
fn noise_of_another_size_is_refused() {
    let sandbox = Sandbox::new();
    sandbox.ok(&["probe", "noise", "--shape", "16,2,4,4", "--output", "noise.safetensors"]);
    assert_fails(&sandbox.tiny(&["--noise", "noise.safetensors"]), 2, "[16, 2, 8, 8]");
    sandbox.ok(&["probe", "noise", "--seed", "42", "--shape", "16,2,8,8", "--output", "noise.safetensors"]);
    sandbox.ok(&tiny_args(&[
        "--noise",
        "noise.safetensors",
        "--save-latents",
        "a.safetensors",
        "--seed",
        "42",
    ]));
    sandbox.ok(&tiny_args(&["--save-latents", "b.safetensors", "--overwrite"]));
    let read = |name: &str| std::fs::read(sandbox.path(name)).unwrap();
    assert!(read("a.safetensors") == read("b.safetensors"), "the seed's own noise, from a file");
}
