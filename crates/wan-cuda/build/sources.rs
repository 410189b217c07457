use std::path::{Path, PathBuf};
use std::{env, fs};

/// The kernels' sources.
pub struct Sources {
    /// The folder `kernels`.
    pub root: PathBuf,
    /// Every `.cu` file in it, sorted.
    pub files: Vec<PathBuf>,
    /// Every header below it, sorted.
    pub headers: Vec<PathBuf>,
}

impl Sources {
    pub fn find() -> Self {
        let crate_root =
            PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR"));
        let root =
            crate_root.join("../../kernels").canonicalize().expect("the folder kernels of the repository");
        let files = with_extension(&root, &["cu"]);
        let folders = ["", "common", "shim"].map(|f| root.join(f));
        let mut headers: Vec<_> = folders.iter().flat_map(|f| with_extension(f, &["cuh", "h"])).collect();
        headers.sort();
        Self { root, files, headers }
    }
}

/// Whether a file is for compute capability 9.0 alone.
pub fn is_hopper_only(file: &Path) -> bool {
    stem(file).ends_with("_sm90")
}

/// A file's name without its extension.
pub fn stem(file: &Path) -> &str {
    file.file_stem().and_then(|s| s.to_str()).expect("kernel files have plain names")
}

fn with_extension(folder: &Path, extensions: &[&str]) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.expect("a readable folder").path())
        .filter(|p| p.extension().and_then(|e| e.to_str()).is_some_and(|e| extensions.contains(&e)))
        .collect();
    files.sort();
    files
}
