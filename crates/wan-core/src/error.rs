use std::path::{Path, PathBuf};

/// Result of the engine's library crates.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong below the pipeline. Messages are one lower-case line that names the thing, what was
/// found and what was expected.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A tensor has another shape than the computation needs.
    #[error("{what}: found shape {found:?}, expected {expected}")]
    Shape {
        /// The tensor or argument.
        what: String,
        /// Its shape.
        found: Vec<usize>,
        /// The shape it must have, with axis letters or numbers.
        expected: String,
    },
    /// A value is outside its allowed range.
    #[error("{what}: found {found}, expected {expected}")]
    Invalid {
        /// The value's name.
        what: String,
        /// The value.
        found: String,
        /// What is allowed.
        expected: String,
    },
    /// A weights file cannot be used.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A computation produced NaN or infinity.
    #[error("{stage}: {count} of {total} values are NaN or infinite")]
    NonFinite {
        /// Stage and step, such as `denoise step 3`.
        stage: String,
        /// Number of bad values.
        count: usize,
        /// Number of values looked at.
        total: usize,
    },
    /// The requested device cannot be used.
    #[error("device {device}: {reason}")]
    Device {
        /// The device as asked for.
        device: String,
        /// Why not, and what to do.
        reason: String,
    },
    /// The caller asked to stop.
    #[error("cancelled")]
    Cancelled,
    /// The device has no memory left for what was to be computed. Its state is sound: less may be tried.
    #[error("out of memory on the device: {}", without_backtrace(.0))]
    OutOfMemory(#[source] candle_core::Error),
    /// Another error of the tensor library.
    #[error("tensor operation: {}", without_backtrace(.0))]
    Tensor(#[source] candle_core::Error),
}

impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Self {
        if out_of_memory(&error) { Self::OutOfMemory(error) } else { Self::Tensor(error) }
    }
}

impl From<Error> for candle_core::Error {
    /// What came from candle is that again, so that it is still known for what it is.
    fn from(error: Error) -> Self {
        match error {
            Error::OutOfMemory(error) | Error::Tensor(error) => error,
            other => Self::wrap(other),
        }
    }
}

/// Whether the driver or a library of the GPU says that its memory is used up. Main memory is the allocator's matter.
fn out_of_memory(error: &candle_core::Error) -> bool {
    use candle_core::Error as Candle;
    match error {
        Candle::Context { inner, .. }
        | Candle::WithPath { inner, .. }
        | Candle::WithBacktrace { inner, .. } => out_of_memory(inner),
        #[cfg(feature = "cuda")]
        Candle::Cuda(error) => crate::device::out_of_memory(error.as_ref()),
        #[cfg(feature = "cuda")]
        Candle::WrappedContext { wrapped, .. } => crate::device::out_of_memory(wrapped.as_ref()),
        _ => false,
    }
}

impl Error {
    /// A shape error; `expected` may hold axis letters.
    pub fn shape(what: impl Into<String>, found: &[usize], expected: impl Into<String>) -> Self {
        Self::Shape { what: what.into(), found: found.to_vec(), expected: expected.into() }
    }

    /// A range error.
    pub fn invalid(
        what: impl Into<String>,
        found: impl std::fmt::Display,
        expected: impl Into<String>,
    ) -> Self {
        Self::Invalid { what: what.into(), found: found.to_string(), expected: expected.into() }
    }

    /// An input/output error on `path`.
    pub fn io(path: &Path, source: std::io::Error) -> Self {
        Self::Io { path: path.to_path_buf(), source }
    }
}

/// The message of a tensor error, which is followed by a backtrace where `RUST_BACKTRACE` is set.
fn without_backtrace(error: &candle_core::Error) -> String {
    let text = error.to_string();
    let end = text.find("\n   0: ").unwrap_or(text.len());
    text[..end].trim_end().to_string()
}

/// Why a weights file cannot be used. `label` is the file as the user named it.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The file is not whole, or not a weights file.
    #[error("{label}: {reason}")]
    Format {
        /// The file.
        label: String,
        /// What is wrong with it.
        reason: String,
    },
    /// None of the component's known namings fits.
    #[error("{label}: not a {component} in a known naming: found {found}, expected {expected}")]
    UnknownNaming {
        /// The file.
        label: String,
        /// What it should have been.
        component: String,
        /// The first names in it.
        found: String,
        /// The names looked for.
        expected: String,
    },
    /// Tensors are missing, unexpected or of another shape. All are gathered before this is raised.
    #[error("{label}: {}", describe(missing, unexpected, misshapen))]
    Tensors {
        /// The file.
        label: String,
        /// Names the model needs and the file lacks.
        missing: Vec<String>,
        /// Names in the file that the model has no place for.
        unexpected: Vec<String>,
        /// `(name, found, expected)` shapes.
        misshapen: Vec<(String, Vec<usize>, Vec<usize>)>,
    },
    /// A tensor is stored in a dtype that the engine cannot compute with.
    #[error("{label}: tensor {name} has dtype {found}, expected {expected}")]
    Dtype {
        /// The file.
        label: String,
        /// The tensor.
        name: String,
        /// Its dtype.
        found: String,
        /// What is allowed.
        expected: String,
    },
}

/// Lists the first ten of each kind, and how many there are.
fn describe(
    missing: &[String],
    unexpected: &[String],
    misshapen: &[(String, Vec<usize>, Vec<usize>)],
) -> String {
    const SHOWN: usize = 10;
    let list = |kind: &str, items: Vec<String>| {
        let more = items.len().saturating_sub(SHOWN);
        let shown = items.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
        let tail = if more > 0 { format!(" and {more} more") } else { String::new() };
        (!items.is_empty()).then(|| format!("{} {kind}: {shown}{tail}", items.len()))
    };
    [
        list("missing", missing.to_vec()),
        list("unexpected", unexpected.to_vec()),
        list(
            "misshapen",
            misshapen.iter().map(|(n, f, e)| format!("{n} (found {f:?}, expected {e:?})")).collect(),
        ),
    ]
    .into_iter()
    .flatten()
    .collect::<Vec<_>>()
    .join("; ")
}
