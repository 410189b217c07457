use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::{env, fs};

/// Where they are, from the crate.
pub const FOLDER: &str = "../../kernels";

/// The kernels' sources.
pub struct Sources {
    /// The folder `kernels`.
    pub root: PathBuf,
    /// Every `.cu` file in it, sorted.
    pub files: Vec<PathBuf>,
    /// Every header below it, sorted.
    pub headers: Vec<PathBuf>,
    /// Everything below it, folders included, sorted.
    pub all: Vec<PathBuf>,
}

impl Sources {
    pub fn find() -> Self {
        let crate_root =
            PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR"));
        let root = crate_root.join(FOLDER).canonicalize().expect("the folder kernels of the repository");
        let mut all = vec![root.clone()];
        collect(&root, &mut all);
        all.sort();
        let with = |extensions: &[&str]| {
            let is = |p: &&PathBuf| {
                p.extension().and_then(|e| e.to_str()).is_some_and(|e| extensions.contains(&e))
            };
            all.iter().filter(is).cloned().collect::<Vec<_>>()
        };
        let files = with(&["cu"]).into_iter().filter(|p| p.parent() == Some(&root)).collect();
        Self { files, headers: with(&["cuh", "h"]), root, all }
    }

    /// A hash over the names and contents of all files, as sixteen hexadecimal digits.
    pub fn digest(&self) -> String {
        let mut hasher = DefaultHasher::new();
        for file in self.all.iter().filter(|p| p.is_file()) {
            file.strip_prefix(&self.root).expect("below the root").hash(&mut hasher);
            fs::read(file).unwrap_or_else(|e| panic!("{}: {e}", file.display())).hash(&mut hasher);
        }
        format!("{:016x}", hasher.finish())
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

fn collect(folder: &Path, into: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    for entry in entries {
        let path = entry.expect("a readable folder").path();
        if path.is_dir() {
            collect(&path, into);
        }
        into.push(path);
    }
}
