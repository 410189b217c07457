//! The crate's one error type: each variant is one line that names the file, what was found and what
//! was expected.

use std::io;
use std::path::{Path, PathBuf};

/// Shorthand for results of this crate.
pub type Result<T, E = MediaError> = std::result::Result<T, E>;

/// What can go wrong between a file and its pixels.
///
/// `name` fields hold the path of a file, or whatever label the caller gave to bytes in memory.
#[derive(Debug, thiserror::Error)]
pub enum MediaError {
    /// The input file does not exist.
    #[error("{}: no such file", path.display())]
    NotFound {
        /// The path as given.
        path: PathBuf,
    },
    /// The input exists but is not a regular file.
    #[error("{}: found a {found}, expected a file", path.display())]
    NotAFile {
        /// The path as given.
        path: PathBuf,
        /// What is there instead.
        found: &'static str,
    },
    /// The input could not be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Read {
        /// The path as given.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// The input holds no bytes.
    #[error("{name}: the file is empty (0 bytes), expected an image")]
    Empty {
        /// File or label.
        name: String,
    },
    /// The input is larger than any image this crate accepts.
    #[error("{name}: the file has more than {limit} bytes, expected an image below that size")]
    FileTooLarge {
        /// File or label.
        name: String,
        /// Largest accepted size in bytes.
        limit: u64,
    },
    /// The content is none of the known image formats.
    #[error("{name}: not an image (found {found}, expected one of JPEG, PNG, WebP, GIF, BMP, TIFF)")]
    NotAnImage {
        /// File or label.
        name: String,
        /// The first bytes, or the kind of file they belong to.
        found: String,
    },
    /// The header claims an image without pixels.
    #[error("{name}: {format} image of zero size ({width}x{height}), expected at least 1x1")]
    ZeroSize {
        /// File or label.
        name: String,
        /// Name of the file format.
        format: &'static str,
        /// Claimed width in pixels.
        width: u32,
        /// Claimed height in pixels.
        height: u32,
    },
    /// The header claims more pixels than are accepted; nothing was allocated for them.
    #[error(
        "{name}: the {format} header claims {width}x{height} pixels, expected at most {max_side} a side \
         and {max_megapixels} megapixels"
    )]
    TooLarge {
        /// File or label.
        name: String,
        /// Name of the file format.
        format: &'static str,
        /// Claimed width in pixels.
        width: u32,
        /// Claimed height in pixels.
        height: u32,
        /// Largest accepted side in pixels.
        max_side: u32,
        /// Largest accepted area in millions of pixels.
        max_megapixels: u64,
    },
    /// The data ends before the image does.
    #[error(
        "{name}: truncated {format} file: the data ends after {bytes} bytes, before the image is complete"
    )]
    Truncated {
        /// File or label.
        name: String,
        /// Name of the file format.
        format: &'static str,
        /// Bytes present.
        bytes: usize,
    },
    /// The data contradicts its format, or uses a part of it that is not supported.
    #[error("{name}: {format} image cannot be decoded: {reason}")]
    Decode {
        /// File or label.
        name: String,
        /// Name of the file format.
        format: &'static str,
        /// The decoder's reason.
        reason: String,
    },
    /// A buffer's length does not fit its dimensions.
    #[error("{what} has {found} bytes, expected {expected} ({width}x{height} pixels, 3 bytes each)")]
    BufferSize {
        /// Which buffer.
        what: &'static str,
        /// Bytes given.
        found: usize,
        /// Bytes needed.
        expected: usize,
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
    },
    /// An option has a value that makes no sense.
    #[error("{option} is {found}, expected {expected}")]
    InvalidOption {
        /// Name of the option.
        option: &'static str,
        /// The value given.
        found: String,
        /// The values accepted.
        expected: String,
    },
    /// The destination's folder is missing.
    #[error("{}: the output folder {} does not exist, create it first", path.display(), folder.display())]
    MissingFolder {
        /// The destination.
        path: PathBuf,
        /// Its folder.
        folder: PathBuf,
    },
    /// The destination exists and may not be replaced.
    #[error("{}: exists already, choose another name or allow overwriting", path.display())]
    Exists {
        /// The destination.
        path: PathBuf,
    },
    /// The destination exists, overwriting is allowed, but what is there is not ours to replace.
    #[error("{}: will not be replaced: found {found}, expected {expected}", path.display())]
    NotReplaceable {
        /// The destination.
        path: PathBuf,
        /// What is there.
        found: &'static str,
        /// What may be replaced.
        expected: &'static str,
    },
    /// No space is left for the output.
    #[error("{}: cannot be written: the disk is full", path.display())]
    DiskFull {
        /// The destination.
        path: PathBuf,
    },
    /// The output could not be written.
    #[error("{}: cannot be written: {source}", path.display())]
    Write {
        /// The destination.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// The encoder refused.
    #[error("{}: {what} failed: {reason}", path.display())]
    Encode {
        /// The destination.
        path: PathBuf,
        /// The step that failed.
        what: &'static str,
        /// The library's reason.
        reason: String,
    },
    /// A video could not be opened or decoded.
    #[error("{}: not a readable video: {reason}", path.display())]
    Video {
        /// The file.
        path: PathBuf,
        /// The library's reason.
        reason: String,
    },
    /// The writer was finished without a frame.
    #[error("{}: no frames to write, expected at least 1", path.display())]
    NoFrames {
        /// The destination.
        path: PathBuf,
    },
    /// The writer was used on after it had failed.
    #[error("{}: writing failed before, the output was discarded", path.display())]
    Failed {
        /// The destination.
        path: PathBuf,
    },
    /// This build has no FFmpeg.
    #[error(
        "{what} needs FFmpeg, and this build has none: build with the feature `ffmpeg`, or use the formats png or rgb"
    )]
    NoFfmpeg {
        /// What was asked for.
        what: String,
    },
}

impl MediaError {
    /// Whether the request itself was at fault (a bad option, a missing output folder, an existing
    /// output), as against something that went wrong while it was carried out.
    pub fn is_usage(&self) -> bool {
        matches!(
            self,
            Self::InvalidOption { .. }
                | Self::MissingFolder { .. }
                | Self::Exists { .. }
                | Self::NotReplaceable { .. }
                | Self::NoFfmpeg { .. }
        )
    }

    /// Maps a failed write to `path`; a full disk or an exhausted quota is told apart.
    pub(crate) fn write(path: &Path, source: io::Error) -> Self {
        let path = path.to_path_buf();
        let source = bare(source);
        match source.raw_os_error() {
            Some(libc::ENOSPC | libc::EDQUOT) => Self::DiskFull { path },
            _ => Self::Write { path, source },
        }
    }

    /// Maps a failed read of `path`.
    pub(crate) fn read(path: &Path, source: io::Error) -> Self {
        let path = path.to_path_buf();
        match source.kind() {
            io::ErrorKind::NotFound => Self::NotFound { path },
            io::ErrorKind::IsADirectory => Self::NotAFile { path, found: "folder" },
            _ => Self::Read { path, source },
        }
    }

    pub(crate) fn option(option: &'static str, found: impl ToString, expected: impl ToString) -> Self {
        Self::InvalidOption { option, found: found.to_string(), expected: expected.to_string() }
    }
}

/// Folds a library's message into one line.
pub(crate) fn one_line(text: impl ToString) -> String {
    text.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The system's own error inside one to which a library has added a path: messages name the user's file, not the
/// temporary one beside it.
fn bare(error: io::Error) -> io::Error {
    let inner = error.get_ref().and_then(|e| e.source()?.downcast_ref::<io::Error>());
    match inner.and_then(io::Error::raw_os_error) {
        Some(code) => io::Error::from_raw_os_error(code),
        None => error,
    }
}
