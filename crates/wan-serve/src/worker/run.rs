//! One job, from the queue to the history.

use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::value::to_raw_value;
use serde_json::{Map, Value, json};
use wan_core::progress::{CancelToken, Stage};
use wan_pipeline::{Job, Pipeline};
use wan_queue::{Claim, JobQueue, Outcome, QueueError, Verdict};

use super::bus::{Bus, JobRef};
use super::event::{Event, Failure, now_ms};
use super::execute::Execution;
use super::failure::JobError;
use super::heartbeat::Heartbeat;
use super::job::{Backend, NodeWork, RenderJob};
use super::output::{OutputFiles, texts};
use super::report::{Made, Reporter};
use super::state::{RowState, restore};
use super::{Folders, HasRoom};

/// Runs jobs one after another; the model of the last one stays open.
pub(super) struct Runner {
    pub queue: Arc<dyn JobQueue>,
    pub bus: Arc<Bus>,
    pub backend: Box<dyn Backend>,
    pub folders: Folders,
    pub max_attempts: u32,
    pub job_time: Duration,
    pub has_room: HasRoom,
    pub stop: Arc<AtomicBool>,
    pub pipeline: Option<(String, Pipeline)>,
}

/// The device answers no more.
pub(super) struct DeviceLost;

/// What there is before the first node runs.
struct Ready {
    job: RenderJob,
    restored: Option<Job>,
    work: PathBuf,
    /// Nodes that need not run, counted from the first.
    cached: usize,
}

impl Runner {
    /// Runs a claimed job and moves it to the history, whatever happens; only a shutdown gives it back to the queue, and
    /// where the device is lost it stays claimed.
    ///
    /// Errors: [`DeviceLost`]: no further job can be run by this process. The next one finds the job as after a crash, goes
    /// on from its last step, and counts how often this happens.
    pub fn run(&mut self, claim: &Claim) -> Result<(), DeviceLost> {
        let item = &claim.item;
        let extra: Value = serde_json::from_str(item.extra_data.get()).unwrap_or_default();
        let job = JobRef::new(&item.prompt_id, &extra);
        tracing::info!(prompt_id = %job.prompt_id, attempt = claim.attempts, "job begins");
        self.bus.publish_status();
        let mut told = Told { bus: &self.bus.clone(), job: &job, messages: Vec::new() };
        told.tell(Event::ExecutionStart { timestamp: now_ms() });
        let (made, result) = self.attempt(claim, &extra, &mut told);
        if matches!(result, Err(JobError::Stopped)) && self.stop.load(Ordering::Acquire) {
            // Where the queue cannot say, nothing of the job is given up.
            if !self.queue.is_cancelled(&claim.lease).unwrap_or(false) {
                self.release(claim);
                return Ok(());
            }
        }
        if let Err(error @ (JobError::Pipeline(_) | JobError::Panic(_))) = &result
            && self.backend.is_device_lost()
        {
            tracing::error!(prompt_id = %job.prompt_id, "the device is lost: {}", error.message());
            return Err(DeviceLost);
        }
        if matches!(result, Err(JobError::Panic(_))) {
            self.pipeline = None;
        }
        self.end(claim, made, result, told);
        Ok(())
    }

    fn release(&self, claim: &Claim) {
        // Where this fails the next start finds the job all the same.
        if let Err(error) = self.queue.release(&claim.lease) {
            tracing::warn!(prompt_id = %claim.item.prompt_id, %error, "the job could not be given back");
        }
    }

    fn attempt(&mut self, claim: &Claim, extra: &Value, told: &mut Told<'_>) -> (Made, Result<(), JobError>) {
        let ready = match caught(|| self.prepare(claim)) {
            Ok(ready) => ready,
            Err(error) => {
                told.tell(Event::ExecutionCached { nodes: Vec::new(), timestamp: now_ms() });
                return (Made::default(), Err(error));
            }
        };
        let Ready { job, restored, work, cached } = ready;
        let nodes = job.nodes[..cached].iter().map(|n| n.node.id.clone()).collect();
        told.tell(Event::ExecutionCached { nodes, timestamp: now_ms() });
        let Some((_, pipeline)) = &self.pipeline else {
            return (Made::default(), Err(JobError::Panic("no model is open".into())));
        };
        let reporter = Reporter::new(&self.bus, told.job, &job.nodes, cached);
        let row = RowState::of(&*self.queue, claim);
        let cancel = CancelToken::new();
        if claim.cancelled {
            cancel.cancel();
        }
        let execution = Execution {
            pipeline,
            job: &job,
            reporter: &reporter,
            row: &row,
            cancel: &cancel,
            folders: &self.folders,
            has_room: &self.has_room,
            work: &work,
            texts: texts(claim.item.prompt.get(), extra, claim.item.submitted_ms),
        };
        let heartbeat = Heartbeat {
            queue: &*self.queue,
            lease: &claim.lease,
            bus: &self.bus,
            reporter: &reporter,
            cancel: &cancel,
            stop: &self.stop,
            begun: Instant::now(),
            job_time: self.job_time,
            overdue: AtomicBool::new(false),
            done: AtomicBool::new(false),
        };
        let result = thread::scope(|scope| {
            scope.spawn(|| heartbeat.run());
            let result = caught(|| execution.run(restored));
            heartbeat.done.store(true, Ordering::Release);
            result
        });
        let result = match result {
            Err(JobError::Stopped) if heartbeat.overdue.load(Ordering::Acquire) => {
                Err(JobError::Overdue(self.job_time))
            }
            result => result,
        };
        if result.is_err() {
            reporter.fail();
        }
        (reporter.made(), result)
    }

    /// Everything up to the first node: the graph's meaning, its model, what an earlier worker left.
    fn prepare(&mut self, claim: &Claim) -> Result<Ready, JobError> {
        if claim.attempts > self.max_attempts {
            let times = claim.attempts - 1;
            return Err(JobError::Refused(format!(
                "the server ended {times} times while it ran this job and got no further; it is not tried again"
            )));
        }
        let work = self.folders.of_job(claim.item.arrival);
        std::fs::create_dir_all(&work).map_err(|e| JobError::io(&work, e))?;
        let job = self.backend.job(&claim.item, &work).map_err(JobError::Refused)?;
        if self.pipeline.as_ref().is_none_or(|(open, _)| *open != job.model) {
            self.pipeline = None;
            self.pipeline = Some((job.model.clone(), self.backend.open(&job)?));
        }
        let model = self.pipeline.as_ref().map_or("", |(_, pipeline)| &pipeline.model().name);
        let restored = restore(&work, &job, model);
        let cached = restored.as_ref().map_or(0, |restored| cached_nodes(&job, restored, &work));
        Ok(Ready { job, restored, work, cached })
    }

    fn end(&self, claim: &Claim, made: Made, result: Result<(), JobError>, told: Told<'_>) {
        // Its own files may be what fills the disk, on which its end needs room. A failed job is never resumed.
        if result.is_err() {
            self.remove_work(claim);
        }
        let Made { node, executed, outputs, meta } = made;
        let timestamp = now_ms();
        let (verdict, event) = match result {
            Ok(()) => (Verdict::Success, Event::ExecutionSuccess { timestamp }),
            Err(JobError::Stopped) => {
                (Verdict::Interrupted, Event::ExecutionInterrupted { node, executed, timestamp })
            }
            Err(error) => {
                let (message, kind) = (error.message(), error.kind().to_owned());
                let failure = Failure { node, message, kind, executed, timestamp };
                (Verdict::Error, Event::ExecutionError(Box::new(failure)))
            }
        };
        match &event {
            Event::ExecutionError(f) => {
                tracing::error!(prompt_id = %told.job.prompt_id, node = f.node.id, "job failed: {}", f.message);
            }
            event => tracing::info!(prompt_id = %told.job.prompt_id, "{}", event.name()),
        }
        let Told { bus, job, mut messages } = told;
        messages.push(message(&event, job));
        let raw = |value: Value| to_raw_value(&value).unwrap_or_default();
        let outcome = Outcome {
            verdict,
            outputs: raw(outputs.into()),
            messages: raw(messages.into()),
            meta: raw(meta.into()),
        };
        if !self.finish(claim, &outcome) {
            return;
        }
        self.remove_work(claim);
        bus.publish(job, &event);
        bus.publish_status();
        bus.publish(job, &Event::Executing { node: None });
    }

    fn remove_work(&self, claim: &Claim) {
        let work = self.folders.of_job(claim.item.arrival);
        match std::fs::remove_dir_all(&work) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                tracing::debug!(%error, "{}: left to the next start", work.display());
            }
            _ => {}
        }
    }

    /// Whether the job is in the history now. A full disk is waited for: the job is not lost meanwhile.
    fn finish(&self, claim: &Claim, outcome: &Outcome) -> bool {
        loop {
            match self.queue.finish(&claim.lease, outcome) {
                Ok(()) => return true,
                Err(error @ QueueError::LeaseLost { .. }) => {
                    tracing::error!(%error, "the job's end is not recorded");
                    return false;
                }
                Err(error) => tracing::error!(%error, "the job's end cannot be recorded; trying again"),
            }
            if self.stop.load(Ordering::Acquire) {
                return false;
            }
            thread::sleep(Duration::from_secs(1));
        }
    }
}

/// The messages of one job: told to its client, and kept for the history.
struct Told<'a> {
    bus: &'a Bus,
    job: &'a JobRef,
    messages: Vec<Value>,
}

impl Told<'_> {
    fn tell(&mut self, event: Event) {
        self.messages.push(message(&event, self.job));
        self.bus.publish(self.job, &event);
    }
}

fn message(event: &Event, job: &JobRef) -> Value {
    json!([event.name(), event.data(&job.prompt_id)])
}

/// A panic in `work` is an error of the job.
fn caught<T>(work: impl FnOnce() -> Result<T, JobError>) -> Result<T, JobError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|payload| Err(JobError::panic(&*payload)))
}

/// How many nodes a restored job need not run again.
fn cached_nodes(job: &RenderJob, restored: &Job, work: &std::path::Path) -> usize {
    let stages = |index: usize| match &job.nodes[index].work {
        NodeWork::Stages(stages) => stages.as_slice(),
        _ => &[],
    };
    let mut indices = 0..job.nodes.len();
    if made_all(job, restored, work) {
        return indices.rev().find(|i| !stages(*i).is_empty()).map_or(0, |last| last + 1);
    }
    indices.find(|i| stages(*i).contains(&Stage::Denoise)).unwrap_or(0)
}

/// Whether all files of a restored job were made before the worker was lost.
pub(super) fn made_all(job: &RenderJob, restored: &Job, work: &std::path::Path) -> bool {
    let made = |(index, node): (usize, &super::job::JobNode)| match &node.work {
        NodeWork::Save(save) => OutputFiles::new(work, index, save).exist(),
        _ => true,
    };
    let whole = restored.state.sampler.step >= restored.plan.schedule.steps();
    whole && job.nodes.iter().enumerate().all(made)
}

impl Default for Made {
    fn default() -> Self {
        Self { node: Default::default(), executed: Vec::new(), outputs: Map::new(), meta: Map::new() }
    }
}
