//! A worker over the embedded model, jobs for it, and a client that writes down what it hears.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use candle_core::{DType, Device};
use serde_json::value::to_raw_value;
use serde_json::{Value, json};
use wan_core::progress::Stage;
use wan_media::{Alpha, VideoOptions};
use wan_models::{Places, Registry};
use wan_pipeline::{Pipeline, PipelineError, Request};
use wan_queue::{EmbeddedQueue, HistoryEntry, JobQueue, Limits, Priority, QueueItem, Submission};
use wan_serve::worker::{
    Backend, Bus, Event, EventSink, Folder, Folders, JobNode, JobRef, NodeRef, NodeWork, RenderJob, SaveKind,
    SaveNode, Worker, WorkerConfig,
};

/// Understands graphs of one object: `{seed, steps, ...}`.
pub struct TestBackend {
    pub image: PathBuf,
    /// The first job that fails takes the device with it.
    pub device_fails: bool,
}

impl Backend for TestBackend {
    fn job(&self, item: &QueueItem, _work: &Path) -> Result<RenderJob, String> {
        let graph: Value = serde_json::from_str(item.prompt.get()).map_err(|e| e.to_string())?;
        if graph["refuse"] == true {
            return Err("the graph makes no sense".into());
        }
        assert!(graph["panic"] != true, "a defect");
        let model = Registry::builtin().and_then(|r| r.find("tiny")).map_err(|e| e.to_string())?;
        let mut request = Request::with_defaults(&model.defaults).map_err(|e| e.to_string())?;
        (request.width, request.height, request.frames) = (64, 64, 5);
        request.steps = graph["steps"].as_u64().unwrap_or(2) as usize;
        request.seed = graph["seed"].as_u64().unwrap_or(0);
        request.riflex_freq_index = graph["riflex"].as_u64().unwrap_or(0) as usize;
        if let Some(scheduler) = graph["scheduler"].as_str() {
            request.scheduler = scheduler.parse().map_err(|_| "scheduler".to_owned())?;
        }
        if graph["huge"] == true {
            (request.width, request.height, request.frames) = (8192, 8192, 9997);
        }
        request.prompt = "a balloon".into();
        let prefix = graph["prefix"].as_str().unwrap_or("clip").to_owned();
        let save = |kind| NodeWork::Save(SaveNode { kind, folder: Folder::Output, prefix: prefix.clone() });
        let combined = SaveKind::Combined {
            video: VideoOptions::default(),
            format: "video/h264-mp4".into(),
            save_metadata: true,
            first_frame: true,
        };
        let node = |id: &str, class: &str, work| JobNode {
            node: NodeRef { id: id.into(), class_type: class.into() },
            work,
        };
        let mut nodes = vec![
            node("43", "WanVideoVAELoader", NodeWork::Nothing),
            node("42", "LoadImage", NodeWork::Nothing),
            node("49", "WanVideoTextEncode", NodeWork::Stages(vec![Stage::EncodeText])),
            node(
                "50",
                "WanVideoImageClipEncode",
                NodeWork::Stages(vec![Stage::EncodeImage, Stage::EncodeCondition]),
            ),
            node("52", "WanVideoSampler", NodeWork::Stages(vec![Stage::Denoise])),
            node("53", "WanVideoDecode", NodeWork::Stages(vec![Stage::Decode])),
            node("38", "GetImageSizeAndCount", NodeWork::Measure),
            node("54", "VHS_VideoCombine", save(combined)),
        ];
        if graph["frames"] == true {
            nodes.push(node("55", "SaveImage", save(SaveKind::Frames)));
            nodes.push(node("56", "SaveVideo", save(SaveKind::Video { video: VideoOptions::default() })));
        }
        Ok(RenderJob {
            model: "tiny".into(),
            request,
            image: Some(self.image.clone().into()),
            end_image: None,
            alpha: Alpha::Drop,
            nodes,
        })
    }

    fn open(&self, _: &RenderJob) -> Result<Pipeline, PipelineError> {
        let registry = Registry::builtin()?;
        let files = registry.resolve(&registry.find("tiny")?, &Places::folder("none"))?;
        Pipeline::open(files, Device::Cpu, DType::F32)
    }

    fn is_device_lost(&self) -> bool {
        self.device_fails
    }
}

/// Called with each event of a job, and with the number of jobs left.
type Hook = dyn Fn(&JobRef, &Event) + Send + Sync;

/// Writes down what a client hears.
#[derive(Clone)]
pub struct Ear {
    pub heard: Arc<Mutex<Vec<(String, Value)>>>,
    pub previews: Arc<Mutex<Vec<Arc<[u8]>>>>,
    pub hook: Arc<Hook>,
}

impl Ear {
    pub fn new(hook: impl Fn(&JobRef, &Event) + Send + Sync + 'static) -> Self {
        Self { heard: Arc::default(), previews: Arc::default(), hook: Arc::new(hook) }
    }
}

impl EventSink for Ear {
    fn job_event(&self, job: &JobRef, event: &Event) {
        if let Event::Progress { preview: Some(jpeg), .. } = event {
            self.previews.lock().unwrap().push(jpeg.clone());
        }
        let data = event.data(&job.prompt_id);
        self.heard.lock().unwrap().push((event.name().to_owned(), data));
        (self.hook)(job, event);
    }

    fn status(&self, queue_remaining: usize) {
        self.heard.lock().unwrap().push(("status".into(), json!(queue_remaining)));
    }

    fn wants_previews(&self, job: &JobRef) -> bool {
        job.client_id.is_some()
    }
}

/// A queue, a worker and an ear over one folder.
pub struct Shop {
    pub queue: Arc<EmbeddedQueue>,
    pub worker: Worker,
    pub folders: Folders,
}

impl Shop {
    pub fn open(folder: &Path, ear: &Ear, max_attempts: u32) -> Self {
        let queue = Arc::new(EmbeddedQueue::open(folder, Limits::default()).unwrap());
        Self::over(queue, folder, ear, max_attempts)
    }

    pub fn over(queue: Arc<EmbeddedQueue>, folder: &Path, ear: &Ear, max_attempts: u32) -> Self {
        let config = WorkerConfig { max_attempts, ..WorkerConfig::new(Folders::below(folder)) };
        Self::configured(queue, folder, ear, config, false)
    }

    /// One whose device is lost with the first job that fails, which then calls `on_device_lost`.
    pub fn with_failing_device(
        queue: Arc<EmbeddedQueue>,
        folder: &Path,
        ear: &Ear,
        on_device_lost: impl FnOnce() + Send + 'static,
    ) -> Self {
        let on_device_lost = Box::new(on_device_lost);
        let config = WorkerConfig { on_device_lost, ..WorkerConfig::new(Folders::below(folder)) };
        Self::configured(queue, folder, ear, config, true)
    }

    /// One on a disk with so much room.
    pub fn with_room(folder: &Path, bytes: u64) -> Self {
        let queue = Arc::new(EmbeddedQueue::open(folder, Limits::default()).unwrap());
        let has_room =
            Box::new(move |needed| if needed <= bytes { Ok(()) } else { Err(format!("needs {needed}")) });
        let config = WorkerConfig { has_room, ..WorkerConfig::new(Folders::below(folder)) };
        Self::configured(queue, folder, &Ear::new(|_, _| {}), config, false)
    }

    fn configured(
        queue: Arc<EmbeddedQueue>,
        folder: &Path,
        ear: &Ear,
        config: WorkerConfig,
        device_fails: bool,
    ) -> Self {
        let image = folder.join("sample.png");
        std::fs::write(&image, Registry::sample_image()).unwrap();
        let folders = config.folders.clone();
        let bus = Arc::new(Bus::new(queue.clone(), Box::new(ear.clone())));
        let backend = Box::new(TestBackend { image, device_fails });
        let worker = Worker::start(queue.clone(), bus, backend, config).unwrap();
        Self { queue, worker, folders }
    }

    pub fn wait_for(&self, prompt_id: &str) -> HistoryEntry {
        wait_for(&*self.queue, prompt_id)
    }

    pub fn output(&self, name: &str) -> PathBuf {
        self.folders.output.join(name)
    }
}

pub fn wait_for(queue: &dyn JobQueue, prompt_id: &str) -> HistoryEntry {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let seen = queue.revision();
        if let Some(entry) = queue.history_entry(prompt_id).unwrap() {
            return entry;
        }
        assert!(Instant::now() < deadline, "{prompt_id} does not end");
        queue.wait_for_change(seen, Duration::from_secs(1));
    }
}

pub fn submit(queue: &dyn JobQueue, prompt_id: &str, graph: Value) {
    let extra = json!({"client_id": "me", "extra_pnginfo": {"workflow": {"nodes": []}}});
    let submission = Submission {
        prompt_id: prompt_id.into(),
        priority: Priority::Next,
        prompt: to_raw_value(&graph).unwrap(),
        extra_data: to_raw_value(&extra).unwrap(),
        outputs: vec!["54".into()],
    };
    queue.submit(&submission).unwrap();
}

pub fn status(entry: &HistoryEntry) -> Value {
    serde_json::to_value(entry).unwrap()["status"].clone()
}

pub fn outputs(entry: &HistoryEntry) -> Value {
    serde_json::to_value(entry).unwrap()["outputs"].clone()
}
