//! The worker: takes jobs from the queue one after another, runs them, and tells what happens.
//!
//! What is saved on the way makes a job survive its worker: after each step the sampler's state, in the job's folder
//! below [`Folders::work`]; the number of an output's name before the output appears under it, in the queue. The next
//! worker goes on from there and comes to the same bytes under the same names.

mod bus;
mod event;
mod execute;
mod failure;
mod frames;
mod heartbeat;
mod job;
mod output;
mod preview;
mod publish;
mod report;
mod run;
mod state;

use std::collections::HashSet;
use std::ffi::OsStr;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use wan_queue::{JobQueue, QueueError};

pub use bus::{Bus, EventSink, JobRef, status_data};
pub use event::{Event, Failure, NodeProgress, NodeRef, NodeState, now_ms};
pub(crate) use frames::disk_bytes;
use heartbeat::{LEASE, TICK};
pub use job::{Backend, Folder, InputImage, JobNode, NodeWork, RenderJob, SaveKind, SaveNode};
use run::{DeviceLost, Runner};
use state::checkpoint_path;

/// Whether so many more bytes may be written; else why not, in one line for the client.
pub type HasRoom = Box<dyn Fn(u64) -> Result<(), String> + Send>;

/// Where a worker reads and writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folders {
    /// Outputs to be kept.
    pub output: PathBuf,
    /// Outputs until the next start.
    pub temp: PathBuf,
    /// What jobs leave for the next worker, should this one be lost; a folder for each. Files move from here to the
    /// outputs without being copied if both are on one file system.
    pub work: PathBuf,
}

impl Folders {
    /// `output`, `temp` and `work` below `folder`.
    pub fn below(folder: &Path) -> Self {
        Self { output: folder.join("output"), temp: folder.join("temp"), work: folder.join("work") }
    }

    fn of_job(&self, arrival: i64) -> PathBuf {
        self.work.join(arrival.to_string())
    }

    /// Removes what no job goes on from: temporary outputs, and of the jobs' folders all but checkpoints and finished
    /// files beside them. Asks no queue, so that its database has this room when it is opened. What cannot be removed is
    /// left to [`Worker::start`], which says why.
    pub fn make_room(&self) {
        let _ = empty(&self.temp, |_| false);
        let _ = empty(&self.work, |job| checkpoint_path(job).exists());
        for job in std::fs::read_dir(&self.work).into_iter().flatten().flatten() {
            let unfinished =
                |name: &OsStr| name == frames::SPOOL || name.as_encoded_bytes().ends_with(b".part");
            let _ = empty(&job.path(), |file| !file.file_name().is_some_and(unfinished));
        }
    }

    /// Makes the folders, and removes what nobody needs any more: temporary outputs, and the folders of jobs that are
    /// not in the queue.
    fn prepare(&self, queue: &dyn JobQueue) -> Result<(), StartError> {
        let snapshot = queue.snapshot()?;
        let jobs = snapshot.running.iter().chain(&snapshot.pending);
        let kept: HashSet<PathBuf> = jobs.map(|item| self.of_job(item.arrival)).collect();
        for folder in [&self.output, &self.temp, &self.work] {
            std::fs::create_dir_all(folder).map_err(|e| StartError::io(folder, e))?;
        }
        empty(&self.temp, |_| false)?;
        empty(&self.work, |path| kept.contains(path))
    }
}

/// Removes what is in a folder and not to be kept.
fn empty(folder: &Path, is_kept: impl Fn(&Path) -> bool) -> Result<(), StartError> {
    let failed = |e| StartError::io(folder, e);
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let path = entry.path();
        if is_kept(&path) {
            continue;
        }
        // A link is removed, not what it leads to.
        let is_folder = entry.file_type().map_err(failed)?.is_dir();
        let removed = if is_folder { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
        removed.map_err(|e| StartError::io(&path, e))?;
    }
    Ok(())
}

/// Why a worker does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A folder cannot be used.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The queue.
    #[error(transparent)]
    Queue(#[from] QueueError),
}

impl StartError {
    fn io(path: &Path, source: io::Error) -> Self {
        Self::Io { path: path.to_path_buf(), source }
    }
}

/// What a worker works with.
pub struct WorkerConfig {
    /// Its name, shown to nobody but other workers of the same queue.
    pub name: String,
    /// Where it reads and writes.
    pub folders: Folders,
    /// How often a job is tried that brings the server down before it gets any further.
    pub max_attempts: u32,
    /// Time after which a job is stopped and ends as an error.
    pub job_time: Duration,
    /// Asked, with the bytes that a job is going to write, before it computes anything.
    pub has_room: HasRoom,
    /// Called where the device is lost, after which the worker takes no more jobs.
    pub on_device_lost: Box<dyn FnOnce() + Send>,
}

impl WorkerConfig {
    /// A worker of this process over `folders`; five attempts, a day a job, and a disk that is never full.
    pub fn new(folders: Folders) -> Self {
        let job_time = crate::Limits::default().job_time;
        let name = format!("worker-{}", std::process::id());
        let has_room = Box::new(|_| Ok(()));
        Self { name, folders, max_attempts: 5, job_time, has_room, on_device_lost: Box::new(|| {}) }
    }
}

/// The thread that runs jobs, one at a time.
pub struct Worker {
    stop: Arc<AtomicBool>,
    free: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// Cleans up after the last process and begins to take jobs.
    ///
    /// Errors: folders or a queue that cannot be used.
    pub fn start(
        queue: Arc<dyn JobQueue>,
        bus: Arc<Bus>,
        backend: Box<dyn Backend>,
        config: WorkerConfig,
    ) -> Result<Self, StartError> {
        let WorkerConfig { name, folders, max_attempts, job_time, has_room, on_device_lost } = config;
        folders.prepare(&*queue)?;
        let (stop, free) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let runner = Runner {
            queue,
            bus,
            backend,
            folders,
            max_attempts,
            job_time,
            has_room,
            stop: stop.clone(),
            pipeline: None,
        };
        let freed = free.clone();
        let thread = thread::Builder::new()
            .name("wan-worker".into())
            .spawn(move || {
                if work(runner, &name, &freed).is_err() {
                    on_device_lost();
                }
            })
            .map_err(|e| StartError::io(Path::new("worker thread"), e))?;
        Ok(Self { stop, free, thread: Some(thread) })
    }

    /// Has the model closed before the next job: `POST /free`.
    pub fn free(&self) {
        self.free.store(true, Ordering::Release);
    }

    /// Stops after the present step and returns when the job's state is saved; the next start goes on with it.
    pub fn shut_down(mut self) {
        self.join();
    }

    fn join(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            // A worker that panicked has said so.
            let _ = thread.join();
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.join();
    }
}

/// Takes jobs until asked to stop. Nothing that happens to one job ends it, unless the device is lost with it.
fn work(mut runner: Runner, name: &str, free: &AtomicBool) -> Result<(), DeviceLost> {
    let queue = runner.queue.clone();
    while !runner.stop.load(Ordering::Acquire) {
        if free.swap(false, Ordering::AcqRel) {
            runner.pipeline = None;
        }
        let seen = queue.revision();
        match queue.claim(name, LEASE) {
            Ok(Some(claim)) => match catch_unwind(AssertUnwindSafe(|| runner.run(&claim))) {
                Ok(ran) => ran?,
                Err(_) => {
                    tracing::error!(prompt_id = %claim.item.prompt_id, "the worker panicked outside of a job");
                    runner.pipeline = None;
                }
            },
            Ok(None) => {
                queue.wait_for_change(seen, TICK);
            }
            Err(error) => {
                tracing::error!(%error, "no job can be taken from the queue; trying again");
                thread::sleep(Duration::from_secs(1));
            }
        }
    }
    Ok(())
}
