use wan_pipeline::PipelineError;

/// An error with the exit code it causes.
#[derive(Debug)]
pub struct Failure {
    /// One line for the user.
    pub message: String,
    /// 1: something went wrong; 2: the command makes no sense; 130: interrupted.
    pub code: u8,
}

/// Exit code of an error while running.
pub const RUN: u8 = 1;
/// Exit code of a usage error.
pub const USAGE: u8 = 2;
/// Exit code after Ctrl-C.
pub const INTERRUPTED: u8 = 130;

/// Result of a command.
pub type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    /// A usage error.
    pub fn usage(message: impl std::fmt::Display) -> Self {
        Self { message: message.to_string(), code: USAGE }
    }

    /// An error while running.
    pub fn run(message: impl std::fmt::Display) -> Self {
        Self { message: message.to_string(), code: RUN }
    }

    /// What the parser of the command line objects to, on one line: its message and tips, without the usage text.
    pub fn parse(error: &clap::Error) -> Self {
        let text = error.render().to_string();
        let said = text
            .split("\n\n")
            .map(|part| part.split_whitespace().collect::<Vec<_>>().join(" "))
            .filter(|part| !part.is_empty() && !part.starts_with("Usage:"))
            .map(|part| part.trim_end_matches('.').replace("For more information, try", "see"))
            .collect::<Vec<_>>()
            .join("; ");
        Self { message: said.trim_start_matches("error: ").into(), code: USAGE }
    }

    /// The message on one line, whatever a library put into it.
    pub fn line(&self) -> String {
        self.message.split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

impl From<PipelineError> for Failure {
    fn from(error: PipelineError) -> Self {
        let code = match &error {
            e if e.is_cancelled() => INTERRUPTED,
            e if e.is_usage() => USAGE,
            _ => RUN,
        };
        Self { message: error.to_string(), code }
    }
}

macro_rules! through_pipeline {
    ($($error:ty),+) => {
        $(impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                PipelineError::from(error).into()
            }
        })+
    };
}

through_pipeline!(
    wan_core::Error,
    wan_media::MediaError,
    wan_models::ModelsError,
    wan_sampler::SamplerError,
    candle_core::Error
);
