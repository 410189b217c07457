//! Damaged and hostile descriptions, and lists of ComfyUI's folders: a result or an error that names the file, no
//! panic, and no more memory than the file's own length warrants.
//!
//! The one test of its binary, because the allocator counts all threads together.

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use wan_core::testkit::{PeakMemory, repo_path};
use wan_models::{Places, Registry};

#[global_allocator]
static MEMORY: PeakMemory = PeakMemory::new();

/// Memory that any file may take, and per byte of its length: parsed text is maps of strings.
const FIXED: usize = 1 << 20;
const PER_BYTE: usize = 400;

struct Kind {
    folder: &'static str,
    extension: &'static str,
    good: String,
    load: fn(&Path) -> Result<(), String>,
}

fn describe(path: &Path) -> Result<(), String> {
    let registry = Registry::builtin().map_err(|e| e.to_string())?;
    registry.find_any(path.to_str().unwrap()).map(drop).map_err(|e| e.to_string())
}

fn list(path: &Path) -> Result<(), String> {
    Places::folder(path.parent().unwrap())
        .with_extra_model_paths(path, &|_| None)
        .map(drop)
        .map_err(|e| e.to_string())
}

#[test]
fn hostile_descriptions_and_folder_lists_do_no_harm() {
    let scratch = tempfile::tempdir().unwrap();
    let description = std::fs::read_to_string(repo_path("models/wan2.1-i2v-14b-480p-f32.toml")).unwrap();
    let yaml =
        "comfyui:\n  base_path: /somewhere\n  vae: models/vae\n  loras: |\n    models/loras\n    more\n";
    let kinds = [
        Kind { folder: "description", extension: "toml", good: description, load: describe },
        Kind { folder: "extra_model_paths", extension: "yaml", good: yaml.into(), load: list },
    ];
    for kind in &kinds {
        let path = scratch.path().join("file").with_extension(kind.extension);
        assert_eq!(kind.checked(&path, kind.good.as_bytes()), Ok(()));
        for kept in kind.kept() {
            let error = kind.checked(&path, &std::fs::read(&kept).unwrap());
            let error = error.expect_err(&format!("{} loads", kept.display()));
            println!("{}: {error}", kept.file_name().unwrap().display());
        }
        kind.fuzz(&path);
    }
}

impl Kind {
    fn checked(&self, path: &Path, bytes: &[u8]) -> Result<(), String> {
        std::fs::write(path, bytes).unwrap();
        let (peak, loaded) = MEMORY.of(|| (self.load)(path));
        assert!(peak <= FIXED + PER_BYTE * bytes.len(), "{peak} bytes of memory for {}", bytes.len());
        if let Err(error) = &loaded {
            assert!(error.contains(path.to_str().unwrap()), "{error}");
        }
        loaded
    }

    /// The corpus, all of which must be refused.
    fn kept(&self) -> Vec<PathBuf> {
        let folder = repo_path("crates/wan-models/tests/corpus").join(self.folder);
        let mut kept: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|e| e.unwrap().path()).collect();
        kept.sort();
        assert!(kept.len() >= 3, "{} files in {}", kept.len(), folder.display());
        kept
    }

    fn fuzz(&self, path: &Path) {
        let edits = proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6);
        let cut = proptest::option::of(any::<prop::sample::Index>());
        let config = Config { cases: 200, failure_persistence: None, ..Config::default() };
        let run = TestRunner::new(config).run(&(edits, cut), |(edits, cut)| {
            let mut bytes = self.good.clone().into_bytes();
            for (at, value) in edits {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            bytes.truncate(cut.map_or(bytes.len(), |at| at.index(bytes.len())));
            let _ = self.checked(path, &bytes);
            Ok(())
        });
        run.unwrap_or_else(|e| panic!("{}: {e}", self.folder));
    }
}
