use std::error::Error;
use std::num::{IntErrorKind, ParseFloatError, ParseIntError};
use std::path::Path;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use wan_media::MediaError;
use wan_pipeline::PipelineError;

/// An error with the exit code it causes.
#[derive(Debug)]
pub struct Failure {
    /// One line for the user.
    pub message: String,
    /// 1: something went wrong; 2: the command makes no sense; 130: interrupted.
    pub code: u8,
    /// Whether a resume file has what was done, and the message names it.
    pub kept: bool,
}

/// Exit code of an error while running.
pub const RUN: u8 = 1;
/// Exit code of a usage error.
pub const USAGE: u8 = 2;
/// Exit code after Ctrl-C.
pub const INTERRUPTED: u8 = 130;

/// What whole numbers are, for people.
pub const WHOLE: &str = "a whole number, 0 or above";
/// What a seed is.
pub const SEED: &str = "0 to 18446744073709551615, or none for a random one";
/// Extensions of input images.
const IMAGES: [&str; 8] = ["jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff"];

/// Result of a command.
pub type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    /// A usage error.
    pub fn usage(message: impl std::fmt::Display) -> Self {
        Self { message: message.to_string(), code: USAGE, kept: false }
    }

    /// An error while running.
    pub fn run(message: impl std::fmt::Display) -> Self {
        Self { message: message.to_string(), code: RUN, kept: false }
    }

    /// The end after Ctrl-C.
    pub fn interrupted(message: impl std::fmt::Display) -> Self {
        Self { message: message.to_string(), code: INTERRUPTED, kept: false }
    }

    /// What the parser of the command line objects to, on one line: its message and tips, without the usage text.
    pub fn parse(error: &clap::Error) -> Self {
        if let Some(message) = no_number(error).or_else(|| stray_image(error)) {
            return Self::usage(message);
        }
        let text = error.render().to_string();
        let said = text
            .split("\n\n")
            .map(|part| part.split_whitespace().collect::<Vec<_>>().join(" "))
            .filter(|part| !part.is_empty() && !part.starts_with("Usage:"))
            .map(|part| part.trim_end_matches('.').replace("For more information, try", "see"))
            .collect::<Vec<_>>()
            .join("; ");
        Self::usage(said.trim_start_matches("error: "))
    }

    /// The message on one line, whatever a library put into it.
    pub fn line(&self) -> String {
        let parts = self.message.split(char::is_control).map(str::trim).filter(|part| !part.is_empty());
        parts.collect::<Vec<_>>().join(" ")
    }
}

/// Of a number that was not understood: what was expected instead. The parsers' own words are the standard library's.
fn no_number(error: &clap::Error) -> Option<String> {
    if error.kind() != ErrorKind::ValueValidation {
        return None;
    }
    let (option, found) =
        (context(error, ContextKind::InvalidArg)?, context(error, ContextKind::InvalidValue)?);
    let option = option.split_whitespace().next()?;
    let source = error.source()?;
    let expected = match source.downcast_ref::<ParseIntError>().map(ParseIntError::kind) {
        Some(_) if option == "--seed" => SEED.into(),
        Some(IntErrorKind::PosOverflow) => "a smaller number".into(),
        Some(_) => WHOLE.into(),
        None if source.is::<ParseFloatError>() => "a number".into(),
        None => {
            let reason = source.to_string();
            let (least, most) = reason.split_once(" is not in ")?.1.split_once("..")?;
            match most.trim_start_matches('=') {
                // As many as there are: nothing that anybody wants to know.
                "" | "4294967295" | "18446744073709551615" => format!("a whole number, {least} or above"),
                most => format!("{least} to {most}"),
            }
        }
    };
    Some(format!("{option}: found {found}, expected {expected}"))
}

/// Of a file's name that stands alone: the option that takes it.
fn stray_image(error: &clap::Error) -> Option<String> {
    let kind = match error.kind() {
        ErrorKind::InvalidSubcommand => ContextKind::InvalidSubcommand,
        ErrorKind::UnknownArgument => ContextKind::InvalidArg,
        // Said of any word that follows an option of a job.
        ErrorKind::ArgumentConflict => ContextKind::InvalidSubcommand,
        _ => return None,
    };
    let word = context(error, kind)?;
    let path = Path::new(&word);
    let extension = path.extension().map(|e| e.to_string_lossy().to_lowercase());
    let option = match extension.as_deref() {
        Some(extension) if IMAGES.contains(&extension) => "--image",
        Some("json") => "--workflow",
        Some("jsonl") => "--batch",
        _ => return None,
    };
    (!word.starts_with('-')).then(|| {
        format!("found `{word}` without an option: did you mean `{option} {}`?", crate::output::quoted(path))
    })
}

fn context(error: &clap::Error, kind: ContextKind) -> Option<String> {
    match error.get(kind)? {
        ContextValue::String(text) => Some(text.clone()),
        _ => None,
    }
}

impl From<PipelineError> for Failure {
    fn from(error: PipelineError) -> Self {
        let code = match &error {
            e if e.is_cancelled() => INTERRUPTED,
            e if e.is_usage() => USAGE,
            _ => RUN,
        };
        let message = match &error {
            PipelineError::Media(MediaError::Exists { path }) => {
                format!("{}: exists already, choose another name or add --overwrite", path.display())
            }
            other => other.to_string(),
        };
        Self { message, code, kept: false }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_keeps_the_spaces_of_names() {
        let failure = Failure::run("go on with 'my  clip.mp4'\n  caused by:\r\n\tthe disk\x1b");
        assert_eq!(failure.line(), "go on with 'my  clip.mp4' caused by: the disk");
    }
}
