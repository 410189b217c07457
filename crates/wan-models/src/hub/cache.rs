//! The Hugging Face cache on disk: blobs named by etag, snapshots of links to them, refs and locks. The layout is
//! that of the `huggingface_hub` library, so files are shared with Python programs in both directions.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use hf_hub::{Cache, Repo, RepoType};
use wan_core::progress::CancelToken;

use super::HubError;

/// How often a held lock is looked at.
const LOCK_POLL: Duration = Duration::from_millis(200);

/// The cache folder (`$HF_HOME/hub`).
#[derive(Debug, Clone)]
pub struct HubCache {
    folder: PathBuf,
}

impl HubCache {
    /// The cache in this folder, which need not exist.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The finished file `path` of `repo`: of the main branch, or else of the newest snapshot that has it.
    pub fn find(&self, repo: &str, path: &str) -> Option<PathBuf> {
        let main = Cache::new(self.folder.clone()).repo(model(repo)).get(path);
        main.or_else(|| self.links(repo, path).into_iter().find(|link| link.is_file()))
    }

    /// The links to `path` in all snapshots of `repo`, newest snapshot first.
    pub(crate) fn links(&self, repo: &str, path: &str) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.repo_folder(repo).join("snapshots"));
        let mut snapshots: Vec<PathBuf> = entries.into_iter().flatten().flatten().map(|e| e.path()).collect();
        snapshots.sort_by_key(|p| std::cmp::Reverse(std::fs::metadata(p).and_then(|m| m.modified()).ok()));
        snapshots.iter().map(|s| s.join(path)).filter(|l| l.symlink_metadata().is_ok()).collect()
    }

    /// Removes a file: its links, and its blob unless another link leads there, and what an interrupted pull left of
    /// it, as far as its description tells which blob that is. Returns the bytes that were freed.
    ///
    /// Waits while the file is being pulled. Errors: [`HubError::Io`], [`HubError::Cancelled`].
    pub fn remove(&self, file: &super::RemoteFile, cancel: &CancelToken) -> Result<u64, HubError> {
        let mut blobs: Vec<PathBuf> = file.sha256.iter().map(|s| self.blob(&file.repo, s)).collect();
        let links = self.links(&file.repo, &file.path);
        blobs.extend(links.iter().filter_map(|l| l.canonicalize().ok()));
        blobs.sort();
        blobs.dedup();
        let names = blobs.iter().filter_map(|b| b.file_name()?.to_str()).map(str::to_string);
        let mut locks = Vec::new();
        for name in names {
            locks.push(self.lock(&file.repo, &name, cancel, || {})?);
        }
        for link in &links {
            std::fs::remove_file(link).map_err(HubError::io(link))?;
        }
        let mut freed = 0;
        for blob in &blobs {
            let name = blob.file_name().unwrap_or_default().to_string_lossy();
            for path in [blob.clone(), self.partial(&file.repo, &name)] {
                let Ok(metadata) = std::fs::metadata(&path) else { continue };
                if path == *blob && self.is_linked(&file.repo, blob) {
                    continue;
                }
                std::fs::remove_file(&path).map_err(HubError::io(&path))?;
                freed += metadata.len();
            }
        }
        Ok(freed)
    }

    /// Whether any snapshot of the repository links to the blob.
    fn is_linked(&self, repo: &str, blob: &Path) -> bool {
        let mut folders = vec![self.repo_folder(repo).join("snapshots")];
        while let Some(folder) = folders.pop() {
            for path in std::fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path()) {
                if same_file(&path, blob) {
                    return true;
                }
                if path.is_dir() {
                    folders.push(path);
                }
            }
        }
        false
    }

    pub(crate) fn repo_folder(&self, repo: &str) -> PathBuf {
        self.folder.join(model(repo).folder_name())
    }

    pub(crate) fn blob(&self, repo: &str, etag: &str) -> PathBuf {
        Cache::new(self.folder.clone()).repo(model(repo)).blob_path(etag)
    }

    /// Where a transfer that is not finished keeps its bytes.
    pub(crate) fn partial(&self, repo: &str, etag: &str) -> PathBuf {
        self.repo_folder(repo).join("blobs").join(format!("{etag}.incomplete"))
    }

    /// Takes the lock of one blob. It is the system's lock on an open file: it ends with the process, however that
    /// ends. `waiting` is called once if another process holds it.
    pub(crate) fn lock(
        &self,
        repo: &str,
        etag: &str,
        cancel: &CancelToken,
        waiting: impl FnOnce(),
    ) -> Result<File, HubError> {
        let folder = self.folder.join(".locks").join(model(repo).folder_name());
        std::fs::create_dir_all(&folder).map_err(HubError::io(&folder))?;
        let path = folder.join(format!("{etag}.lock"));
        let file = File::options().create(true).append(true).open(&path).map_err(HubError::io(&path))?;
        let mut waiting = Some(waiting);
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::Error(e)) => return Err(HubError::Io { path, source: e }),
                Err(TryLockError::WouldBlock) => {
                    if let Some(tell) = waiting.take() {
                        tell();
                    }
                    if cancel.is_cancelled() {
                        return Err(HubError::Cancelled);
                    }
                    std::thread::sleep(LOCK_POLL);
                }
            }
        }
    }

    /// Makes a finished blob visible as `path` of `commit`, and lets `main` point to that commit. Every change is a
    /// rename, so an interruption leaves the old or the new state.
    pub(crate) fn publish(
        &self,
        repo: &str,
        commit: &str,
        path: &str,
        blob: &Path,
    ) -> Result<PathBuf, HubError> {
        let root = self.repo_folder(repo);
        let link = root.join("snapshots").join(commit).join(path);
        if !same_file(&link, blob) {
            place_link(blob, &link, path).map_err(HubError::io(&link))?;
        }
        let reference = root.join("refs/main");
        if std::fs::read_to_string(&reference).ok().as_deref() != Some(commit) {
            write_whole(&reference, commit).map_err(HubError::io(&reference))?;
        }
        Ok(link)
    }
}

fn model(repo: &str) -> Repo {
    Repo::new(repo.to_string(), RepoType::Model)
}

fn same_file(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

fn place_link(blob: &Path, link: &Path, path: &str) -> std::io::Result<()> {
    if let Some(folder) = link.parent() {
        std::fs::create_dir_all(folder)?;
    }
    // snapshots/COMMIT/a/b is as many folders below the repository as it has parts, and two more.
    let up = "../".repeat(Path::new(path).components().count() + 1);
    let target = Path::new(&up).join("blobs").join(blob.file_name().unwrap_or_default());
    let temporary = beside(link);
    let _ = std::fs::remove_file(&temporary);
    std::os::unix::fs::symlink(target, &temporary)?;
    std::fs::rename(&temporary, link)
}

fn write_whole(path: &Path, text: &str) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let temporary = beside(path);
    std::fs::write(&temporary, text)?;
    std::fs::rename(&temporary, path)
}

/// A name in the same folder that no other process uses.
fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{}", std::process::id()))
}
