//! What a graph refers to and does not contain.

use std::path::{Component, Path, PathBuf};

use crate::table::ModelFolder;

/// The files that graphs can name.
pub trait Catalog {
    /// Model files of a folder, as `/object_info` lists them: relative, with forward slashes, sorted.
    fn models(&self, folder: ModelFolder) -> Vec<String>;

    /// Images in the input folder itself, sorted.
    fn input_images(&self) -> Vec<String>;

    /// Where an image is, if it is there.
    fn image_path(&self, name: &RootedName) -> Option<PathBuf>;

    /// Where a model file of the user's is; `None` also for a name that stands for a file inside of a model.
    fn model_path(&self, folder: ModelFolder, name: &str) -> Option<PathBuf>;

    /// The listed name that a graph means by `name`: itself; with backslashes, as Windows writes it; or the only one
    /// that has the same last part, or the one of those that lies in no subfolder.
    fn find_model(&self, folder: ModelFolder, name: &str) -> Option<String> {
        let models = self.models(folder);
        let name = name.replace('\\', "/");
        if models.contains(&name) {
            return Some(name);
        }
        let base = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
        let wanted = base(&name);
        let same: Vec<String> = models.into_iter().filter(|listed| base(listed) == wanted).collect();
        match same.as_slice() {
            [only] => Some(only.clone()),
            several => several.iter().find(|listed| **listed == wanted).cloned(),
        }
    }
}

/// ComfyUI's folders of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Root {
    /// What was uploaded.
    Input,
    /// What was made, to be kept.
    Output,
    /// What was made, until the next start.
    Temp,
}

impl Root {
    /// Its name, which is also ComfyUI's `type`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Output => "output",
            Self::Temp => "temp",
        }
    }
}

/// A file below one of the folders, as graphs name it: `girl.png`, `a/girl.png`, `girl.png [output]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RootedName {
    /// The folder.
    pub root: Root,
    /// Relative, with forward slashes, without `..`: it cannot lead out of the folder but through links.
    pub path: String,
}

impl RootedName {
    /// Reads a name. `None` if it is empty, absolute, or has parts that could lead elsewhere.
    pub fn parse(text: &str) -> Option<Self> {
        let suffixes = [(" [input]", Root::Input), (" [output]", Root::Output), (" [temp]", Root::Temp)];
        let suffix = suffixes.into_iter().find_map(|(suffix, root)| Some((text.strip_suffix(suffix)?, root)));
        let (path, root) = suffix.unwrap_or((text, Root::Input));
        let plain = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
        let safe = plain && !path.is_empty() && !path.contains(['\\', '\0']);
        safe.then(|| Self { root, path: path.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Names(&'static [&'static str]);

    impl Catalog for Names {
        fn models(&self, _: ModelFolder) -> Vec<String> {
            self.0.iter().map(ToString::to_string).collect()
        }
        fn input_images(&self) -> Vec<String> {
            Vec::new()
        }
        fn image_path(&self, _: &RootedName) -> Option<PathBuf> {
            None
        }
        fn model_path(&self, _: ModelFolder, _: &str) -> Option<PathBuf> {
            None
        }
    }

    #[test]
    fn models_are_found_by_the_names_that_workflows_give_them() {
        let names = Names(&["wan/vae.safetensors", "a/x.safetensors", "b/x.safetensors"]);
        let find = |name: &str| names.find_model(ModelFolder::Vae, name);
        for name in
            ["wan/vae.safetensors", "wan\\vae.safetensors", "vae.safetensors", "other\\vae.safetensors"]
        {
            assert_eq!(find(name).as_deref(), Some("wan/vae.safetensors"), "{name}");
        }
        assert_eq!(find("b\\x.safetensors").as_deref(), Some("b/x.safetensors"));
        assert_eq!(find("x.safetensors"), None);
        assert_eq!(find("../vae"), None);
        let names = Names(&["a/x.safetensors", "x.safetensors"]);
        assert_eq!(names.find_model(ModelFolder::Vae, "b\\x.safetensors").as_deref(), Some("x.safetensors"));
    }

    #[test]
    fn names_cannot_lead_out_of_their_folder() {
        let name = |text: &str| RootedName::parse(text).map(|n| (n.root, n.path));
        assert_eq!(name("a/b.png"), Some((Root::Input, "a/b.png".into())));
        assert_eq!(name("b.png [output]"), Some((Root::Output, "b.png".into())));
        for text in
            ["", "..", "../b.png", "a/../b.png", "/b.png", "a\\b.png", "b\0.png", " [input]", "./b.png"]
        {
            assert_eq!(name(text), None, "{text}");
        }
    }
}
