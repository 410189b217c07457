//! Every component through `wan-run probe`, against tensors of diffusers, transformers and the reference solvers.

use wan_core::testkit::{Golden, assert_close};

use crate::support::{Sandbox, assert_fails, repo_path, tensor};

/// Runs `probe` on a golden case and compares every expected tensor.
fn holds(component: &str, weights: Option<&str>, io: &str, options: &[&str], tolerance: f64) {
    let sandbox = Sandbox::new();
    let golden = |name: &str| repo_path("tests/golden").join(name).to_string_lossy().into_owned();
    let input = golden(&format!("{io}.io.safetensors"));
    let mut args =
        vec!["probe".into(), component.into(), "--input".into(), input, "--output".into(), "out".into()];
    if let Some(weights) = weights {
        args.extend(["--weights".into(), golden(&format!("{weights}.weights.safetensors"))]);
    }
    args.extend(options.iter().map(|o| o.to_string()));
    sandbox.ok(&args);
    let golden = Golden::open(&format!("{io}.io.safetensors"));
    let mut compared = 0;
    for name in golden.0.names().filter_map(|n| n.strip_prefix("expected.")) {
        let what = format!("{component} {io} {name}");
        assert_close(
            &what,
            &tensor(&sandbox.path("out"), name),
            &golden.f32(&format!("expected.{name}")),
            tolerance,
        );
        compared += 1;
    }
    assert!(compared > 0, "{io} has no expected tensors");
}

/// Relative L2 against PyTorch in f32: both sides sum in f32 in different orders, which on these sizes leaves
/// 1e-6 to 1e-5; the contract allows 1e-4.
const NETWORK: f64 = 1e-4;

/// The solvers are the same few f32 operations; only the last bits may differ.
const SOLVER: f64 = 1e-5;

#[test]
fn dit_in_every_naming_and_shape() {
    for case in ["i2v", "i2v_diffusers", "i2v_3x28", "i2v_1x128", "t2v"] {
        holds("dit", Some(&format!("dit/{case}")), &format!("dit/{case}"), &[], NETWORK);
    }
}

#[test]
fn umt5_in_both_namings() {
    for (weights, io) in
        [("umt5", "umt5"), ("umt5_transformers", "umt5_transformers"), ("umt5", "long"), ("umt5", "one")]
    {
        holds("umt5", Some(&format!("umt5/{weights}")), &format!("umt5/{io}"), &[], NETWORK);
    }
}

#[test]
fn clip_in_both_namings() {
    for case in ["clip", "clip_transformers"] {
        holds("clip", Some(&format!("clip/{case}")), &format!("clip/{case}"), &[], NETWORK);
    }
}

#[test]
fn vae_whole_in_both_namings() {
    for weights in ["vae/vae", "vae/vae_diffusers"] {
        for t in ["t1", "t5", "t9"] {
            holds("vae-encode", Some(weights), &format!("vae/encode_{t}"), &[], NETWORK);
            holds("vae-decode", Some(weights), &format!("vae/decode_{t}"), &[], NETWORK);
        }
    }
}

/// Tile sizes are in the fixture's header.
#[test]
fn vae_in_tiles() {
    for (component, case) in [("vae-decode", "vae/decode_tiled"), ("vae-encode", "vae/encode_tiled")] {
        let golden = Golden::open(&format!("{case}.io.safetensors"));
        let options: Vec<String> = ["tile_height", "tile_width", "tile_stride_height", "tile_stride_width"]
            .iter()
            .flat_map(|key| [format!("--{}", key.replace('_', "-")), golden.metadata(key).to_string()])
            .collect();
        let mut options: Vec<&str> = options.iter().map(String::as_str).collect();
        options.push("--tiled");
        holds(component, Some("vae/vae"), case, &options, NETWORK);
    }
}

#[test]
fn schedulers_at_several_lengths_shifts_and_strengths() {
    let folder = repo_path("tests/golden/scheduler");
    let mut cases = 0;
    for entry in std::fs::read_dir(folder).expect("fixtures") {
        let name = entry.expect("an entry").file_name().to_string_lossy().into_owned();
        let Some(case) = name.strip_suffix(".io.safetensors") else { continue };
        let golden = Golden::open(&format!("scheduler/{name}"));
        let of = |key: &str| golden.metadata(key).to_string();
        let options = [
            ("--scheduler", of("scheduler")),
            ("--steps", of("steps")),
            ("--shift", of("shift")),
            ("--denoise-strength", of("denoise_strength")),
        ];
        let options: Vec<&str> = options.iter().flat_map(|(k, v)| [*k, v.as_str()]).collect();
        holds("scheduler", None, &format!("scheduler/{case}"), &options, SOLVER);
        cases += 1;
    }
    assert!(cases >= 16, "{cases}");
}

#[test]
fn noise_is_torchs_to_the_bit() {
    let sandbox = Sandbox::new();
    sandbox.ok(&["probe", "noise", "--seed", "42", "--shape", "1,16,2,2", "--output", "noise"]);
    let noise = tensor(&sandbox.path("noise"), "noise");
    assert_eq!(noise.dims(), [1, 16, 2, 2]);
    let values = noise.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    // torch.manual_seed(42); torch.randn(64)[:4]
    let expected = [0x3ff6_a529, 0x3fbe_5f53, 0x3f66_9567, 0xc006_c0db_u32];
    assert_eq!(values[..4].iter().map(|v| v.to_bits()).collect::<Vec<_>>(), expected);
}

#[test]
fn image_follows_the_resolution_rule() {
    let sandbox = Sandbox::new();
    let sample = crate::support::sample_image();
    let sample = sample.to_str().unwrap();
    sandbox.ok(&["probe", "image", "--image", sample, "--width", "832", "--height", "480", "--output", "a"]);
    assert_eq!(tensor(&sandbox.path("a"), "image").dims(), [3, 624, 624]);
    let args = ["probe", "image", "--image", sample, "--width", "70", "--height", "40", "--output", "b"];
    sandbox.ok(&[&args[..], &["--no-adjust-resolution"]].concat());
    let image = tensor(&sandbox.path("b"), "image");
    assert_eq!(image.dims(), [3, 32, 64]);
    let values = image.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert!(values.iter().all(|v| (-1.0..=1.0).contains(v)));
}

#[test]
fn reduced_dtypes_stay_near_f32() {
    // One rounding to bf16 is 2^-9 relative; a chain of a few dozen in a two-block model stays below a few percent.
    holds("dit", Some("dit/i2v"), "dit/i2v", &["--dtype", "bf16"], 4e-2);
    holds("dit", Some("dit/i2v"), "dit/i2v", &["--dtype", "f16"], 5e-3);
}

#[test]
fn errors_name_the_thing_and_write_nothing() {
    let sandbox = Sandbox::new();
    let golden = |name: &str| repo_path("tests/golden").join(name).to_string_lossy().into_owned();
    let (weights, io) = (golden("dit/i2v.weights.safetensors"), golden("dit/i2v.io.safetensors"));
    let vae = golden("vae/vae.weights.safetensors");
    let umt5 = golden("umt5/umt5.io.safetensors");
    let rows: [(i32, &str, &[&str]); 10] = [
        (2, "invalid value 'dot'", &["dot", "--weights", &weights, "--input", &io]),
        (2, "unexpected argument '--nonsense'", &["dit", "--nonsense"]),
        (2, "probe dit: --weights is missing", &["dit", "--input", &io]),
        (2, "invalid value 'f8'", &["dit", "--weights", &weights, "--input", &io, "--dtype", "f8"]),
        (2, "steps is 0", &["scheduler", "--steps", "0", "--input", &io]),
        (2, "--shape is missing", &["noise"]),
        (
            2,
            "tile height: found 0",
            &["vae-decode", "--weights", &vae, "--input", &io, "--tiled", "--tile-height", "0"],
        ),
        (1, "not a", &["dit", "--weights", &vae, "--input", &io]),
        (1, "no tensor latents", &["dit", "--weights", &weights, "--input", &umt5]),
        (1, "No such file", &["dit", "--weights", "absent.safetensors", "--input", &io]),
    ];
    for (code, message, args) in rows {
        let output = sandbox.run(&[&["probe"], args, &["--output", "out"]].concat());
        let text = crate::support::stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {text}");
        assert!(text.contains(message), "{args:?}: {text}");
    }
    assert_fails(
        &sandbox.run(&[
            "probe",
            "dit",
            "--device",
            "cuda",
            "--weights",
            &weights,
            "--input",
            &io,
            "--output",
            "o",
        ]),
        1,
        "CPU only",
    );
    assert_eq!(sandbox.names(), Vec::<String>::new());
}
