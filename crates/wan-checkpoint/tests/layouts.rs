//! Every published layout, at its full size and shape: sparse files, opened through the public API.

mod support;

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use candle_core::{DType, Device};
use support::Manifest;
use wan_checkpoint::{Component, expect, identify, inspect};
use wan_core::WeightSet;

/// Anonymous memory that opening may add.
const LIMIT: u64 = 1 << 30;

/// A manifest, what it is, its layout, and the number of tensors that are known to be of no use.
const LAYOUTS: [(&str, Component, &str, usize); 21] = [
    (
        "kijai_Wan2_1-I2V-14B-480P_fp8_e4m3fn",
        Component::Dit,
        "safetensors, original naming, FP8 without scales",
        0,
    ),
    (
        "kijai_Wan2_1-I2V-14B-480p_fp8_e4m3fn_scaled_KJ",
        Component::Dit,
        "safetensors, original naming, FP8 scaled per tensor",
        481,
    ),
    (
        "comfy_wan2.1_i2v_480p_14B_fp8_e4m3fn",
        Component::Dit,
        "safetensors, original naming, FP8 without scales",
        0,
    ),
    (
        "comfy_wan2.1_i2v_480p_14B_fp8_scaled",
        Component::Dit,
        "safetensors, original naming, FP8 scaled per tensor",
        977,
    ),
    ("diffusers_transformer", Component::Dit, "safetensors, diffusers naming", 40),
    ("orig_i2v_14B_480P_dit", Component::Dit, "safetensors, original naming", 0),
    ("orig_t2v_14B_dit", Component::Dit, "safetensors, original naming", 0),
    ("orig_t2v_1.3B_dit", Component::Dit, "safetensors, original naming", 0),
    ("kijai_umt5-xxl-enc-bf16", Component::TextEncoder, "safetensors, original naming", 0),
    (
        "kijai_umt5-xxl-enc-fp8_e4m3fn",
        Component::TextEncoder,
        "safetensors, original naming, FP8 without scales",
        0,
    ),
    (
        "comfy_umt5_xxl_fp8_e4m3fn_scaled",
        Component::TextEncoder,
        "safetensors, transformers naming, FP8 scaled per tensor",
        170,
    ),
    ("diffusers_text_encoder", Component::TextEncoder, "safetensors, transformers naming", 0),
    ("orig_models_t5_umt5-xxl-enc-bf16_pth", Component::TextEncoder, "PyTorch zip, original naming", 0),
    (
        "kijai_open-clip-xlm-roberta-large-vit-huge-14_visual_fp16",
        Component::ImageEncoder,
        "safetensors, original naming",
        4,
    ),
    ("comfy_clip_vision_h", Component::ImageEncoder, "safetensors, transformers naming", 4),
    ("diffusers_image_encoder", Component::ImageEncoder, "safetensors, transformers naming", 3),
    ("orig_models_clip_pth", Component::ImageEncoder, "PyTorch zip, original naming", 395),
    ("kijai_Wan2_1_VAE_bf16", Component::Vae, "safetensors, original naming", 0),
    ("comfy_wan_2.1_vae", Component::Vae, "safetensors, original naming", 0),
    ("diffusers_vae", Component::Vae, "safetensors, diffusers naming", 0),
    ("orig_Wan2.1_VAE_pth", Component::Vae, "PyTorch zip, original naming", 0),
];

/// Parameters in use, by what the files are.
fn parameters(manifest: &str, component: Component) -> u64 {
    match component {
        Component::Dit if manifest.contains("t2v_1.3B") => 1_418_996_800,
        Component::Dit if manifest.contains("t2v_14B") => 14_288_491_584,
        Component::Dit => 16_394_878_784,
        Component::TextEncoder => 5_680_910_336,
        Component::ImageEncoder => 630_763_520,
        Component::Vae => 126_892_531,
    }
}

/// Name of the manifest that a child process opens, and the file or folder it finds it at.
const CHILD: [&str; 2] = ["WAN_RUN_TEST_MANIFEST", "WAN_RUN_TEST_CHECKPOINT"];

/// Every file is opened in a process of its own, so that no memory kept from the one before hides what it takes.
#[test]
fn every_published_layout_opens_at_full_size() {
    let (start, next) = (Instant::now(), AtomicUsize::new(0));
    let work = || {
        let mut failures = Vec::new();
        while let Some((name, ..)) = LAYOUTS.get(next.fetch_add(1, Ordering::Relaxed)) {
            failures.extend(open_in_child(name).err());
        }
        failures
    };
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let failures: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|t| t.join().unwrap()).collect()
    });
    println!("all: {:.2} s", start.elapsed().as_secs_f64());
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Opens one layout in a child process; the error is what the child said.
fn open_in_child(name: &str) -> Result<(), String> {
    let folder = tempfile::tempdir().unwrap();
    let path = Manifest::open(name).write(folder.path());
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_opens_one_layout", "--nocapture"])
        .envs(CHILD.into_iter().zip([OsStr::new(name), path.as_os_str()]))
        .output()
        .unwrap();
    assert!(on_disk(folder.path()) < 64 << 20, "{name} takes real disk");
    let told = String::from_utf8_lossy(&child.stdout);
    let told = told.lines().find(|l| l.starts_with(name)).unwrap_or("nothing was opened");
    println!("{told}");
    if child.status.success() && told.contains("MiB anonymous") {
        return Ok(());
    }
    Err(format!("{name}: {told}\n{}", String::from_utf8_lossy(&child.stderr)))
}

/// The part of [`every_published_layout_opens_at_full_size`] that runs in the child; nothing by itself.
#[test]
fn child_opens_one_layout() {
    let [Some(name), Some(path)] = CHILD.map(std::env::var_os) else { return };
    let name = name.to_str().unwrap();
    let (_, component, layout, unused) = LAYOUTS.into_iter().find(|l| l.0 == name).unwrap();
    let (path, begin) = (Path::new(&path), Instant::now());
    let (report, memory) = anonymous_growth(|| inspect(path).unwrap_or_else(|e| panic!("{name}: {e}")));
    println!("\n{name}: {:.2} s, {} MiB anonymous", begin.elapsed().as_secs_f64(), memory >> 20);
    assert!(memory <= LIMIT, "{memory} bytes of anonymous memory");
    assert_eq!(report.problem, None);
    assert_eq!((report.component, report.layout.as_str()), (component, layout));
    assert_eq!(report.unused.len(), unused);
    assert!(report.unused.iter().all(|(_, why)| !why.is_empty()), "skipped without a reason");
    assert_eq!(report.parameters, parameters(name, component));
    let weights = WeightSet::open(path).unwrap();
    assert_eq!(weights.iter().count(), Manifest::open(name).count());
    for other in Component::ALL {
        assert_eq!(expect(&weights, other).is_ok(), other == component, "as {other}");
    }
}

#[test]
fn what_is_in_the_wrong_place_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let vae = WeightSet::open(&Manifest::open("kijai_Wan2_1_VAE_bf16").write(folder.path())).unwrap();
    let error = expect(&vae, Component::Dit).unwrap_err().to_string();
    assert!(error.ends_with("this is a VAE; expected a diffusion transformer (DiT)"), "{error}");
    for name in [
        "lora_kijai_lightx2v_I2V_14B_480p_rank64",
        "lora_kijai_lightx2v_T2V_14B_rank64",
        "lora_lightx2v_i2v_rank64_4step",
    ] {
        let path = Manifest::open(name).write(folder.path());
        let lora = WeightSet::open(&path).unwrap();
        assert!(identify(&lora).is_none());
        let error = expect(&lora, Component::Dit).unwrap_err().to_string();
        assert!(error.contains("this is a LoRA"), "{error}");
        assert!(inspect(&path).unwrap_err().to_string().contains("this is a LoRA"));
    }
}

/// The file names its own tensors in what is missing from it.
#[test]
fn missing_tensors_have_the_names_of_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let all = WeightSet::open(&Manifest::open("diffusers_image_encoder").write(folder.path())).unwrap();
    let gone = "vision_model.encoder.layers.7.self_attn.k_proj.weight";
    let set = WeightSet::from_tensors("file", all.iter().filter(|t| t.name() != gone).cloned());
    let error = wan_clip::ClipVision::open(&set, None, &Device::Cpu, DType::F32).unwrap_err().to_string();
    assert_eq!(error, format!("file: 1 missing: {gone}"));
}

/// Largest growth of the process's anonymous memory while `work` runs.
fn anonymous_growth<T>(work: impl FnOnce() -> T) -> (T, u64) {
    let before = anonymous();
    let (done, most) = (AtomicBool::new(false), AtomicU64::new(before));
    let result = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                most.fetch_max(anonymous(), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let result = work();
        most.fetch_max(anonymous(), Ordering::Relaxed);
        done.store(true, Ordering::Relaxed);
        result
    });
    (result, most.into_inner() - before)
}

/// RssAnon in bytes.
fn anonymous() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("RssAnon:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// Bytes really taken by the files of a folder.
fn on_disk(folder: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().metadata().unwrap().blocks() * 512).sum()
}
