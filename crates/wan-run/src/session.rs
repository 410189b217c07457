//! What the jobs of one command have in common.

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;

use wan_core::device::{DeviceChoice, compute_dtype};
use wan_core::progress::CancelToken;
use wan_models::{ModelDescription, Registry};
use wan_pipeline::{MemoryLimits, Numerics, Pipeline};

use crate::error::Outcome;
use crate::options::Options;
use crate::progress::Reporter;

/// The terminal, the request to stop, and the model of the last job, which stays open for the next one.
pub struct Session<'a> {
    /// Shows what happens.
    pub reporter: &'a Reporter,
    /// Whether the user wants to stop.
    pub cancel: &'a CancelToken,
    /// The models that there are.
    pub registry: Registry,
    /// Whether there is more than one job.
    several: bool,
    opened: RefCell<Option<(Key, Rc<Pipeline>)>>,
}

/// What decides whether an open model can be used again.
#[derive(PartialEq)]
struct Key {
    model: ModelDescription,
    models_dir: PathBuf,
    extra_model_paths: Option<PathBuf>,
    device: DeviceChoice,
    limits: MemoryLimits,
}

impl Key {
    fn new(options: &Options) -> Self {
        Self {
            model: options.model.clone(),
            models_dir: options.models_dir.clone(),
            extra_model_paths: options.extra_model_paths.clone(),
            device: options.device,
            limits: options.limits,
        }
    }
}

impl<'a> Session<'a> {
    /// A session of one job, or of several, without an open model.
    pub fn new(reporter: &'a Reporter, cancel: &'a CancelToken, several: bool) -> Outcome<Self> {
        Ok(Self { reporter, cancel, registry: Registry::builtin()?, several, opened: RefCell::new(None) })
    }

    /// The model that `options` ask for: the open one if it is the same, else that one instead.
    ///
    /// Errors: exit 1 for files that are missing or damaged, and a device that cannot be used.
    pub fn open(&self, options: &Options) -> Outcome<Rc<Pipeline>> {
        let key = Key::new(options);
        let mut opened = self.opened.borrow_mut();
        if let Some((open, pipeline)) = opened.as_ref()
            && *open == key
        {
            return Ok(pipeline.clone());
        }
        *opened = None; // its memory first
        let files = self.registry.resolve(&options.model, &options.places()?)?;
        let device = options.open_device(|line| self.reporter.note(line))?;
        let numerics = options.request.numerics();
        if device.is_cpu() && numerics != Numerics::default() {
            self.reporter.note("fast, precision and attention have no effect on the CPU");
        }
        let dtype = compute_dtype(&device);
        let pipeline = Pipeline::open(files, device, dtype)?.with_limits(options.limits);
        let pipeline = Rc::new(if self.several { pipeline.keeping_dit() } else { pipeline });
        *opened = Some((key, pipeline.clone()));
        Ok(pipeline)
    }
}
