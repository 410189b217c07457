//! The memory plan through the program: limits, refusals, and the published 14B files at their true size.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::support::{Sandbox, assert_fails, repo_path, stderr, stdout, tiny_args};

/// Writes the sparse file of a manifest of `tests/layouts`: its header and a hole as long as its data.
fn sparse(manifest: &str, path: &Path) {
    let file = File::open(repo_path("tests/layouts").join(format!("{manifest}.json.gz"))).unwrap();
    let mut text = String::new();
    flate2::read::GzDecoder::new(file).read_to_string(&mut text).unwrap();
    let manifest: Value = serde_json::from_str(&text).unwrap();
    let (mut header, mut at) = (Map::new(), 0u64);
    for (name, spec) in manifest["tensors"].as_object().unwrap() {
        let width = match spec[0].as_str().unwrap() {
            "F8_E4M3" => 1,
            "F32" => 4,
            _ => 2,
        };
        let values: u64 = spec[1].as_array().unwrap().iter().map(|d| d.as_u64().unwrap()).product();
        let end = at + values * width;
        header.insert(name.clone(), json!({"dtype": spec[0], "shape": spec[1], "data_offsets": [at, end]}));
        at = end;
    }
    let text = Value::Object(header).to_string().into_bytes();
    let mut file = File::create(path).unwrap();
    file.write_all(&(text.len() as u64).to_le_bytes()).unwrap();
    file.write_all(&text).unwrap();
    file.set_len(8 + text.len() as u64 + at).unwrap();
}

/// A folder with the 14B model's four files, sparse, and a description of them.
pub fn sandbox_14b() -> Sandbox {
    let sandbox = Sandbox::new();
    std::fs::create_dir(sandbox.path("models")).unwrap();
    let files = [
        ("dit", "kijai_Wan2_1-I2V-14B-480P_fp8_e4m3fn"),
        ("vae", "kijai_Wan2_1_VAE_bf16"),
        ("text_encoder", "kijai_umt5-xxl-enc-bf16"),
        ("image_encoder", "kijai_open-clip-xlm-roberta-large-vit-huge-14_visual_fp16"),
    ];
    let mut toml =
        "name = \"big\"\nsummary = \"14B in FP8\"\nmodel_type = \"i2v\"\nlicense = \"Apache-2.0\"\n"
            .to_string();
    toml += "[files]\ntokenizer = { path = \"tokenizer.json\" }\n";
    for (key, manifest) in files {
        let name = format!("{key}.safetensors");
        sparse(manifest, &sandbox.path("models").join(&name));
        toml += &format!("{key} = {{ path = \"{name}\" }}\n");
    }
    toml +=
        "[defaults]\nwidth = 832\nheight = 480\nframes = 81\nfps = 16\nsteps = 20\ncfg = 6.0\nshift = 5.0\n";
    toml += "scheduler = \"dpm++\"\n";
    std::fs::copy(repo_path("models/tiny/tokenizer.json"), sandbox.path("models/tokenizer.json")).unwrap();
    std::fs::write(sandbox.path("big.toml"), toml).unwrap();
    sandbox
}

fn job(sandbox: &Sandbox, more: &[&str]) -> Value {
    let args = [&["info", "--json", "--model", "big.toml", "--no-adjust-resolution"], more].concat();
    let info: Value = serde_json::from_str(&stdout(&sandbox.ok(&args))).unwrap();
    info["job"]["planned"].clone()
}

#[test]
fn the_14b_model_is_planned_for_cards_of_all_sizes() {
    let sandbox = sandbox_14b();
    for (card, least, most) in [("24GB", 0, 0), ("16GB", 8, 15), ("12GB", 25, 40), ("8GB", 38, 40)] {
        let job = job(&sandbox, &["--max-vram", card, "--max-ram", "64GB"]);
        let memory = &job["memory"];
        let swapped = memory["swapped_blocks"].as_u64().unwrap();
        assert!((least..=most).contains(&swapped), "{card}: {swapped}");
        assert_eq!((job["fits"].as_bool(), memory["blocks"].as_u64()), (Some(true), Some(40)), "{card}");
        assert_eq!(job["tokens"], 32760);
        assert_eq!(memory["items"][3]["stage"], "denoise");
    }
    let all = job(&sandbox, &["--max-vram", "80GB", "--max-ram", "64GB", "--blocks-to-swap", "99"]);
    assert_eq!(all["memory"]["swapped_blocks"], 40);
    let large =
        job(&sandbox, &["--max-vram", "80GB", "--max-ram", "64GB", "--width", "1280", "--height", "720"]);
    assert_eq!((&large["fits"], &large["memory"]["swapped_blocks"]), (&json!(true), &json!(0)));

    let text =
        stdout(&sandbox.ok(&["info", "--model", "big.toml", "--max-vram", "12GB", "--max-ram", "64GB"]));
    for part in ["of 40 blocks swapped", "GPU weights", "encode-condition", "15.8 GiB", "11.2 GiB given"] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn a_job_that_cannot_fit_is_refused_before_anything_is_loaded() {
    let sandbox = sandbox_14b();
    let sample = crate::support::sample_image();
    let args =
        ["--model", "big.toml", "--image", sample.to_str().unwrap(), "--prompt", "x", "--max-ram", "5GB"];
    let output = sandbox.run(&args);
    assert_fails(&output, 1, "not enough memory: ");
    let text = stderr(&output);
    assert!(
        text.contains("denoise needs") && text.contains("of which there is 4.7 GiB; what fits: --"),
        "{text}"
    );
    assert!(!sandbox.names().iter().any(|n| n.ends_with(".mp4")), "{:?}", sandbox.names());

    // What the refusal offers is taken.
    let advice = text.split("what fits: ").nth(1).unwrap().lines().next().unwrap();
    let offered: Vec<&str> = advice.split(", or ").next().unwrap().split_whitespace().collect();
    let info = [&["info", "--json"], &args[..4], &["--max-ram", "5GB"], &offered[..]].concat();
    let args: Vec<&str> = info.into_iter().collect();
    let info: Value = serde_json::from_str(&stdout(&sandbox.ok(&args))).unwrap();
    assert_eq!(info["job"]["planned"]["fits"], true, "{advice}");
}

#[test]
fn limits_are_kept_by_the_embedded_model() {
    let sandbox = Sandbox::new();
    let small = ["--width", "128", "--height", "128", "--frames", "9"];
    let run = |more: &[&str]| sandbox.tiny(&[&small[..], more].concat());
    assert_fails(&run(&["--max-ram", "2MB"]), 1, "not enough memory: ");
    assert_eq!(sandbox.names(), Vec::<String>::new());
    let text = stderr(&run(&["--max-ram", "4GB", "--max-vram", "1GB", "--blocks-to-swap", "1"]));
    for part in
        ["3.7 GiB given", "max-vram has no effect on the CPU", "blocks-to-swap has no effect on the CPU"]
    {
        assert!(text.contains(part), "{part} in {text}");
    }
    let record = wan_media::read_metadata(&sandbox.path("out.mp4")).unwrap().expect("a record");
    let record: Value = serde_json::from_str(&record).unwrap();
    assert_eq!(record["blocks_to_swap"], 1);
    let again = stderr(&sandbox.ok(&[
        "--from-video",
        "out.mp4",
        "--output",
        "b.mp4",
        "--image",
        crate::support::sample_image().to_str().unwrap(),
    ]));
    assert!(again.contains("blocks-to-swap has no effect"), "{again}");
}

/// The whole process: allocations, what the allocator keeps back, libraries, the video's encoder.
#[test]
fn a_run_takes_the_memory_that_is_planned() {
    let sandbox = Sandbox::new();
    let size = ["--width", "256", "--height", "256", "--frames", "17", "--no-adjust-resolution"];
    let info = [&["info", "--json", "--model", "tiny"], &size[..]].concat();
    let info: Value = serde_json::from_str(&stdout(&sandbox.ok(&info))).unwrap();
    let items = info["job"]["planned"]["memory"]["items"].as_array().unwrap();
    let total = |i: &Value| i["host_bytes"].as_u64().unwrap() + i["process_bytes"].as_u64().unwrap();
    let planned = items.iter().map(total).max().unwrap();

    // More threads would have more buffers of their own.
    let mut command = sandbox.command();
    command.env("RAYON_NUM_THREADS", "2").args(tiny_args(&[&size[..], &["--quiet"]].concat()));
    let mut child = command.stdout(Stdio::null()).spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut most = 0;
    while child.try_wait().unwrap().is_none() {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find(|l| l.starts_with("RssAnon:"));
        let kib = line.and_then(|l| l.split_whitespace().nth(1)?.parse::<u64>().ok());
        most = most.max(kib.unwrap_or(0) * 1024);
        std::thread::sleep(Duration::from_millis(2));
    }
    assert!(child.wait().unwrap().success());
    println!("{most} bytes taken, {planned} planned");
    assert!(most <= planned && planned <= most * 3 / 2, "{most} bytes taken, {planned} planned");
}

#[test]
fn latents_are_decoded_though_denoising_would_not_fit() {
    let sandbox = Sandbox::new();
    sandbox.ok(&tiny_args(&["--save-latents", "l.safetensors", "--steps", "1"]));
    let decode = |limit: &str| {
        sandbox.run(&[
            "--model",
            "tiny",
            "--from-latents",
            "l.safetensors",
            "--overwrite",
            "--output",
            "d.mp4",
            "--max-ram",
            limit,
        ])
    };
    assert!(decode("1GB").status.success());
    assert_fails(&decode("2MiB"), 1, "not enough memory: decode needs");
}

#[test]
fn limits_come_from_the_defaults_file_too() {
    let sandbox = Sandbox::new();
    std::fs::write(sandbox.path("d.toml"), "max-vram = \"8GB\"\nmax-ram = \"9GiB\"\nblocks-to-swap = 2\n")
        .unwrap();
    let info = |more: &[&str]| {
        let args = [&["info", "--json", "--model", "tiny", "--config", "d.toml"], more].concat();
        let info: Value = serde_json::from_str(&stdout(&sandbox.ok(&args))).unwrap();
        info["job"]["planned"]["memory"].clone()
    };
    let memory = info(&[]);
    assert_eq!(memory["budget"]["device_bytes"], 8_000_000_000u64);
    assert_eq!(memory["budget"]["host_bytes"], 9u64 << 30);
    assert_eq!(memory["swapped_blocks"], 2);
    assert_eq!(info(&["--blocks-to-swap", "auto"])["swapped_blocks"], 0);
    assert_eq!(info(&["--device", "cpu"])["budget"]["processor"], "cpu");
    std::fs::write(sandbox.path("d.toml"), "blocks-to-swap = \"many\"\n").unwrap();
    assert_fails(&sandbox.run(&["info", "--config", "d.toml"]), 2, "blocks-to-swap: found `many`");
}

#[test]
fn sizes_that_are_none_are_usage_errors() {
    let sandbox = Sandbox::new();
    let rows = [
        ("--max-ram", "12", "max-ram: found `12`, expected a size of at least 1 MiB with its unit"),
        ("--max-ram", "lots", "max-ram: found `lots`"),
        ("--max-vram", "-3GB", "max-vram: found `-3GB`"),
        ("--max-vram", "0GB", "max-vram: found `0GB`"),
        ("--blocks-to-swap", "-1", "found `-1`, expected auto, or a number"),
        ("--blocks-to-swap", "some", "found `some`, expected auto, or a number"),
    ];
    for (option, value, message) in rows {
        assert_fails(&sandbox.tiny(&[&format!("{option}={value}")]), 2, message);
    }
    assert_eq!(sandbox.names(), Vec::<String>::new());
}

#[test]
fn a_model_that_is_not_here_has_the_sizes_of_its_description() {
    let sandbox = Sandbox::new();
    let text = stdout(&sandbox.ok(&["info", "--model", "wan2.1-i2v-14b-480p-fp8"]));
    assert!(text.contains("dit 15.8 GiB") && text.contains("a plan needs the files"), "{text}");
}
