use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::{env, fs, thread};

use crate::sources::{Sources, is_hopper_only, stem};

/// One kind of image.
struct Target {
    /// In WAN_RUN_CUDA_ARCHS, and but for PTX nvcc's name of the architecture.
    name: &'static str,
    /// As `Target` of the crate.
    rust: &'static str,
}

/// The name of PTX, which the driver compiles for anything newer.
const PTX: &str = "ptx";

const TARGETS: [Target; 7] = [
    Target { name: "80", rust: "Cubin(8, 0)" },
    Target { name: "86", rust: "Cubin(8, 6)" },
    Target { name: "89", rust: "Cubin(8, 9)" },
    Target { name: "90a", rust: "Cubin(9, 0)" },
    Target { name: "100", rust: "Cubin(10, 0)" },
    Target { name: "120", rust: "Cubin(12, 0)" },
    Target { name: PTX, rust: "Ptx" },
];

impl Target {
    /// nvcc's way to ask for it.
    fn arguments(&self) -> Vec<String> {
        match self.name {
            PTX => vec!["-arch=compute_80".into(), "-ptx".into()],
            name => vec!["-gencode".into(), format!("arch=compute_{name},code=sm_{name}"), "-cubin".into()],
        }
    }
}

const FLAGS: [&str; 8] = [
    "-std=c++17",
    "-O3",
    "-Werror",
    "all-warnings",
    "-Xcompiler=-Wall,-Wno-unused-function",
    "-Xptxas",
    "-v,-warn-lmem-usage",
    "-diag-suppress=177", // helpers of a header that a file does not use
];

const ARCHS: &str = "WAN_RUN_CUDA_ARCHS";

/// One compilation.
struct Job<'a> {
    source: &'a Path,
    target: &'a Target,
    image: PathBuf,
}

/// Compiles every kernel file for every target into `out`, and writes `images.rs`, the list of the images with
/// what ptxas said about each.
pub fn compile(sources: &Sources, out: &Path) -> Result<(), String> {
    println!("cargo:rerun-if-env-changed={ARCHS}");
    for variable in ["CUDA_HOME", "CUDA_ROOT", "CUDA_PATH"] {
        println!("cargo:rerun-if-env-changed={variable}");
    }
    let nvcc = find_nvcc()?;
    let chosen = chosen_targets()?;
    let jobs: Vec<Job> = sources
        .files
        .iter()
        .flat_map(|source| chosen.iter().map(move |target| (source, *target)))
        .filter(|(source, target)| !is_hopper_only(source) || target.name == "90a")
        .map(|(source, target)| Job {
            source,
            target,
            image: out.join(format!("{}.{}.image", stem(source), target.name)),
        })
        .collect();
    run_all(&jobs, &nvcc, sources)?;
    fs::write(out.join("images.rs"), list(&jobs)).map_err(|e| format!("images.rs: {e}"))
}

fn find_nvcc() -> Result<PathBuf, String> {
    let homes = ["CUDA_HOME", "CUDA_ROOT", "CUDA_PATH"].iter().filter_map(env::var_os);
    let mut places: Vec<PathBuf> = homes.map(|home| Path::new(&home).join("bin")).collect();
    places.extend(env::var_os("PATH").iter().flat_map(env::split_paths));
    places.push("/usr/local/cuda/bin".into());
    places.into_iter().map(|p| p.join("nvcc")).find(|p| p.is_file()).ok_or_else(|| {
        "nvcc not found in CUDA_HOME, PATH and /usr/local/cuda: install a CUDA toolkit (13.0 or later), or run \
         `make cuda-toolkit` and build with `make build-cuda`"
            .into()
    })
}

fn chosen_targets() -> Result<Vec<&'static Target>, String> {
    let Ok(names) = env::var(ARCHS) else { return Ok(TARGETS.iter().collect()) };
    names
        .split([',', ' '])
        .filter(|name| !name.is_empty())
        .map(|name| {
            TARGETS.iter().find(|t| t.name == name).ok_or_else(|| {
                let known: Vec<_> = TARGETS.iter().map(|t| t.name).collect();
                format!("{ARCHS}: found `{name}`, expected some of {}", known.join(", "))
            })
        })
        .collect()
}

/// Runs the jobs on as many threads as cargo grants.
fn run_all(jobs: &[Job], nvcc: &Path, sources: &Sources) -> Result<(), String> {
    let threads = env::var("NUM_JOBS").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    let (queue, failures) = (Mutex::new(jobs.iter()), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(job) = { queue.lock().expect("no panic").next() } {
                    if let Err(message) = run(job, nvcc, sources) {
                        failures.lock().expect("no panic").push(message);
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().expect("no panic");
    if failures.is_empty() { Ok(()) } else { Err(failures.join("\n")) }
}

/// Compiles one image, unless one of the same inputs is there.
fn run(job: &Job, nvcc: &Path, sources: &Sources) -> Result<(), String> {
    let (stamp_file, report_file) = (job.image.with_extension("stamp"), job.image.with_extension("ptxas"));
    let stamp = stamp(job, nvcc, sources)?;
    if fs::read_to_string(&stamp_file).is_ok_and(|old| old == stamp) && job.image.exists() {
        return Ok(());
    }
    let output = Command::new(nvcc)
        .args(FLAGS)
        .args(job.target.arguments())
        .arg("-I")
        .arg(&sources.root)
        .arg("-o")
        .arg(&job.image)
        .arg(job.source)
        .output()
        .map_err(|e| format!("{}: {e}", nvcc.display()))?;
    let report =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        return Err(format!("{} for {}:\n{report}", job.source.display(), job.target.name));
    }
    fs::write(report_file, report).map_err(|e| e.to_string())?;
    fs::write(stamp_file, stamp).map_err(|e| e.to_string())
}

/// A hash over everything an image depends on.
fn stamp(job: &Job, nvcc: &Path, sources: &Sources) -> Result<String, String> {
    let mut hasher = DefaultHasher::new();
    (FLAGS, job.target.arguments(), nvcc).hash(&mut hasher);
    for file in sources.headers.iter().map(PathBuf::as_path).chain([job.source]) {
        fs::read(file).map_err(|e| format!("{}: {e}", file.display()))?.hash(&mut hasher);
    }
    Ok(format!("{:016x}", hasher.finish()))
}

fn list(jobs: &[Job]) -> String {
    let entries = jobs.iter().map(|job| {
        format!(
            "    Image {{ file: {:?}, target: Target::{}, bytes: include_bytes!({:?}), report: include_str!({:?}) }},\n",
            stem(job.source),
            job.target.rust,
            job.image,
            job.image.with_extension("ptxas"),
        )
    });
    format!("&[\n{}]\n", entries.collect::<String>())
}
