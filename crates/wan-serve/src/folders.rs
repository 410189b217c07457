//! The folders of the server. Files in them are opened relative to the folder, and no name and no symbolic link
//! leads out of it (cap-std).

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use cap_std::ambient_authority;
use cap_std::fs::Dir;

use crate::ServeError;

/// Name of the picture that lies in the input folder at the first start.
const SAMPLE: &str = "sample.png";

/// Start of the names of files that are not whole yet.
pub(crate) const UNFINISHED: &str = ".unfinished-";

/// One folder.
#[derive(Debug)]
pub(crate) struct Folder {
    /// Where it is, for those who open files by path.
    pub path: PathBuf,
    /// The same, as a door that does not lead elsewhere.
    pub dir: Dir,
}

/// ComfyUI's three kinds of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Input,
    Output,
    Temp,
}

impl Kind {
    /// By ComfyUI's name.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "input" => Some(Self::Input),
            "output" => Some(Self::Output),
            "temp" => Some(Self::Temp),
            _ => None,
        }
    }
}

/// All folders, below the data folder.
#[derive(Debug)]
pub(crate) struct Folders {
    /// Uploads.
    pub input: Folder,
    /// Results.
    pub output: Folder,
    /// Results that last until the next start.
    pub temp: Folder,
    /// Settings and workflows of the user.
    pub user: Folder,
}

impl Folders {
    /// Opens the folders in `root` and makes those that are missing. `temp` is emptied, and uploads that a crash cut
    /// are removed; the sample picture is laid into a new input folder.
    ///
    /// Errors: [`ServeError::Folder`].
    pub fn open(root: &Path) -> Result<Self, ServeError> {
        let open = |name: &str| {
            let path = root.join(name);
            fs::create_dir_all(&path)
                .and_then(|()| Dir::open_ambient_dir(&path, ambient_authority()))
                .map(|dir| Folder { path: path.clone(), dir })
                .map_err(|source| ServeError::Folder { path, source })
        };
        let first_start = !root.join("input").exists();
        let folders =
            Self { input: open("input")?, output: open("output")?, temp: open("temp")?, user: open("user")? };
        let failed = |folder: &Folder, source| ServeError::Folder { path: folder.path.clone(), source };
        if first_start {
            let sample = wan_models::Registry::sample_image();
            folders.input.dir.write(SAMPLE, sample).map_err(|e| failed(&folders.input, e))?;
        }
        folders.temp.clear(|_| true).map_err(|e| failed(&folders.temp, e))?;
        folders.input.clear(|name| name.starts_with(UNFINISHED)).map_err(|e| failed(&folders.input, e))?;
        Ok(folders)
    }

    /// The folder of a kind.
    pub fn of(&self, kind: Kind) -> &Folder {
        match kind {
            Kind::Input => &self.input,
            Kind::Output => &self.output,
            Kind::Temp => &self.temp,
        }
    }
}

impl Folder {
    /// Removes the entries whose names are `unwanted`.
    fn clear(&self, unwanted: impl Fn(&str) -> bool) -> io::Result<()> {
        for entry in self.dir.entries()? {
            let entry = entry?;
            let name = entry.file_name();
            if !unwanted(&name.to_string_lossy()) {
                continue;
            }
            match entry.file_type()?.is_dir() {
                true => self.dir.remove_dir_all(&name)?,
                false => self.dir.remove_file(&name)?,
            }
        }
        Ok(())
    }

    /// Writes a file whole or not at all, over what is there.
    pub fn replace(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let unfinished = format!("{UNFINISHED}{}", uuid::Uuid::new_v4().simple());
        let written = self.dir.create(&unfinished).and_then(|mut file| {
            file.write_all(content)?;
            file.sync_all()?;
            self.dir.rename(&unfinished, &self.dir, path)
        });
        if written.is_err() {
            // The error that matters is the one at hand.
            let _ = self.dir.remove_file(&unfinished);
        }
        written
    }

    /// Files in the folder itself, newest first.
    pub fn newest_first(&self) -> io::Result<Vec<String>> {
        let mut files = Vec::new();
        for entry in self.dir.entries()? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if !name.starts_with('.') && entry.file_type()?.is_file() {
                files.push((entry.metadata()?.modified()?.into_std(), name));
            }
        }
        files.sort_by(|a, b| b.cmp(a));
        Ok(files.into_iter().map(|(_, name)| name).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_sweeps_what_is_not_to_be_kept() {
        let root = tempfile::tempdir().expect("a folder");
        let folders = Folders::open(root.path()).expect("opened");
        assert_eq!(folders.input.newest_first().expect("names"), [SAMPLE]);
        folders.input.dir.remove_file(SAMPLE).expect("removed");
        folders.input.dir.write(".unfinished-1", b"x").expect("written");
        folders.temp.dir.create_dir("sub").expect("made");
        let again = Folders::open(root.path()).expect("opened again");
        assert!(!again.input.dir.exists(".unfinished-1") && !again.temp.dir.exists("sub"));
        assert!(again.input.newest_first().expect("names").is_empty(), "the sample comes once");
    }

    #[test]
    fn links_do_not_lead_out() {
        let root = tempfile::tempdir().expect("a folder");
        let folders = Folders::open(root.path()).expect("opened");
        fs::write(root.path().join("secret"), b"x").expect("written");
        std::os::unix::fs::symlink("../secret", folders.output.path.join("link.png")).expect("linked");
        assert!(folders.output.dir.open("link.png").is_err());
        assert!(folders.output.dir.open("../secret").is_err());
    }
}
