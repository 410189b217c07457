//! Outputs that appear whole or not at all: written under a temporary name in the destination's own
//! folder, flushed, and renamed when complete.

use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tempfile::{TempDir, TempPath};

use crate::error::{MediaError, Result};
use crate::video::OutputFormat;

/// Prefix of temporary names.
pub(crate) const PREFIX: &str = ".wan-run-";

/// Checks, before any work is done, that an output of `format` could be written to `path`: its folder
/// exists, and nothing is in the way, or `overwrite` allows replacing it.
///
/// # Errors
/// [`MediaError::MissingFolder`], [`MediaError::Exists`], or [`MediaError::NotReplaceable`] where
/// something other than an earlier output is in the way.
pub fn check_destination(path: &Path, format: OutputFormat, overwrite: bool) -> Result<()> {
    if format == OutputFormat::Png {
        resolve(path, overwrite, Kind::FrameFolder)?;
    } else {
        resolve(path, overwrite, Kind::File)?;
    }
    Ok(())
}

/// What an output is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    File,
    /// A folder of numbered PNG files.
    FrameFolder,
}

/// Follows a link at `path` to the file behind it and checks that the destination is free, or
/// replaceable. Returns the absolute destination and its folder.
fn resolve(path: &Path, overwrite: bool, kind: Kind) -> Result<(PathBuf, PathBuf)> {
    let dest = std::path::absolute(path).map_err(|error| MediaError::write(path, error))?;
    // A link is written through, not replaced. A dangling one is replaced.
    let dest = if dest.is_symlink() { fs::canonicalize(&dest).unwrap_or(dest) } else { dest };
    let folder = match dest.parent() {
        Some(folder) if dest.file_name().is_some() => folder.to_path_buf(),
        _ => return Err(MediaError::NotAFile { path: path.to_path_buf(), found: "folder" }),
    };
    if !folder.is_dir() {
        return Err(MediaError::MissingFolder { path: path.to_path_buf(), folder });
    }
    match fs::symlink_metadata(&dest) {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(MediaError::write(path, error)),
        Ok(_) if !overwrite => return Err(MediaError::Exists { path: path.to_path_buf() }),
        Ok(there) => {
            let refuse =
                |found, expected| MediaError::NotReplaceable { path: path.to_path_buf(), found, expected };
            match kind {
                Kind::File if there.is_dir() => return Err(refuse("a folder", "a file")),
                Kind::File if there.is_file() || there.is_symlink() => {}
                Kind::File => return Err(refuse("a device or pipe", "a file")),
                Kind::FrameFolder if !there.is_dir() => {
                    return Err(refuse("a file", "a folder of numbered PNG files"));
                }
                Kind::FrameFolder if !holds_only_frames(&dest) => {
                    return Err(refuse("a folder with other files in it", "a folder of numbered PNG files"));
                }
                Kind::FrameFolder => {}
            }
        }
    }
    Ok((dest, folder))
}

/// Writes a small file; it appears whole or not at all.
///
/// # Errors
/// As [`check_destination`], [`MediaError::DiskFull`] or [`MediaError::Write`].
pub fn write_file(path: &Path, bytes: &[u8], overwrite: bool) -> Result<()> {
    let (temp, mut file) = TempFile::create(path, overwrite)?;
    file.write_all(bytes).map_err(|error| MediaError::write(path, error))?;
    temp.commit()
}

/// Name of the frame with this number (from 1) in a folder of frames.
pub(crate) fn frame_name(number: u64) -> String {
    format!("{number:05}.png")
}

fn holds_only_frames(folder: &Path) -> bool {
    let is_frame = |entry: io::Result<fs::DirEntry>| {
        entry.is_ok_and(|entry| {
            let name = entry.file_name();
            let number = name.to_str().and_then(|name| name.strip_suffix(".png"));
            number.is_some_and(|number| number.len() >= 5 && number.bytes().all(|b| b.is_ascii_digit()))
        })
    };
    fs::read_dir(folder).is_ok_and(|mut entries| entries.all(is_frame))
}

/// What is under construction at present, for [`remove_unfinished`].
static UNFINISHED: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

fn unfinished() -> MutexGuard<'static, Vec<PathBuf>> {
    // A list of paths is whole whatever panicked beside it.
    UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes every file and folder that is under construction in this process, for a program that is about to exit
/// without running destructors. Whoever still writes to one of them will fail, or write to nowhere.
pub fn remove_unfinished() {
    for path in unfinished().drain(..) {
        // Nothing could be done about a failure at this point.
        let _ = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
    }
}

/// An entry of [`UNFINISHED`], for as long as it lives.
pub(crate) struct Unfinished(PathBuf);

impl Unfinished {
    /// Notes `path` down.
    pub fn new(path: &Path) -> Self {
        unfinished().push(path.to_path_buf());
        Self(path.to_path_buf())
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        unfinished().retain(|path| *path != self.0);
    }
}

/// A file under construction, removed on drop unless committed.
pub(crate) struct TempFile {
    temp: TempPath,
    _unfinished: Unfinished,
    dest: PathBuf,
    shown: PathBuf,
    overwrite: bool,
}

impl TempFile {
    /// Makes an empty temporary file beside `path`.
    pub fn create(path: &Path, overwrite: bool) -> Result<(Self, File)> {
        let (dest, folder) = resolve(path, overwrite, Kind::File)?;
        let file = tempfile::Builder::new()
            .prefix(PREFIX)
            .suffix(".part")
            // The umask is applied on top, as for any other new file.
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(&folder)
            .map_err(|error| MediaError::write(path, error))?;
        let (file, temp) = file.into_parts();
        Ok((
            Self { _unfinished: Unfinished::new(&temp), temp, dest, shown: path.to_path_buf(), overwrite },
            file,
        ))
    }

    /// Where the bytes go for now: an absolute path.
    #[cfg(feature = "ffmpeg")]
    pub fn path(&self) -> &Path {
        &self.temp
    }

    /// The destination as the caller named it, for messages.
    pub fn shown(&self) -> &Path {
        &self.shown
    }

    /// Flushes the file to the disk and gives it its name.
    pub fn commit(self) -> Result<()> {
        // Delayed allocation can report a full disk as late as here.
        File::open(&self.temp)
            .and_then(|file| file.sync_all())
            .map_err(|error| MediaError::write(&self.shown, error))?;
        let renamed = if self.overwrite {
            self.temp.persist(&self.dest)
        } else {
            self.temp.persist_noclobber(&self.dest)
        };
        renamed.map_err(|failed| match failed.error.kind() {
            ErrorKind::AlreadyExists => MediaError::Exists { path: self.shown.clone() },
            _ => MediaError::write(&self.shown, failed.error),
        })
    }
}

/// A folder of frames under construction, removed on drop unless committed.
pub(crate) struct TempFolder {
    temp: TempDir,
    _unfinished: Unfinished,
    dest: PathBuf,
    folder: PathBuf,
    shown: PathBuf,
    overwrite: bool,
}

impl TempFolder {
    /// Makes an empty temporary folder beside `path`.
    pub fn create(path: &Path, overwrite: bool) -> Result<Self> {
        let (dest, folder) = resolve(path, overwrite, Kind::FrameFolder)?;
        let temp = temp_folder(&folder).map_err(|error| MediaError::write(path, error))?;
        Ok(Self {
            _unfinished: Unfinished::new(temp.path()),
            temp,
            dest,
            folder,
            shown: path.to_path_buf(),
            overwrite,
        })
    }

    /// Where the files go for now: an absolute path.
    pub fn path(&self) -> &Path {
        self.temp.path()
    }

    /// The destination as the caller named it, for messages.
    pub fn shown(&self) -> &Path {
        &self.shown
    }

    /// Flushes the folder and its files to the disk and gives it its name.
    pub fn commit(self) -> Result<()> {
        let failed = |error: io::Error| match error.kind() {
            ErrorKind::AlreadyExists | ErrorKind::DirectoryNotEmpty | ErrorKind::NotADirectory => {
                MediaError::Exists { path: self.shown.clone() }
            }
            _ => MediaError::write(&self.shown, error),
        };
        flush(self.temp.path()).map_err(failed)?;
        // The frames that are being replaced go into a folder that is deleted with `_old`.
        let mut _old = None;
        if self.overwrite && self.dest.exists() {
            resolve(&self.dest, true, Kind::FrameFolder)?;
            let old = temp_folder(&self.folder).map_err(failed)?;
            fs::rename(&self.dest, old.path()).map_err(failed)?;
            _old = Some(old);
        }
        fs::rename(self.temp.path(), &self.dest).map_err(failed)?;
        // Nothing is left under the temporary name: do not look for it.
        let _ = self.temp.keep();
        Ok(())
    }
}

/// Flushes a folder and the files in it.
fn flush(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        File::open(entry?.path())?.sync_all()?;
    }
    File::open(folder)?.sync_all()
}

fn temp_folder(parent: &Path) -> io::Result<TempDir> {
    tempfile::Builder::new()
        .prefix(PREFIX)
        .suffix(".part")
        .permissions(Permissions::from_mode(0o777))
        .tempdir_in(parent)
}
