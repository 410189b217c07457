//! Finished files to the names under which clients find them.
//!
//! A file is made in the job's own folder first and then linked to a numbered name that nobody has. The number is
//! decided and kept before the link is made: after a crash the same job comes back to the same name, and never makes
//! a second copy.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use super::failure::JobError;

/// A finished file.
pub(super) struct Finished {
    /// Where it was made.
    pub work: PathBuf,
    /// What is added to the number of its group.
    pub offset: u32,
    /// What follows the number in its name: `.mp4`.
    pub ending: String,
}

/// A folder and the start of names in it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place {
    folder: PathBuf,
    /// The folder below the root, with `/`.
    pub subfolder: String,
    stem: String,
}

impl Place {
    /// `prefix` below `root`; folders are made.
    ///
    /// Errors: [`JobError::Refused`] if it leads out of `root`.
    pub fn new(root: &Path, prefix: &str) -> Result<Self, JobError> {
        let refused = || {
            JobError::Refused(format!(
                "filename_prefix: found {prefix:?}, expected a name inside of the output folder"
            ))
        };
        let path = Path::new(prefix);
        let plain = path.components().all(|c| matches!(c, Component::Normal(_)));
        let ends_in_name = !prefix.ends_with('/') && !prefix.contains(['\\', '\0']);
        let stem = path
            .file_name()
            .and_then(|n| n.to_str())
            .filter(|_| plain && ends_in_name)
            .ok_or_else(refused)?;
        let subfolder = path.parent().and_then(Path::to_str).unwrap_or_default();
        let folder = root.join(subfolder);
        fs::create_dir_all(&folder).map_err(|e| JobError::io(&folder, e))?;
        // A link inside of the root may lead out of it.
        let real = |path: &Path| fs::canonicalize(path).map_err(|e| JobError::io(path, e));
        if !real(&folder)?.starts_with(real(root)?) {
            return Err(refused());
        }
        Ok(Self { folder, subfolder: subfolder.to_owned(), stem: stem.to_owned() })
    }

    fn name(&self, number: u32, file: &Finished) -> String {
        format!("{}_{:05}{}", self.stem, number + file.offset, file.ending)
    }

    /// One above the highest number in use.
    fn next_number(&self) -> Result<u32, JobError> {
        let failed = |e| JobError::io(&self.folder, e);
        let mut highest = 0;
        for entry in fs::read_dir(&self.folder).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            highest = highest.max(name.to_str().and_then(|name| number_of(&self.stem, name)).unwrap_or(0));
        }
        Ok(highest + 1)
    }

    /// Gives the files of one group their names and returns those. `kept` is the number that was decided on before;
    /// `keep` is told of a new one before any file appears under it.
    pub fn publish(
        &self,
        files: &[Finished],
        kept: Option<u32>,
        mut keep: impl FnMut(u32) -> Result<(), JobError>,
    ) -> Result<Vec<String>, JobError> {
        let mut number = match kept {
            Some(number) => number,
            None => {
                let number = self.next_number()?;
                keep(number)?;
                number
            }
        };
        while !self.link_all(files, number)? {
            number = self.next_number()?.max(number + 1);
            keep(number)?;
        }
        // The names are on the disk before the history says so.
        File::open(&self.folder).and_then(|f| f.sync_all()).map_err(|e| JobError::io(&self.folder, e))?;
        Ok(files.iter().map(|file| self.name(number, file)).collect())
    }

    /// Whether all files got their names; if a name is another file's, none does.
    fn link_all(&self, files: &[Finished], number: u32) -> Result<bool, JobError> {
        for (done, file) in files.iter().enumerate() {
            let name = self.folder.join(self.name(number, file));
            if link(&file.work, &name).map_err(|e| JobError::io(&name, e))? {
                continue;
            }
            for file in &files[..done] {
                let name = self.folder.join(self.name(number, file));
                fs::remove_file(&name).map_err(|e| JobError::io(&name, e))?;
            }
            return Ok(false);
        }
        Ok(true)
    }
}

/// The number in `name` if it is `STEM_NUMBER` with anything behind it that has no digit before the first dot.
///
/// ComfyUI-VideoHelperSuite, `nodes.py`, `VideoCombine.combine_video`.
fn number_of(stem: &str, name: &str) -> Option<u32> {
    let start = name.get(..stem.len()).filter(|start| start.to_lowercase() == stem.to_lowercase())?;
    let rest = name[start.len()..].strip_prefix('_')?;
    let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (middle, end) = rest[digits..].split_once('.')?;
    let fits = !end.is_empty() && !middle.contains(|c: char| c.is_ascii_digit());
    // A number beyond all bounds is somebody's date, not a counter.
    fits.then(|| rest[..digits].parse().ok()).flatten().filter(|n| *n < 1_000_000_000)
}

/// Whether `name` is `work` afterwards; `false` if it is another file.
fn link(work: &Path, name: &Path) -> io::Result<bool> {
    match fs::hard_link(work, name) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => same(work, name),
        // A file system without links, or another one.
        Err(_) => match wan_media::write_file(name, &fs::read(work)?, false) {
            Ok(()) => Ok(true),
            Err(wan_media::MediaError::Exists { .. }) => same(work, name),
            Err(error) => Err(io::Error::other(error)),
        },
    }
}

/// Whether two names lead to one file, or to equal ones.
fn same(a: &Path, b: &Path) -> io::Result<bool> {
    let (there, here) = (fs::symlink_metadata(a)?, fs::symlink_metadata(b)?);
    if (there.dev(), there.ino()) == (here.dev(), here.ino()) {
        return Ok(true);
    }
    if !here.is_file() || there.len() != here.len() {
        return Ok(false);
    }
    let read = |path: &Path| -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(path)?.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    Ok(read(a)? == read(b)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_count_on_from_any_extension_and_case() {
        let rows = [
            ("a_00001.mp4", Some(1)),
            ("A_00012_.png", Some(12)),
            ("a_7-audio.mp4", Some(7)),
            ("a_123456.webp", Some(123_456)),
            ("a_00003", None),
            ("a_00003.", None),
            ("a_00003_2.png", None),
            ("ab_00004.mp4", None),
            ("a00004.mp4", None),
            ("a_.mp4", None),
            ("a_20250101120000.mp4", None),
        ];
        for (name, expected) in rows {
            assert_eq!(number_of("a", name), expected, "{name}");
        }
        assert_eq!(number_of("é", "É_00002.mp4"), Some(2));
        assert_eq!(number_of("ab", "é"), None);
    }

    #[test]
    fn prefixes_stay_inside() {
        let root = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(outside.path(), root.path().join("out")).unwrap();
        for prefix in ["", "/x", "../x", "a/../../x", "..", "a/", ".", "a\\b", "a\0b", "out/x"] {
            assert!(Place::new(root.path(), prefix).is_err(), "{prefix:?}");
        }
        let place = Place::new(root.path(), "vid/x").unwrap();
        assert_eq!((place.subfolder.as_str(), place.stem.as_str()), ("vid", "x"));
        assert!(root.path().join("vid").is_dir());
    }

    fn finished(folder: &Path, ending: &str, bytes: &str) -> Finished {
        let work = folder.join(format!("work{ending}"));
        fs::write(&work, bytes).unwrap();
        Finished { work, offset: 0, ending: ending.into() }
    }

    #[test]
    fn a_job_comes_back_to_its_own_names_and_never_takes_anothers() {
        let (root, work) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let place = Place::new(root.path(), "x").unwrap();
        fs::write(root.path().join("X_00004.gif"), "old").unwrap();
        let files = [finished(work.path(), ".png", "picture"), finished(work.path(), ".mp4", "video")];
        let mut kept = Vec::new();
        let names = place
            .publish(&files, None, |n| {
                kept.push(n);
                Ok(())
            })
            .unwrap();
        assert_eq!(
            (names.as_slice(), kept.as_slice()),
            (&["x_00005.png".into(), "x_00005.mp4".into()][..], &[5][..])
        );
        // Killed between the two names, or after them.
        fs::remove_file(root.path().join("x_00005.mp4")).unwrap();
        for _ in 0..2 {
            let again = place.publish(&files, Some(5), |_| panic!("the number is known")).unwrap();
            assert_eq!(again, names);
        }
        assert_eq!(fs::read(root.path().join("x_00005.mp4")).unwrap(), b"video");
        // Somebody else took one of the names meanwhile.
        fs::remove_file(root.path().join("x_00005.mp4")).unwrap();
        fs::write(root.path().join("x_00005.mp4"), "other").unwrap();
        let moved = place
            .publish(&files, Some(5), |n| {
                kept.push(n);
                Ok(())
            })
            .unwrap();
        assert_eq!((moved[1].as_str(), kept.as_slice()), ("x_00006.mp4", &[5, 6][..]));
        assert!(!root.path().join("x_00005.png").exists());
        assert_eq!(fs::read(root.path().join("x_00005.mp4")).unwrap(), b"other");
    }
}
