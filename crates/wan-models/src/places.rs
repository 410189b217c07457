//! Where model files are looked for.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::ModelsError;
use crate::description::FileEntry;
use crate::extra_paths::{ExtraFolders, KindFolder};
use crate::hub::HubCache;

/// How deep below a ComfyUI folder files are looked for; people sort their models into subfolders.
const MAX_DEPTH: usize = 4;

/// Ends of the names of files that workflows can name.
const WEIGHTS: [&str; 3] = [".safetensors", ".gguf", ".pth"];

/// Folders that mean the same to ComfyUI, in its order.
const ALIASES: &[&[&str]] = &[&["unet", "diffusion_models"], &["text_encoders", "clip"]];

/// Whether a file is one that workflows can name.
pub(crate) fn is_weights(name: &str) -> bool {
    WEIGHTS.iter().any(|end| name.ends_with(end))
}

/// Folders of models, ComfyUI's further folders, and the Hugging Face cache; looked through in this order.
#[derive(Debug, Clone, Default)]
pub struct Places {
    folders: Vec<PathBuf>,
    extra: ExtraFolders,
    cache: Option<HubCache>,
}

impl Places {
    /// One folder: flat (`FILE`), by model (`NAME/FILE`), by path in the repository, or ComfyUI's `models` folder.
    pub fn folder(folder: impl Into<PathBuf>) -> Self {
        Self { folders: vec![folder.into()], ..Self::default() }
    }

    /// Also the Hugging Face cache.
    pub fn with_cache(mut self, cache: HubCache) -> Self {
        self.cache = Some(cache);
        self
    }

    /// The Hugging Face cache, if it is looked through.
    pub fn cache(&self) -> Option<&HubCache> {
        self.cache.as_ref()
    }

    /// Also the folders that a ComfyUI `extra_model_paths.yaml` names. `variable` is the value of a variable of the
    /// environment, which paths may name; `HOME` is what `~` stands for.
    ///
    /// Errors: [`ModelsError::ExtraModelPaths`].
    pub fn with_extra_model_paths(
        mut self,
        file: &Path,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, ModelsError> {
        let error = |reason: String| ModelsError::ExtraModelPaths { path: file.to_path_buf(), reason };
        let text = std::fs::read_to_string(file).map_err(|e| error(e.to_string()))?;
        let folder = file.parent().unwrap_or(Path::new("."));
        let found = ExtraFolders::parse(&text, folder, variable).map_err(error)?;
        self.extra.before.splice(0..0, found.before);
        self.extra.behind.extend(found.behind);
        Ok(self)
    }

    /// The `extra_model_paths.yaml` of the ComfyUI whose models these folders are, if there is one: ComfyUI keeps it
    /// beside its `models` folder.
    pub fn comfyui_extra_model_paths(&self) -> Option<PathBuf> {
        const NAME: &str = "extra_model_paths.yaml";
        let near = self.folders.iter().flat_map(|f| [Some(f.join(NAME)), f.parent().map(|p| p.join(NAME))]);
        near.flatten().find(|p| p.is_file())
    }

    /// The places, for messages.
    pub fn describe(&self) -> String {
        let name = |folder: &PathBuf| match folder.is_dir() {
            true => folder.display().to_string(),
            false => format!("{} (no such folder)", folder.display()),
        };
        let mut names: Vec<String> = self.folders.iter().map(name).collect();
        let extra = self.extra.before.iter().chain(&self.extra.behind);
        names.extend(extra.map(|(_, folder)| name(folder)));
        names.dedup();
        names.extend(self.cache.as_ref().map(|c| format!("the Hugging Face cache {}", c.folder().display())));
        if names.is_empty() { "no folder".into() } else { names.join(", ") }
    }

    /// The weights of one of ComfyUI's kinds (`vae`, `loras`, ...) in the user's folders, as ComfyUI names them: path
    /// below the folder with forward slashes, and where it is. Of equal names the first in the places' order counts.
    pub fn list(&self, kind: &str) -> BTreeMap<String, PathBuf> {
        let mut found = BTreeMap::new();
        for folder in self.kind_folders(&aliases(kind)) {
            list(&folder, "", MAX_DEPTH, &mut found);
        }
        found
    }

    /// ComfyUI's folders of these kinds, in its order.
    fn kind_folders(&self, kinds: &[String]) -> Vec<PathBuf> {
        let of_kind = |list: &[KindFolder]| -> Vec<PathBuf> {
            list.iter().filter(|(kind, _)| kinds.contains(kind)).map(|(_, folder)| folder.clone()).collect()
        };
        let own = self.folders.iter().flat_map(|folder| kinds.iter().map(|kind| folder.join(kind)));
        of_kind(&self.extra.before).into_iter().chain(own).chain(of_kind(&self.extra.behind)).collect()
    }

    /// The first file with the right name and, where it is known, length; else the first in the user's folders with
    /// the right name, which may be a newer edition.
    pub(crate) fn find(&self, model: &str, entry: &FileEntry) -> Option<PathBuf> {
        let own: Vec<PathBuf> = self
            .candidates(model, entry)
            .into_iter()
            .filter(|p| p.is_file() && parts_beside(p, entry))
            .collect();
        let fits = |path: &&PathBuf| {
            let length = std::fs::metadata(path).map(|m| m.len()).ok();
            entry.bytes.is_none_or(|expected| length == Some(expected))
        };
        own.iter().find(fits).cloned().or_else(|| self.cached(entry)).or_else(|| own.into_iter().next())
    }

    /// The first file in the user's folders that is another precision of the same weights.
    pub(crate) fn find_other(&self, model: &str, entry: &FileEntry) -> Option<PathBuf> {
        let other = |name: &String| FileEntry {
            path: name.clone(),
            repo: None,
            bytes: None,
            sha256: None,
            parts: Vec::new(),
            ..entry.clone()
        };
        entry.also.iter().find_map(|name| self.find(model, &other(name)))
    }

    fn cached(&self, entry: &FileEntry) -> Option<PathBuf> {
        let cache = self.cache.as_ref()?;
        let files = entry.remote_files();
        let mut paths = files.iter().map(|f| cache.finished(f)).collect::<Option<Vec<_>>>()?.into_iter();
        let first = paths.next()?;
        // Shards must lie in the snapshot of their index.
        parts_beside(&first, entry).then_some(first)
    }

    /// Every path at which the user's folders may have the file.
    fn candidates(&self, model: &str, entry: &FileEntry) -> Vec<PathBuf> {
        let Some(name) = Path::new(&entry.path).file_name() else { return Vec::new() };
        let mut found = Vec::new();
        for folder in &self.folders {
            let own = folder.join(model);
            found.extend([
                own.join(name),
                own.join(&entry.path),
                folder.join(&entry.path),
                folder.join(name),
            ]);
        }
        let kinds: Vec<String> = entry.folder.iter().flat_map(|kind| aliases(kind)).collect();
        for folder in self.kind_folders(&kinds) {
            search(&folder, name.as_ref(), MAX_DEPTH, &mut found);
        }
        found
    }
}

fn parts_beside(index: &Path, entry: &FileEntry) -> bool {
    let folder = index.parent().unwrap_or(Path::new("."));
    entry.parts.iter().all(|part| {
        let name = Path::new(&part.path).file_name().unwrap_or_default();
        std::fs::metadata(folder.join(name)).is_ok_and(|m| part.bytes.is_none_or(|b| b == m.len()))
    })
}

fn aliases(kind: &str) -> Vec<String> {
    match ALIASES.iter().find(|names| names.contains(&kind)) {
        Some(names) => names.iter().map(|n| n.to_string()).collect(),
        None => vec![kind.to_string()],
    }
}

/// Weights in `folder` and below it, whose names begin with `prefix`.
fn list(folder: &Path, prefix: &str, depth: usize, found: &mut BTreeMap<String, PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let Ok(name) = entry.file_name().into_string() else { continue };
        let path = entry.path();
        if path.is_dir() && depth > 0 {
            list(&path, &format!("{prefix}{name}/"), depth - 1, found);
        } else if is_weights(&name) && path.is_file() {
            found.entry(format!("{prefix}{name}")).or_insert(path);
        }
    }
}

/// Files called `name` in `folder` and below it, nearest first.
fn search(folder: &Path, name: &Path, depth: usize, found: &mut Vec<PathBuf>) {
    let here = folder.join(name);
    if here.is_file() {
        found.push(here);
    }
    if depth == 0 {
        return;
    }
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut below: Vec<PathBuf> = entries.map(|e| e.path()).filter(|p| p.is_dir()).collect();
    below.sort();
    for folder in below {
        search(&folder, name, depth - 1, found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str, kind: &str, bytes: Option<u64>) -> FileEntry {
        FileEntry {
            path: path.into(),
            repo: Some("o/n".into()),
            folder: Some(kind.into()),
            bytes,
            sha256: None,
            also: Vec::new(),
            embedded: false,
            parts: Vec::new(),
        }
    }

    fn put(path: &Path, bytes: usize) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, vec![0; bytes]).unwrap();
    }

    #[test]
    fn extra_folders_and_old_folder_names_are_searched() {
        let dir = tempfile::tempdir().unwrap();
        let yaml = dir.path().join("extra_model_paths.yaml");
        std::fs::write(&yaml, "c:\n  base_path: big\n  unet: u\n").unwrap();
        let models = dir.path().join("models");
        let places = Places::folder(&models);
        assert_eq!(places.comfyui_extra_model_paths().as_ref(), Some(&yaml));
        let places = places.with_extra_model_paths(&yaml, &|_| None).unwrap();
        let dit = entry("a/dit.safetensors", "diffusion_models", None);
        assert_eq!(places.find("m", &dit), None);
        put(&dir.path().join("big/u/wan/2.1/dit.safetensors"), 3);
        assert_eq!(places.find("m", &dit), Some(dir.path().join("big/u/wan/2.1/dit.safetensors")));
        put(&models.join("unet/dit.safetensors"), 3);
        assert_eq!(places.find("m", &dit), Some(models.join("unet/dit.safetensors")));
        let names = |kind: &str| places.list(kind).into_keys().collect::<Vec<_>>();
        put(&models.join("unet/dit-Q4_K_M.gguf"), 3);
        put(&models.join("unet/notes.txt"), 3);
        assert_eq!(
            names("diffusion_models"),
            ["dit-Q4_K_M.gguf", "dit.safetensors", "wan/2.1/dit.safetensors"]
        );
        assert!(names("vae").is_empty());
        let error = Places::default().with_extra_model_paths(&models, &|_| None).unwrap_err().to_string();
        assert!(error.starts_with("extra model paths"), "{error}");
    }

    #[test]
    fn of_equal_names_comfyuis_first_wins() {
        let dir = tempfile::tempdir().unwrap();
        let yaml = dir.path().join("list.yaml");
        let text = "z:\n  diffusion_models: late1\na:\n  unet: late2\nd:\n  is_default: true\n  base_path: $B\n  unet: first\n";
        std::fs::write(&yaml, text).unwrap();
        let base = dir.path().display().to_string();
        let models = dir.path().join("models");
        let places = Places::folder(&models);
        let places =
            places.with_extra_model_paths(&yaml, &|name| (name == "B").then(|| base.clone())).unwrap();
        let dit = entry("a/dit.safetensors", "diffusion_models", None);
        for folder in ["late2", "late1", "models/diffusion_models", "models/unet", "first"] {
            let file = dir.path().join(folder).join("dit.safetensors");
            put(&file, 3);
            assert_eq!(places.find("m", &dit), Some(file.clone()));
            assert_eq!(places.list("diffusion_models")["dit.safetensors"], file);
        }
    }

    #[test]
    fn a_file_of_the_right_length_wins_over_one_that_only_has_the_name() {
        let dir = tempfile::tempdir().unwrap();
        let places = Places::folder(dir.path());
        let vae = entry("vae.safetensors", "vae", Some(7));
        put(&dir.path().join("vae.safetensors"), 3);
        assert_eq!(places.find("m", &vae), Some(dir.path().join("vae.safetensors")));
        put(&dir.path().join("vae/new/vae.safetensors"), 7);
        assert_eq!(places.find("m", &vae), Some(dir.path().join("vae/new/vae.safetensors")));
    }

    #[test]
    fn an_index_counts_only_with_all_its_shards() {
        let dir = tempfile::tempdir().unwrap();
        let places = Places::folder(dir.path());
        let mut dit = entry("m.index.json", "diffusion_models", None);
        let part = |path: &str| crate::FilePart { path: path.into(), bytes: Some(2), sha256: None };
        dit.parts = vec![part("m-1.safetensors"), part("m-2.safetensors")];
        put(&dir.path().join("m.index.json"), 1);
        put(&dir.path().join("m-1.safetensors"), 2);
        put(&dir.path().join("m-2.safetensors"), 1);
        assert_eq!(places.find("m", &dit), None);
        put(&dir.path().join("m-2.safetensors"), 2);
        assert_eq!(places.find("m", &dit), Some(dir.path().join("m.index.json")));
    }
}
