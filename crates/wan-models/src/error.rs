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
        "model {model}: {} not found; looked in {} (get {}; put them into a folder and name it with --models-dir, \
         or try the embedded demonstration with --model tiny)",
        missing.join(", "), folder.display(), sources.join(", ")
    )]
    FilesMissing {
        /// The model.
        model: String,
        /// Files that are missing.
        missing: Vec<String>,
        /// Folder looked in.
        folder: PathBuf,
        /// Repositories to get them from.
        sources: Vec<String>,
    },
}

fn did_you_mean(nearest: &Option<String>) -> String {
    nearest.as_ref().map(|n| format!(" (did you mean `{n}`?)")).unwrap_or_default()
}
