//! The stages of one job, and the files made of its frames.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::thread;

use serde_json::json;
use wan_core::progress::{CancelToken, Stage};
use wan_media::load_image;
use wan_pipeline::{Images, Job, Pipeline, PipelineError, Plan};

use super::failure::JobError;
use super::frames::{FrameSpool, Frames, disk_bytes};
use super::job::{Folder, InputImage, NodeWork, RenderJob, SaveKind};
use super::output::{OutputFiles, Texts};
use super::report::Reporter;
use super::run::made_all;
use super::state::{Checkpointer, RowState};
use super::{Folders, HasRoom};

/// All that one run of a job needs.
pub(super) struct Execution<'a> {
    pub pipeline: &'a Pipeline,
    pub job: &'a RenderJob,
    pub reporter: &'a Reporter<'a>,
    pub row: &'a RowState<'a>,
    pub cancel: &'a CancelToken,
    pub folders: &'a Folders,
    pub has_room: &'a HasRoom,
    /// The job's own folder.
    pub work: &'a Path,
    pub texts: Texts,
}

impl Execution<'_> {
    /// Runs the job, from where an earlier worker left it.
    pub fn run(&self, restored: Option<Job>) -> Result<(), JobError> {
        self.stop_if_asked()?;
        let (plan, frames) = match restored {
            Some(job) if made_all(self.job, &job, self.work) => (job.plan, None),
            restored => {
                let job = self.denoised(restored)?;
                let frames = self.decode(&job)?;
                (job.plan, Some(frames))
            }
        };
        self.run_last_nodes(&plan, frames.as_ref())
    }

    fn stop_if_asked(&self) -> Result<(), JobError> {
        self.cancel.check().map_err(|_| JobError::Stopped)
    }

    /// The job after its last step. A restored job that does not take a single one is begun anew: what was saved of
    /// it may be to blame.
    fn denoised(&self, restored: Option<Job>) -> Result<Job, JobError> {
        if let Some(job) = restored {
            self.check_memory(&job.plan, Stage::Denoise)?;
            let stepped = Cell::new(false);
            match self.denoise(job, &stepped) {
                Err(error) if !stepped.get() && !matches!(error, JobError::Stopped) => {
                    tracing::warn!(
                        error = error.message(),
                        "the saved state cannot be used; the job begins anew"
                    );
                }
                done => return done,
            }
        }
        self.denoise(self.prepare()?, &Cell::default())
    }

    fn prepare(&self) -> Result<Job, JobError> {
        let RenderJob { request, image, end_image, alpha, .. } = self.job;
        let load = |path: Option<&PathBuf>| path.map(|path| load_image(path, *alpha)).transpose();
        let frame = |image: &Option<InputImage>| load(image.as_ref().map(|image| &image.frame));
        let seen = |image: &Option<InputImage>| load(image.as_ref().and_then(|image| image.seen.as_ref()));
        let (first, last) = (frame(image)?, frame(end_image)?);
        let (seen_first, seen_last) = (seen(image)?, seen(end_image)?);
        let plan = self.pipeline.plan(request.clone(), first.as_ref())?.with_end_image(last.is_some())?;
        self.check_size(&plan)?;
        self.check_memory(&plan, Stage::EncodeText)?;
        self.check_disk(&plan)?;
        let images = Images {
            first: first.as_ref(),
            last: last.as_ref(),
            seen_first: seen_first.as_ref(),
            seen_last: seen_last.as_ref(),
        };
        Ok(self.pipeline.prepare(plan, images, None, self.reporter, self.cancel)?)
    }

    /// Refuses what does not fit: main memory that runs out ends the process, not the job.
    fn check_memory(&self, plan: &Plan, first: Stage) -> Result<(), JobError> {
        Ok(self.pipeline.memory(plan, first)?.check()?)
    }

    /// The disk may have filled up since the job was accepted. A job that an earlier worker began goes on without this.
    fn check_disk(&self, plan: &Plan) -> Result<(), JobError> {
        let keeps_pictures =
            |work: &NodeWork| matches!(work, NodeWork::Save(save) if save.kind == SaveKind::Frames);
        let picture_nodes = self.job.nodes.iter().filter(|node| keeps_pictures(&node.work)).count();
        let bytes = disk_bytes(plan.width, plan.height, plan.frames, picture_nodes);
        (self.has_room)(bytes).map_err(JobError::DiskFull)
    }

    /// The formats have their limits: better known now than after the last step.
    fn check_size(&self, plan: &Plan) -> Result<(), JobError> {
        for node in &self.job.nodes {
            if let NodeWork::Save(save) = &node.work {
                save.kind.video().check(plan.width as u32, plan.height as u32)?;
            }
        }
        Ok(())
    }

    fn denoise(&self, mut job: Job, stepped: &Cell<bool>) -> Result<Job, JobError> {
        let model = &self.pipeline.model().name;
        let begun = job.clone();
        let checkpointer = Checkpointer::new(self.work, self.row);
        let outcome = thread::scope(|scope| {
            scope.spawn(|| checkpointer.run());
            let _close = OnDrop(|| checkpointer.close());
            checkpointer.keep(&begun, &job.state, model, &self.job.model);
            let mut keep = |state: &_| {
                stepped.set(true);
                checkpointer.keep(&begun, state, model, &self.job.model);
            };
            self.pipeline.denoise_keeping(&mut job, &mut keep, self.reporter, self.cancel)
        });
        outcome?;
        Ok(job)
    }

    fn decode(&self, job: &Job) -> Result<Frames, JobError> {
        let mut spool = FrameSpool::create(self.work)?;
        let mut sink = |rgb: &[u8]| {
            let failed = |e| PipelineError::from(wan_core::Error::io(Path::new("decoded frames"), e));
            spool.push(rgb).map_err(failed)
        };
        let Job { plan, state, .. } = job;
        self.pipeline.decode(plan, &state.latents, &mut sink, self.reporter, self.cancel)?;
        spool.finish(plan.width as u32, plan.height as u32)
    }

    /// The nodes behind the decoder. Without `frames` all files are there.
    fn run_last_nodes(&self, plan: &Plan, frames: Option<&Frames>) -> Result<(), JobError> {
        while let Some((index, node)) = self.reporter.begin_next() {
            self.stop_if_asked()?;
            let output = match &node.work {
                NodeWork::Nothing | NodeWork::Stages(_) => None,
                NodeWork::Measure => {
                    Some(json!({"text": [format!("{}x{}x{}", plan.frames, plan.width, plan.height)]}))
                }
                NodeWork::Save(save) => {
                    let files = OutputFiles::new(self.work, index, save);
                    if let Some(frames) = frames {
                        let step = |done| self.reporter.progress(done, frames.count);
                        files.make(frames, &self.texts, &step, self.cancel)?;
                    }
                    let root = match save.folder {
                        Folder::Output => &self.folders.output,
                        Folder::Temp => &self.folders.temp,
                    };
                    Some(files.publish(root, &node.node.id, self.row)?)
                }
            };
            self.reporter.end_current(output);
        }
        Ok(())
    }
}

/// Calls a function when it goes, however that happens.
struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
