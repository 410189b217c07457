use std::any::Any;
use std::error::Error;
use std::io;
use std::path::Path;
use std::time::Duration;

use wan_media::MediaError;
use wan_pipeline::{PipelineError, what_fits};
use wan_queue::QueueError;

/// Why a job did not end well.
#[derive(Debug, thiserror::Error)]
pub(super) enum JobError {
    /// It was asked to stop.
    #[error("stopped")]
    Stopped,
    /// It took longer than jobs may.
    #[error("the job took longer than the {} s that the server allows; use fewer steps or frames, or a smaller size", .0.as_secs())]
    Overdue(Duration),
    /// The graph, or an output's name, cannot be used after all.
    #[error("{0}")]
    Refused(String),
    /// The pipeline.
    #[error(transparent)]
    Pipeline(PipelineError),
    /// An output.
    #[error(transparent)]
    Media(MediaError),
    /// There is no room for its frames.
    #[error("{0}")]
    DiskFull(String),
    /// A file of the job's own.
    #[error("{0}")]
    Io(String),
    /// The queue.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// A defect.
    #[error("internal error: {0}")]
    Panic(String),
}

/// The name under which ComfyUI's clients know a full GPU.
const OUT_OF_MEMORY: &str = "torch.OutOfMemoryError";

impl JobError {
    /// An input/output error of a file, which is told without the server's own folders.
    pub fn io(path: &Path, error: io::Error) -> Self {
        match is_disk_full(&error) {
            true => Self::disk_full(name(path)),
            false => Self::Io(format!("{}: {error}", name(path))),
        }
    }

    fn disk_full(what: impl std::fmt::Display) -> Self {
        Self::DiskFull(format!(
            "{what}: the server's disk is full; remove files there, or use fewer frames or a smaller size"
        ))
    }

    /// What was caught when a job panicked.
    pub fn panic(payload: &(dyn Any + Send)) -> Self {
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
        Self::Panic(text.unwrap_or("no message").to_owned())
    }

    /// The message for the client: one line, and what to do if memory is short.
    pub fn message(&self) -> String {
        let told = match self {
            // What fits is said in options of the command line, which clients do not have.
            Self::Pipeline(PipelineError::Memory { shortage, advice }) => {
                let inputs = |options: &String| options.trim_start_matches("--").replace(" --", " and ");
                let fitting: Vec<String> = advice.iter().map(inputs).collect();
                format!("not enough memory: {shortage}; {}", what_fits(&fitting))
            }
            Self::Pipeline(PipelineError::DeviceMemory { .. } | PipelineError::StageMemory { .. }) => {
                self.to_string()
            }
            error if error.is_out_of_memory() => {
                format!("{error}; use a smaller size, fewer frames or more block swap")
            }
            error => error.to_string(),
        };
        told.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// The kind for the client.
    pub fn kind(&self) -> &'static str {
        match self {
            _ if self.is_out_of_memory() => OUT_OF_MEMORY,
            Self::Stopped => "Interrupted",
            Self::Overdue(_) => "TimeLimit",
            Self::Refused(_) => "InvalidPrompt",
            Self::Pipeline(_) => "PipelineError",
            Self::Media(_) => "MediaError",
            Self::DiskFull(_) => "DiskFull",
            Self::Io(_) => "IoError",
            Self::Queue(_) => "QueueError",
            Self::Panic(_) => "InternalError",
        }
    }

    fn is_out_of_memory(&self) -> bool {
        let Self::Pipeline(error) = self else { return false };
        use PipelineError::{DeviceMemory, Memory, StageMemory};
        let is_short = matches!(error, Memory { .. } | DeviceMemory { .. } | StageMemory { .. });
        // Libraries may tell it in words alone.
        let text = error.to_string().to_lowercase();
        is_short || text.contains("out of memory") || text.contains("out_of_memory")
    }
}

impl From<PipelineError> for JobError {
    fn from(error: PipelineError) -> Self {
        match error {
            error if error.is_cancelled() => Self::Stopped,
            error if is_disk_full(&error) => Self::disk_full("the job's files"),
            error => Self::Pipeline(error),
        }
    }
}

impl From<MediaError> for JobError {
    fn from(error: MediaError) -> Self {
        match error {
            MediaError::DiskFull { path } => Self::disk_full(name(&path)),
            error => Self::Media(error),
        }
    }
}

/// A file's name without its folder.
fn name(path: &Path) -> impl std::fmt::Display + '_ {
    path.file_name().unwrap_or(path.as_os_str()).display()
}

/// Whether an error, or one that it was caused by, is the answer of a full disk.
fn is_disk_full(error: &(dyn Error + 'static)) -> bool {
    let answer = error.downcast_ref::<io::Error>().map(io::Error::kind);
    matches!(answer, Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
        || error.source().is_some_and(is_disk_full)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_one_line_and_name_what_to_do() {
        let full = || {
            wan_core::Error::OutOfMemory(candle_core::Error::Msg("CUDA_ERROR_OUT_OF_MEMORY\n  at x".into()))
        };
        let error = JobError::from(PipelineError::from(full()));
        assert_eq!(error.kind(), OUT_OF_MEMORY);
        assert!(error.message().contains("use a smaller size") && !error.message().contains('\n'));
        let source = Box::new(full());
        let error = PipelineError::DeviceMemory { what: "denoise".into(), swapped: 0, blocks: 40, source };
        assert_eq!(JobError::from(error).kind(), OUT_OF_MEMORY);
        let advice = vec!["--frames 41".into(), "--width 640 --height 384".into()];
        let shortage = "decode needs 9 GiB".into();
        let error = JobError::from(PipelineError::Memory { shortage, advice });
        assert_eq!(error.kind(), OUT_OF_MEMORY);
        assert_eq!(
            error.message(),
            "not enough memory: decode needs 9 GiB; what fits: frames 41, or width 640 and height 384"
        );
        let error = JobError::from(PipelineError::Core(wan_core::Error::Cancelled));
        assert!(matches!(error, JobError::Stopped));
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        let core = wan_core::Error::io(Path::new("/srv/secret/frames.rgb"), full());
        let video = MediaError::DiskFull { path: "/srv/secret/a.mp4".into() };
        let file = JobError::io(Path::new("/srv/a.png"), full());
        for error in [file, PipelineError::from(core).into(), video.into()] {
            assert_eq!(error.kind(), "DiskFull");
            let message = error.message();
            assert!(message.contains("disk is full; remove files") && !message.contains("srv"), "{message}");
        }
        let hidden = JobError::io(Path::new("/srv/secret/a.png"), io::Error::other("no"));
        assert_eq!(hidden.message(), "a.png: no");
    }
}
