//! The user's files, over the workflows that come with the program. Those can be read, and hidden by files of the
//! user under the same names.

use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::folders::Folder;

/// Workflows that come with the program: path and content.
const SHIPPED: [(&str, &str); 1] = [("workflows/wanx-21.json", wan_workflow::WANX_21_UI)];

/// How deep below a folder files are listed.
const MAX_DEPTH: usize = 8;

/// Most files in a list.
const MOST: usize = 10_000;

/// The user's folder with what lies below it.
pub(crate) struct UserFiles<'a> {
    pub folder: &'a Folder,
}

/// A file or a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Relative to the folder that was asked for, with slashes.
    pub path: String,
    pub is_folder: bool,
    /// In bytes.
    pub size: u64,
    /// Milliseconds since 1970.
    pub modified_ms: u64,
    /// Milliseconds since 1970.
    pub created_ms: u64,
}

impl Entry {
    /// As `full_info=true` shows it.
    pub fn full_info(&self) -> Value {
        json!({"path": self.path, "size": self.size, "modified": self.modified_ms, "created": self.created_ms})
    }

    fn shipped(path: &str, content: &str) -> Self {
        Self {
            path: path.into(),
            is_folder: false,
            size: content.len() as u64,
            modified_ms: 0,
            created_ms: 0,
        }
    }
}

impl UserFiles<'_> {
    /// What is in `dir`, by name; `None` if there is no such folder.
    pub fn list(&self, dir: &Path, recurse: bool) -> io::Result<Option<Vec<Entry>>> {
        let mut entries = Vec::new();
        let root = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
        let exists = self.folder.dir.is_dir(root);
        if exists {
            self.collect(root, Path::new(""), if recurse { MAX_DEPTH } else { 0 }, &mut entries)?;
        }
        let mut found = exists;
        for (path, content) in SHIPPED {
            let Ok(below) = Path::new(path).strip_prefix(dir) else { continue };
            found = true;
            let below = below.to_string_lossy().into_owned();
            let listed = recurse || !below.contains('/');
            if listed && !entries.iter().any(|entry: &Entry| entry.path == below) {
                entries.push(Entry::shipped(&below, content));
            }
        }
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(found.then_some(entries))
    }

    fn collect(&self, dir: &Path, below: &Path, depth: usize, entries: &mut Vec<Entry>) -> io::Result<()> {
        for entry in self.folder.dir.read_dir(dir.join(below))? {
            let entry = entry?;
            let (name, kind) = (entry.file_name(), entry.file_type()?);
            if name.to_string_lossy().starts_with('.') || entries.len() >= MOST {
                continue;
            }
            let path = below.join(&name);
            if kind.is_dir() && depth > 0 {
                self.collect(dir, &path, depth - 1, entries)?;
            } else if kind.is_dir() || kind.is_file() {
                entries.push(described(&path, &entry.metadata()?));
            }
        }
        Ok(())
    }

    /// One file.
    pub fn entry(&self, path: &Path) -> Option<Entry> {
        match self.folder.dir.metadata(path) {
            Ok(metadata) if metadata.is_file() => Some(described(path, &metadata)),
            _ => shipped(path).map(|content| Entry::shipped(&path.to_string_lossy(), content)),
        }
    }

    /// The content of a file, if there is one.
    pub fn read(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        if self.folder.dir.is_file(path) {
            return self.folder.dir.read(path).map(Some);
        }
        Ok(shipped(path).map(|content| content.as_bytes().to_vec()))
    }

    /// Writes a file whole; false if a folder is in the way.
    pub fn write(&self, path: &Path, content: &[u8]) -> io::Result<bool> {
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty())
            && let Err(error) = self.folder.dir.create_dir_all(parent)
        {
            return match error.kind() {
                ErrorKind::AlreadyExists | ErrorKind::NotADirectory | ErrorKind::PermissionDenied => {
                    Ok(false)
                }
                _ => Err(error),
            };
        }
        if self.folder.dir.is_dir(path) {
            return Ok(false);
        }
        self.folder.replace(path, content).map(|()| true)
    }

    /// Removes a file of the user; false if there is none. What comes with the program stays.
    pub fn remove(&self, path: &Path) -> io::Result<bool> {
        if !self.folder.dir.is_file(path) {
            return Ok(false);
        }
        self.folder.dir.remove_file(path).map(|()| true)
    }
}

fn shipped(path: &Path) -> Option<&'static str> {
    SHIPPED.iter().find(|(name, _)| Path::new(name) == path).map(|(_, content)| *content)
}

fn described(path: &Path, metadata: &cap_std::fs::Metadata) -> Entry {
    let ms = |time: io::Result<cap_std::time::SystemTime>| {
        let time: Option<SystemTime> = time.ok().map(cap_std::time::SystemTime::into_std);
        time.and_then(|t| t.duration_since(UNIX_EPOCH).ok()).map_or(0, |t| t.as_millis() as u64)
    };
    let parts: Vec<String> = path.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    Entry {
        path: parts.join("/"),
        is_folder: metadata.is_dir(),
        size: metadata.len(),
        modified_ms: ms(metadata.modified()),
        created_ms: ms(metadata.created()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::folders::Folders;

    #[test]
    fn shipped_workflows_are_there_until_the_user_writes_over_them() {
        let root = tempfile::tempdir().expect("a folder");
        let folders = Folders::open(root.path()).expect("opened");
        let files = UserFiles { folder: &folders.user };
        let workflows = Path::new("workflows");
        let path = Path::new(SHIPPED[0].0);
        assert_eq!(files.list(workflows, true).expect("read").expect("there").len(), 1);
        assert!(files.list(Path::new("nothing"), true).expect("read").is_none());
        assert!(!files.remove(path).expect("asked"), "it cannot be removed");
        assert!(files.write(path, b"{}").expect("written"));
        assert_eq!(files.read(path).expect("read").as_deref(), Some(&b"{}"[..]));
        assert_eq!(files.list(workflows, false).expect("read").expect("there")[0].size, 2);
        assert!(files.remove(path).expect("removed"));
        assert_eq!(files.read(path).expect("read").as_deref(), Some(SHIPPED[0].1.as_bytes()));
        assert!(files.write(Path::new("workflows/a/b.json"), b"1").expect("written"));
        assert!(!files.write(Path::new("workflows/a"), b"1").expect("a folder is in the way"));
        assert!(!files.write(Path::new("workflows/a/b.json/c"), b"1").expect("a file is in the way"));
    }
}
