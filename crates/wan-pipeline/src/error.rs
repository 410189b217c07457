use std::borrow::Cow;

use wan_core::Error;
use wan_core::progress::Stage;

/// Result of the pipeline.
pub type Result<T, E = PipelineError> = std::result::Result<T, E>;

/// Why a job cannot run, or did not end.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// The request itself makes no sense; nothing was started.
    #[error("{field}: found {found}, expected {expected}")]
    Request {
        /// The request's field, as the command line calls it.
        field: Cow<'static, str>,
        /// Its value.
        found: String,
        /// What is allowed.
        expected: String,
    },
    /// A resume file does not hold what it should.
    #[error("{label}: not a usable resume file: {reason}")]
    Resume {
        /// The file.
        label: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The job takes more memory than there is; nothing was loaded.
    #[error("not enough memory: {shortage}; {}", what_fits(advice))]
    Memory {
        /// Each stage that is too large, with what it needs and what there is.
        shortage: String,
        /// The nearest settings that fit: parts of a command line, any of which will do.
        advice: Vec<String>,
    },
    /// The GPU's memory ran out in the middle of a job, however it was used.
    #[error(
        "{what}: the GPU's memory ran out with {swapped} of {blocks} blocks in main memory ({source}); \
         close what else uses the GPU, or make a smaller or shorter video"
    )]
    DeviceMemory {
        /// What was being computed.
        what: String,
        /// Blocks of the DiT in main memory.
        swapped: usize,
        /// Blocks of the DiT.
        blocks: usize,
        /// The allocation that failed.
        source: Box<Error>,
    },
    /// The GPU's memory ran out in a stage that has no blocks to swap.
    #[error(
        "{stage}: the GPU's memory ran out ({source}); close what else uses the GPU, or make a smaller or shorter video"
    )]
    StageMemory {
        /// The stage's name.
        stage: &'static str,
        /// The allocation that failed.
        source: Box<Error>,
    },
    /// Weights, configuration or computation.
    #[error(transparent)]
    Core(#[from] Error),
    /// Model description or files.
    #[error(transparent)]
    Models(#[from] wan_models::ModelsError),
    /// Schedule or solver.
    #[error(transparent)]
    Sampler(#[from] wan_sampler::SamplerError),
    /// Tokenizer.
    #[error(transparent)]
    Tokenizer(#[from] wan_umt5::tokenizer::TokenizerError),
    /// Image or video.
    #[error(transparent)]
    Media(#[from] wan_media::MediaError),
}

impl PipelineError {
    /// A request error.
    pub fn request(field: &'static str, found: impl std::fmt::Display, expected: impl Into<String>) -> Self {
        Self::Request { field: field.into(), found: found.to_string(), expected: expected.into() }
    }

    /// Whether the request was at fault, as against something that went wrong while it ran.
    pub fn is_usage(&self) -> bool {
        match self {
            Self::Request { .. } => true,
            Self::Media(e) => e.is_usage(),
            Self::Models(e) => {
                use wan_models::ModelsError::{Description, Unknown};
                matches!(e, Unknown { .. } | Description { .. })
            }
            Self::Sampler(e) => e.is_usage(),
            _ => false,
        }
    }

    /// Of an error that leaves the caller to say what was being computed when memory ran out: says it.
    pub(crate) fn during(self, stage: Stage) -> Self {
        match self {
            Self::Core(source @ Error::OutOfMemory(_)) => {
                Self::StageMemory { stage: stage.name(), source: Box::new(source) }
            }
            other => other,
        }
    }

    /// Whether a device had no memory left for what was to be computed.
    pub fn is_out_of_memory(&self) -> bool {
        matches!(self, Self::Core(Error::OutOfMemory(_)))
    }

    /// Whether the job ended because the caller asked for it.
    pub fn is_cancelled(&self) -> bool {
        matches!(self, Self::Core(Error::Cancelled))
    }
}

impl From<candle_core::Error> for PipelineError {
    fn from(error: candle_core::Error) -> Self {
        Self::Core(error.into())
    }
}

/// Settings that fit, any of which will do, as the end of a sentence.
pub fn what_fits(advice: &[String]) -> String {
    match advice {
        [] => "no smaller size or number of frames fits either".to_string(),
        settings => format!("what fits: {}", settings.join(", or ")),
    }
}
