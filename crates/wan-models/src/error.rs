use std::path::PathBuf;

use crate::KnownSize;

/// Why a model cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ModelsError {
    /// No model of this name is described.
    #[error("unknown model `{name}`{}; known: {}", did_you_mean(nearest), known.join(", "))]
    Unknown {
        /// The name as asked for.
        name: String,
        /// The closest known name, if any is close.
        nearest: Option<String>,
        /// All known names.
        known: Vec<String>,
    },
    /// A description file cannot be read.
    #[error("model description {label}: {reason}")]
    Description {
        /// The file.
        label: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Files of a model are not where the registry looks.
    #[error(transparent)]
    FilesMissing(Box<FilesMissing>),
    /// ComfyUI's `extra_model_paths.yaml` cannot be read.
    #[error("extra model paths {}: {reason}", path.display())]
    ExtraModelPaths {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Files cannot be fetched.
    #[error(transparent)]
    Hub(#[from] crate::hub::HubError),
}

/// Files of a model or LoRA that are missing.
#[derive(Debug, thiserror::Error)]
#[error(
    "{kind} {model}: {} missing ({size}): run `wan-run models pull {pull}`, or use --models-dir{}; \
     looked in {places}; missing: {}",
    count(missing.len(), *total),
    if *kind == "model" { " or --model tiny" } else { "" },
    missing.join(", ")
)]
pub struct FilesMissing {
    /// What it is: `model` or `LoRA`.
    pub kind: &'static str,
    /// Its name.
    pub model: String,
    /// What `models pull` takes for it: its name, or the file that describes it.
    pub pull: String,
    /// Files that are missing.
    pub missing: Vec<String>,
    /// How many files it has.
    pub total: usize,
    /// Length of those that are missing.
    pub size: KnownSize,
    /// Where was looked.
    pub places: String,
}

impl ModelsError {
    /// What was found, without what to do about it.
    pub fn finding(&self) -> String {
        match self {
            Self::FilesMissing(error) => {
                let FilesMissing { model, missing, total, size, places, .. } = error.as_ref();
                let count = count(missing.len(), *total);
                let missing = missing.join(", ");
                format!("{model}: {count} missing ({size}); looked in {places}; missing: {missing}")
            }
            error => error.to_string(),
        }
    }
}

fn count(missing: usize, total: usize) -> String {
    match (missing, total) {
        (1, 1) => "its file is".into(),
        (1, _) => format!("1 of {total} files is"),
        _ => format!("{missing} of {total} files are"),
    }
}

fn did_you_mean(nearest: &Option<String>) -> String {
    nearest.as_ref().map(|n| format!(" (did you mean `{n}`?)")).unwrap_or_default()
}
