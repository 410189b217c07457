//! Compiles kernels/*.cu: to GPU images under feature `cuda`, for the host under feature `shim`.

mod nvcc;
mod shim;
mod sources;

use std::env;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

fn main() -> ExitCode {
    let sources = sources::Sources::find();
    println!("cargo:rerun-if-changed=build");
    // Each by name, and the folders for files that appear. Relative: checkouts that share a target folder share what is
    // written here as well, and each is to look at its own files.
    for path in &sources.all {
        let below = path.strip_prefix(&sources.root).expect("below the root");
        println!("cargo:rerun-if-changed={}", Path::new(sources::FOLDER).join(below).display());
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    if env::var_os("CARGO_FEATURE_SHIM").is_some() {
        shim::compile(&sources);
    }
    println!("cargo:rustc-env=WAN_RUN_KERNELS_DIGEST={}", sources.digest());
    if env::var_os("CARGO_FEATURE_CUDA").is_some()
        && let Err(message) = nvcc::compile(&sources, &out)
    {
        eprintln!("{message}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
