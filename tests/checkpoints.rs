//! `wan-run models inspect` and `models convert`, and the tokenizer inside of a text encoder.

use std::path::PathBuf;

use wan_core::WeightSet;

use crate::support::{Sandbox, assert_fails, repo_path, stderr, stdout};

fn golden(name: &str) -> String {
    repo_path("tests/golden").join(name).to_str().expect("a plain path").to_string()
}

/// A DiT whose heads of 128 tell its configuration.
fn dit() -> String {
    golden("dit/i2v_1x128.weights.safetensors")
}

#[test]
fn inspect_says_what_a_checkpoint_is() {
    let sandbox = Sandbox::new();
    for (file, component, layout) in [
        (dit(), "dit", "safetensors, original naming (1 file)"),
        (golden("foreign/umt5.pth"), "text encoder", "PyTorch zip, original naming (1 file)"),
        (golden("foreign/vae_pretrained"), "vae", "safetensors, diffusers naming"),
        (golden("foreign/clip_comfy.safetensors"), "image encoder", "safetensors, transformers naming"),
    ] {
        let text = stdout(&sandbox.run(&["models", "inspect", &file]));
        let line = |key: &str| text.lines().find(|l| l.starts_with(key)).unwrap_or_default().to_string();
        assert!(line("component").contains(component), "{file}: {text}");
        assert!(line("layout").contains(layout), "{file}: {text}");
        let parameters: u64 = line("parameters").split_whitespace().last().unwrap_or("0").parse().unwrap();
        assert!(parameters > 1000, "{text}");
        assert!(text.contains("dtype          "), "{text}");
        assert!(!text.contains("Some") && !text.contains("None"), "{text}");
    }
    let comfy = stdout(&sandbox.run(&["models", "inspect", &golden("foreign/umt5_comfy.safetensors")]));
    assert!(comfy.contains("not loaded     spiece_model: "), "{comfy}");
    let llama_cpp = stdout(&sandbox.run(&["models", "inspect", &golden("foreign/umt5_llama_cpp.gguf")]));
    assert!(llama_cpp.contains("not loaded     tokenizer.ggml: "), "{llama_cpp}");
}

#[test]
fn inspect_refuses_what_is_no_checkpoint() {
    let sandbox = Sandbox::new();
    assert_fails(&sandbox.run(&["models", "inspect", "nothing"]), 1, "nothing");
    std::fs::write(sandbox.path("text"), "no weights").unwrap();
    assert_fails(&sandbox.run(&["models", "inspect", "text"]), 1, "not a readable safetensors file");
    assert_fails(
        &sandbox.run(&["models", "inspect", &golden("lora/lora.safetensors")]),
        1,
        "this is no component of a Wan model",
    );
    assert_fails(&sandbox.run(&["models", "inspect", &golden("foreign/code.pth")]), 1, "not run");
    assert_fails(&sandbox.run(&["models", "inspect"]), 2, "required arguments were not provided");
}

#[test]
fn convert_writes_every_target_and_reports_errors() {
    let sandbox = Sandbox::new();
    for (to, scale, layout) in [
        ("fp8", None, "original naming, FP8 without scales"),
        ("fp8-scaled", None, "original naming, FP8 scaled per tensor"),
        ("fp8-scaled", Some("tensor"), "original naming, FP8 scaled per tensor"),
        ("fp8-scaled", Some("row"), "original naming, FP8 scaled per row"),
        ("bf16", None, "safetensors, original naming"),
    ] {
        let source = if to == "bf16" { golden("foreign/umt5.pth") } else { dit() };
        let output = format!("{to}-{}.safetensors", scale.unwrap_or("default"));
        let mut args = vec!["models", "convert", &source, &output, "--to", to, "--verbose"];
        args.extend(scale.iter().flat_map(|s| ["--scale", s]));
        let text = stdout(&sandbox.ok(&args));
        let listed = text.lines().filter(|l| l.contains(", relative error ")).count();
        assert!(text.contains(&format!(": {listed} tensors converted, ")) && listed > 5, "{text}");
        assert!(text.contains("largest relative error "), "{text}");
        let report = stdout(&sandbox.run(&["models", "inspect", &output]));
        assert!(report.contains(layout), "{to}: {report}");
        assert!(WeightSet::open(&sandbox.path(&output)).is_ok());
    }
}

#[test]
fn convert_leaves_a_whole_output_or_none() {
    let sandbox = Sandbox::new();
    let convert = |input: &str, more: &[&str]| {
        let args = [&["models", "convert", input, "out.safetensors", "--to", "fp8"], more].concat();
        sandbox.run(&args)
    };
    // Neither a wrong component nor a damaged one leaves anything behind.
    let mut damaged = std::fs::read(dit()).unwrap();
    damaged.truncate(damaged.len() - 1);
    std::fs::write(sandbox.path("damaged"), damaged).unwrap();
    for (input, reason) in [
        (golden("lora/lora.safetensors"), "lora.safetensors: "),
        ("damaged".into(), "damaged: not a readable safetensors file: "),
        ("nothing".into(), "nothing: "),
        (golden("foreign/code.pth"), "not run"),
    ] {
        assert_fails(&convert(&input, &[]), 1, reason);
        let left: Vec<String> = sandbox.names().into_iter().filter(|n| n != "damaged").collect();
        assert_eq!(left, Vec::<String>::new(), "{input}");
    }
    assert!(convert(&dit(), &[]).status.success());
    let whole = std::fs::read(sandbox.path("out.safetensors")).unwrap();
    assert_fails(&convert(&dit(), &[]), 1, "output: found out.safetensors exists, expected a new file");
    assert_eq!(std::fs::read(sandbox.path("out.safetensors")).unwrap(), whole);
    assert!(convert(&dit(), &["--overwrite"]).status.success());
    assert_fails(
        &sandbox.run(&["models", "convert", &dit(), "x", "--to", "int4"]),
        2,
        "invalid value 'int4'",
    );
    assert_fails(
        &sandbox.run(&["models", "convert", &dit(), "no/folder/x", "--to", "fp8"]),
        1,
        "no/folder/x",
    );
}

/// ComfyUI's encoder is enough, or llama.cpp's: what they have of the vocabulary stands in where there is no tokenizer.json.
#[test]
fn a_tokenizer_inside_of_the_text_encoder_is_found_last() {
    let sandbox = Sandbox::new();
    let folder = sandbox.path("models");
    std::fs::create_dir_all(&folder).unwrap();
    let put = |name: &str, from: PathBuf| assert!(std::fs::copy(from, folder.join(name)).unwrap() > 0);
    put("encoder.safetensors", repo_path("tests/golden/foreign/umt5_comfy.safetensors"));
    let text = "name = \"m\"\nsummary = \"a test\"\nmodel_type = \"t2v\"\nlicense = \"none\"\n\
        [files.dit]\npath = \"tiny/dit.safetensors\"\nembedded = true\n\
        [files.vae]\npath = \"tiny/vae.safetensors\"\nembedded = true\n\
        [files.text_encoder]\npath = \"encoder.safetensors\"\n[files.tokenizer]\npath = \"tokenizer.json\"\n\
        [defaults]\nwidth = 64\nheight = 64\nframes = 5\nfps = 16\nsteps = 2\ncfg = 6.0\nshift = 5.0\n\
        scheduler = \"dpm++\"\n";
    std::fs::write(sandbox.path("m.toml"), text).unwrap();
    let path = || {
        let output = sandbox.run(&["models", "path", "m.toml", "--models-dir", "models"]);
        assert!(output.status.success(), "{}", stderr(&output));
        stdout(&output).lines().find(|l| l.starts_with("tokenizer\t")).unwrap().to_string()
    };
    assert!(path().ends_with("encoder.safetensors#spiece_model"), "{}", path());
    put("encoder.safetensors", repo_path("tests/golden/foreign/umt5_llama_cpp.gguf"));
    assert!(path().ends_with("encoder.safetensors#tokenizer.ggml"), "{}", path());
    put("spiece.model", repo_path("tests/golden/sentencepiece/plain.model"));
    assert!(path().ends_with("spiece.model"), "{}", path());
    put("tokenizer.json", repo_path("models/tiny/tokenizer.json"));
    assert!(path().ends_with("tokenizer.json"), "{}", path());
}
