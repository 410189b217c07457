//! Schedules, solvers and noise against the fixtures in `tests/golden`, which the reference solvers and
//! torch made; `tests/golden/README.md` tells how.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use sha2::{Digest, Sha256};
use wan_sampler::{Schedule, SchedulerKind, TorchRng};

fn golden(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(folder)
}

fn load(path: &Path) -> HashMap<String, Tensor> {
    candle_core::safetensors::load(path, &Device::Cpu).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// The files are named `SCHEDULER_nSTEPS_sSHIFT[_dSTRENGTH].io.safetensors`, with `-` for the `/` of a name.
fn scheduler_of(file: &str) -> SchedulerKind {
    let (name, _) = file.split_once("_n").expect("a name with a step count");
    name.replace('-', "/").parse().unwrap()
}

fn is_ksampler(kind: SchedulerKind) -> bool {
    matches!(kind, SchedulerKind::KSampler(_))
}

/// Operations and their order are the same. What remains is one ulp in a logarithm or an exponential of an f32 scalar, as
/// math libraries differ.
fn tolerance(kind: SchedulerKind) -> f32 {
    match kind {
        // The reference takes small differences of such logarithms.
        SchedulerKind::Deis => 5e-6,
        // Steps are short at both ends, and UniPC divides by such differences.
        SchedulerKind::UniPcBeta => 3e-6,
        // ComfyUI's solvers group some factors otherwise.
        kind if is_ksampler(kind) => 3e-6,
        _ => 1e-6,
    }
}

#[test]
fn solvers_equal_the_references() {
    let mut files: Vec<_> =
        std::fs::read_dir(golden("scheduler")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut seen: HashMap<SchedulerKind, usize> = HashMap::new();
    for path in &files {
        let file = path.file_name().unwrap().to_str().unwrap();
        let io = load(path);
        let option = |name: &str| {
            let tensor = io[&format!("options.{name}")].to_dtype(candle_core::DType::F64).unwrap();
            tensor.to_vec1::<f64>().unwrap()[0]
        };
        let kind = scheduler_of(file);
        let steps = option("steps") as usize;
        let schedule = Schedule::new(kind, steps, option("shift"), option("denoise_strength")).unwrap();
        assert_eq!(schedule.sigmas(), values(&io["expected.sigmas"]), "{file}");
        assert_eq!(schedule.timesteps(), values(&io["expected.timesteps"]), "{file}");

        let mut sampler = schedule.sampler();
        let mut sample = io["sample"].clone();
        for step in 0..schedule.steps() {
            let noise = io.get("noise").map(|noise| noise.get(step).unwrap());
            assert_eq!(noise.is_some(), sampler.needs_noise(), "{file}");
            let velocity = io["model_outputs"].get(step).unwrap();
            sample = sampler.step(&velocity, &sample, noise.as_ref()).unwrap();
            let expected = values(&io["expected.samples"].get(step).unwrap());
            for (found, expected) in values(&sample).into_iter().zip(expected) {
                let tolerance = tolerance(kind) * expected.abs().max(1.0);
                assert!((found - expected).abs() <= tolerance, "{file} step {step}: {found}, {expected}");
            }
        }
        *seen.entry(kind).or_default() += 1;
    }
    // ComfyUI's samplers do the same on all sigmas; those are compared in `comfyui_sigmas.rs`.
    for kind in
        SchedulerKind::ALL.into_iter().filter(|kind| !is_ksampler(*kind) || kind.name().ends_with("/simple"))
    {
        assert!(seen.get(&kind).is_some_and(|&n| n >= 4), "too few fixtures of {kind}");
    }
}

#[test]
fn noise_equals_torch() {
    let tensors = load(&golden("noise/noise.io.safetensors"));
    let text = std::fs::read_to_string(golden("noise/cases.json")).unwrap();
    let cases: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    assert!(cases.len() >= 10);
    for case in &cases {
        let seed = case["seed"].as_u64().unwrap();
        let shape: Vec<usize> =
            case["shape"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as usize).collect();
        let noise = TorchRng::seed(seed).randn_tensor(shape, &Device::Cpu).unwrap();
        let found = values(&noise);
        let mut hash = Sha256::new();
        found.iter().for_each(|value| hash.update(value.to_le_bytes()));
        let digest: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(case["sha256"], digest, "{case}");
        if let Some(name) = case["tensor"].as_str() {
            assert_eq!(found, values(&tensors[name]), "{case}");
            assert_eq!(noise.dims(), tensors[name].dims(), "{case}");
        }
    }
}
