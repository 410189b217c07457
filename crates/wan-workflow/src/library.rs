//! A catalog over folders, and the model that names in it stand for.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use wan_models::{ModelFiles, Places, Registry, Source};

use crate::catalog::{Catalog, Root, RootedName};
use crate::job::{ModelChoice, ModelFile};
use crate::table::ModelFolder;

/// Names that published workflows give the files of Wan2.1 image-to-video: the guide's, and those
/// of the examples of the Wrapper and of ComfyUI. A model's description has further ones of its own.
const PUBLISHED: &[(ModelFolder, &str)] = &[
    (ModelFolder::DiffusionModels, "Wan2_1-I2V-14B-480P_fp8_e4m3fn.safetensors"),
    (ModelFolder::DiffusionModels, "wan2.1_i2v_480p_14B_fp16.safetensors"),
    (ModelFolder::Vae, "wan2.1/Wan2_1_VAE_bf16.safetensors"),
    (ModelFolder::Vae, "wan_2.1_vae.safetensors"),
    (ModelFolder::TextEncoders, "wan2.1/umt5-xxl-enc-bf16.safetensors"),
    (ModelFolder::TextEncoders, "umt5_xxl_fp8_e4m3fn_scaled.safetensors"),
    (ModelFolder::ClipVision, "wan2.1/open-clip-xlm-roberta-large-vit-huge-14_visual_fp16.safetensors"),
    (ModelFolder::ClipVision, "open-clip-xlm-roberta-large-vit-huge-14_fp16.safetensors"),
    (ModelFolder::ClipVision, "clip_vision_h.safetensors"),
];

/// Where a library looks.
#[derive(Debug, Clone)]
pub struct Library {
    places: Places,
    /// Files of known models, also those that are in none of ComfyUI's folders.
    known: BTreeMap<(ModelFolder, String), PathBuf>,
    roots: [(Root, PathBuf); 3],
    model: ModelFiles,
    aliases: BTreeMap<(ModelFolder, String), Source>,
}

impl Library {
    /// The model files in `places`, those of `registry` under their own names wherever they are, and the images in
    /// `roots`. Names that published workflows use and that are no such files stand for the files of `model`.
    pub fn new(places: Places, registry: &Registry, model: ModelFiles, roots: [(Root, PathBuf); 3]) -> Self {
        let known = ModelFolder::ALL.into_iter().flat_map(|folder| {
            let files = registry.list(folder.name(), &places);
            files.into_iter().map(move |(name, path)| ((folder, name), path))
        });
        let known = known.collect();
        let mut library = Self { places, known, roots, aliases: BTreeMap::new(), model };
        library.aliases = library.published().collect();
        library
    }

    fn published(&self) -> impl Iterator<Item = ((ModelFolder, String), Source)> {
        let own =
            ModelFolder::ALL.into_iter().filter_map(|folder| Some((folder, self.component(folder)?.name())));
        let files = &self.model.description.files;
        let described =
            [(ModelFolder::DiffusionModels, &files.dit), (ModelFolder::TextEncoders, &files.text_encoder)];
        let described = described.into_iter().filter(|(_, entry)| !entry.embedded);
        let described =
            described.flat_map(|(folder, entry)| entry.names().map(move |n| (folder, n.to_owned())));
        let names = PUBLISHED.iter().map(|(folder, name)| (*folder, (*name).to_owned()));
        let names = names.chain(own).chain(described);
        let named = names.filter_map(|(folder, name)| {
            let source = self.component(folder)?.clone();
            self.model_path(folder, &name).is_none().then_some(((folder, name), source))
        });
        named.collect::<Vec<_>>().into_iter()
    }

    fn component(&self, folder: ModelFolder) -> Option<&Source> {
        match folder {
            ModelFolder::DiffusionModels => Some(&self.model.dit),
            ModelFolder::Vae => Some(&self.model.vae),
            ModelFolder::TextEncoders => Some(&self.model.text_encoder),
            ModelFolder::ClipVision => self.model.image_encoder.as_ref(),
            ModelFolder::Loras => None,
        }
    }

    /// The names that stand for files of the model, for the log.
    pub fn aliases(&self) -> impl Iterator<Item = (ModelFolder, &str)> {
        self.aliases.keys().map(|(folder, name)| (*folder, name.as_str()))
    }

    /// The files that a job's names stand for; description, tokenizer and preview colours are those of the model.
    ///
    /// Errors: a name that is gone from its folder since the job was accepted.
    pub fn files(&self, choice: &ModelChoice) -> Result<ModelFiles, String> {
        let source = |file: &ModelFile| {
            let alias = self.aliases.get(&(file.folder, file.name.clone())).cloned();
            alias.or_else(|| self.model_path(file.folder, &file.name).map(Source::File)).ok_or_else(|| {
                format!(
                    "{}: found no such file in {}, expected one of its files",
                    file.name,
                    file.folder.name()
                )
            })
        };
        Ok(ModelFiles {
            dit: source(&choice.dit)?,
            vae: source(&choice.vae)?,
            text_encoder: source(&choice.text_encoder)?,
            image_encoder: match &choice.image_encoder {
                Some(file) => Some(source(file)?),
                None => self.model.image_encoder.clone(),
            },
            ..self.model.clone()
        })
    }

    fn root(&self, root: Root) -> &Path {
        self.roots.iter().find(|(of, _)| *of == root).map_or(Path::new(""), |(_, path)| path)
    }
}

impl Catalog for Library {
    fn models(&self, folder: ModelFolder) -> Vec<String> {
        let mut names: Vec<String> = self.places.list(folder.name()).into_keys().collect();
        let others = self.known.keys().chain(self.aliases.keys());
        names.extend(others.filter(|(of, _)| *of == folder).map(|(_, name)| name.clone()));
        names.sort();
        names.dedup();
        names
    }

    fn input_images(&self) -> Vec<String> {
        const EXTENSIONS: [&str; 8] = ["png", "jpg", "jpeg", "webp", "gif", "bmp", "tif", "tiff"];
        let entries = std::fs::read_dir(self.root(Root::Input)).into_iter().flatten().flatten();
        let files = entries.filter(|e| e.file_type().is_ok_and(|kind| kind.is_file()));
        let names = files.filter_map(|e| e.file_name().into_string().ok());
        let is_image = |name: &String| {
            let extension = name.rsplit_once('.').map(|(_, e)| e.to_lowercase());
            extension.is_some_and(|e| EXTENSIONS.contains(&e.as_str())) && !name.starts_with('.')
        };
        let mut names: Vec<String> = names.filter(is_image).collect();
        names.sort();
        names
    }

    fn image_path(&self, name: &RootedName) -> Option<PathBuf> {
        below(self.root(name.root), &name.path)
    }

    fn model_path(&self, folder: ModelFolder, name: &str) -> Option<PathBuf> {
        let listed = self.places.list(folder.name()).remove(name);
        listed.or_else(|| self.known.get(&(folder, name.to_owned())).cloned())
    }
}

/// A file below `root`, unless links lead out of it.
fn below(root: &Path, path: &str) -> Option<PathBuf> {
    let found = root.join(path);
    if !found.is_file() {
        return None;
    }
    found.canonicalize().ok()?.starts_with(root.canonicalize().ok()?).then_some(found)
}

#[cfg(test)]
mod tests {
    use wan_models::hub::HubCache;

    use super::*;

    #[test]
    fn names_of_published_workflows_stand_for_the_model_that_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let put = |path: &str| {
            std::fs::create_dir_all(dir.path().join(path).parent().unwrap()).unwrap();
            std::fs::write(dir.path().join(path), b"x").unwrap();
        };
        put("models/vae/wan2.1/Wan2_1_VAE_bf16.safetensors");
        put("models/loras/x.safetensors");
        put("input/b.png");
        put("input/a.JPG");
        put("input/c.txt");
        let registry = Registry::builtin().unwrap();
        let tiny = registry.resolve(&registry.find("tiny").unwrap(), &Places::default()).unwrap();
        let at = |name: &str| dir.path().join(name);
        put("extra/vaes/mine.safetensors");
        put("extra_model_paths.yaml");
        std::fs::write(at("extra_model_paths.yaml"), "other:\n  base_path: extra\n  vae: vaes\n").unwrap();
        let repo = "hub/models--Kijai--WanVideo_comfy/snapshots/1";
        let encoder = "open-clip-xlm-roberta-large-vit-huge-14_visual_fp16.safetensors";
        put(&format!("{repo}/{encoder}"));
        // A file of another length than the description's is none.
        let whole = std::fs::OpenOptions::new().write(true).open(at(repo).join(encoder)).unwrap();
        whole.set_len(1_264_195_610).unwrap();
        let places = Places::folder(at("models")).with_cache(HubCache::new(at("hub")));
        let places = places.with_extra_model_paths(&at("extra_model_paths.yaml"), &|_| None).unwrap();
        let roots = [(Root::Input, at("input")), (Root::Output, at("output")), (Root::Temp, at("temp"))];
        let described = ModelFiles { description: registry.find("wan2.1-t2v-1.3b").unwrap(), ..tiny.clone() };
        let other = "Wan2_1-T2V-1_3B_fp32.safetensors";
        let names = |model| {
            let library = Library::new(places.clone(), &registry, model, roots.clone());
            library.aliases().any(|(_, name)| name == other)
        };
        assert!(names(described) && !names(tiny.clone()), "its other precisions are names of the model");
        let library = Library::new(places, &registry, tiny, roots);
        assert_eq!(
            library.model_path(ModelFolder::Vae, "mine.safetensors"),
            Some(at("extra/vaes/mine.safetensors"))
        );
        assert_eq!(library.model_path(ModelFolder::ClipVision, encoder), Some(at(repo).join(encoder)));
        assert!(library.models(ModelFolder::Vae).contains(&"mine.safetensors".to_owned()));
        assert_eq!(library.input_images(), ["a.JPG", "b.png"]);
        let dit = "Wan2_1-I2V-14B-480P_fp8_e4m3fn.safetensors";
        assert!(library.models(ModelFolder::DiffusionModels).iter().any(|name| name == dit));
        assert!(library.aliases().any(|(_, name)| name == dit));
        assert!(!library.aliases().any(|(_, name)| name.ends_with("Wan2_1_VAE_bf16.safetensors")));
        let file = |folder, name: &str| ModelFile { folder, name: name.into() };
        let mut choice = ModelChoice {
            dit: file(ModelFolder::DiffusionModels, dit),
            vae: file(ModelFolder::Vae, "wan2.1/Wan2_1_VAE_bf16.safetensors"),
            text_encoder: file(ModelFolder::TextEncoders, "wan2.1/umt5-xxl-enc-bf16.safetensors"),
            image_encoder: None,
        };
        let files = library.files(&choice).unwrap();
        assert!(matches!(files.dit, Source::Embedded { .. }) && matches!(files.vae, Source::File(_)));
        assert!(library.model_path(ModelFolder::Loras, "x.safetensors").is_some());
        assert!(
            library.model_path(ModelFolder::Loras, "../vae/wan2.1/Wan2_1_VAE_bf16.safetensors").is_none()
        );
        choice.vae.name = "gone.safetensors".into();
        assert!(library.files(&choice).unwrap_err().contains("gone.safetensors"));
    }
}
