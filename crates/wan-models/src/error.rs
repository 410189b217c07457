use std::path::PathBuf;

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
    #[error(
        "model {model}: {} not found; looked in {places}; fetch what is missing with `wan-run models pull {pull}`, \
         name the folder that has it with --models-dir, or try the embedded demonstration with --model tiny",
        missing.join(", ")
    )]
    FilesMissing {
        /// The model.
        model: String,
        /// What `models pull` takes for it: its name, or the file that describes it.
        pull: String,
        /// Files that are missing.
        missing: Vec<String>,
        /// Where was looked.
        places: String,
    },
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

fn did_you_mean(nearest: &Option<String>) -> String {
    nearest.as_ref().map(|n| format!(" (did you mean `{n}`?)")).unwrap_or_default()
}
