//! Request to video, in one direction: condition, denoise, decode, and out to a sink of frames.
//!
//! A [`Plan`] derives every size from a [`Request`] before any weight is touched; [`Pipeline::prepare`] runs the
//! encoders, [`Pipeline::denoise`] the solver, [`Pipeline::decode`] the VAE, and [`Pipeline::generate`] is
//! nothing but the three in a row. A caller may stop between any two, or between any two steps, and keep the
//! [`Job`] as a file ([`SavedJob`]).
//!
//! What is not here: printing, progress bars, HTTP, downloads.

mod ahead;
mod by_name;
mod condition;
mod decode;
mod denoise;
mod error;
mod finite;
mod frames;
mod images;
mod kept;
mod lora;
mod memory;
mod models;
mod node_options;
mod plan;
mod preview;
mod prompt;
mod remembered;
mod request;
mod state;
mod swapping;
mod teacache;
mod velocity;
mod windows;

use candle_core::{DType, Device, Tensor};
use wan_core::progress::{CancelToken, Observer, Stage};
use wan_media::RgbImage;
use wan_models::{ModelDescription, ModelFiles};

pub use condition::{Conditioning, image_tensor};
pub use error::{PipelineError, Result, what_fits};
pub use frames::FrameSink;
pub use images::Images;
pub use lora::LoraChoice;
pub use memory::{
    BlocksToSwap, Budget, DecodeMode, DitSizes, ImageEncoderSizes, MemoryItem, MemoryLimits, MemoryPlan,
    ModelSizes, Processor, TextEncoderSizes, VaeSizes,
};
pub(crate) use models::Models;
pub use node_options::NodeOptions;
pub use plan::Plan;
pub use preview::latent_preview;
pub use prompt::{Prompt, PromptSyntax};
pub use request::{OutputRange, Request, TilingChoice};
pub use state::{DenoiseState, Job, SavedJob, load_tensor, save_tensors};
pub use teacache::{TeaCache, TeaCacheMode};
pub use wan_clip::ImageFit;
pub use wan_dit::{AttentionChoice, LoraReport, Numerics, Precision};
pub use wan_ops::keep_tuning;
pub use wan_sampler::GuidanceInterval;
pub use wan_vae::Tiling;
pub use windows::{ContextWindows, WindowSchedule};

/// A model that is ready to make videos on one device. Between jobs it keeps what its encoders made, and the next job on
/// the same inputs begins with that; for the DiT see [`Self::keeping_dit`].
pub struct Pipeline {
    models: Models,
}

impl Pipeline {
    /// Opens a model and checks every file of it.
    ///
    /// `dtype` is that of the activations: f32 on the CPU.
    ///
    /// Errors: a file that is damaged, of another model, or lacks tensors, named.
    pub fn open(files: ModelFiles, device: Device, dtype: DType) -> Result<Self> {
        Ok(Self { models: Models::open(files, device, dtype)? })
    }

    /// The model's description.
    pub fn model(&self) -> &ModelDescription {
        self.models.description()
    }

    /// Checks a request against this model and derives its sizes.
    ///
    /// Errors: as [`Plan::new`].
    pub fn plan(&self, request: Request, image: Option<&RgbImage>) -> Result<Plan> {
        let size = image.map(|i| (i.width() as usize, i.height() as usize));
        Plan::new(request, self.model().model_type, size)
    }

    /// Checks the request's LoRA files against the model, and says what becomes of their tensors. Reads headers only.
    ///
    /// Errors: a file that cannot be read, or does not fit.
    pub fn loras(&self, plan: &Plan) -> Result<Vec<LoraReport>> {
        self.models.lora_reports(&plan.request.loras)
    }

    /// The same pipeline under limits on its memory.
    pub fn with_limits(self, limits: MemoryLimits) -> Self {
        Self { models: self.models.with_limits(limits) }
    }

    /// The same pipeline, which expects more jobs than one: after each its DiT stays where the memory plan has room for it
    /// beside the other stages.
    pub fn keeping_dit(self) -> Self {
        Self { models: self.models.keeping_dit() }
    }

    /// What the job will take on this machine from the stage `first` on, stage by stage, and the settings that follow:
    /// blocks that are swapped, how the VAE decodes. [`MemoryPlan::check`] refuses what does not fit.
    ///
    /// Errors: if a component's headers cannot be read.
    pub fn memory(&self, plan: &Plan, first: Stage) -> Result<MemoryPlan> {
        self.models.memory(plan, first)
    }

    /// [`Self::memory`] of a whole job on another machine.
    ///
    /// Errors: if a component's headers cannot be read.
    pub fn memory_within(&self, plan: &Plan, budget: Budget) -> Result<MemoryPlan> {
        MemoryPlan::new(&self.models.sizes(&plan.request.loras)?, plan, Stage::EncodeText, budget)
    }

    /// Runs the encoders and makes the initial noise, or takes the caller's: `[16, F, h, w]` f32.
    ///
    /// Errors: an end image that the model has no place for; loading and computing; [`wan_core::Error::Cancelled`].
    pub fn prepare<'a>(
        &self,
        plan: Plan,
        images: impl Into<Images<'a>>,
        noise: Option<&Tensor>,
        observer: &dyn Observer,
        cancel: &CancelToken,
    ) -> Result<Job> {
        let images = images.into();
        self.check_riflex(&plan)?;
        teacache::check_model(&self.models, &plan)?;
        self.check_end_image(images)?;
        let plan = plan.with_end_image(images.last.is_some())?;
        let state = DenoiseState::start(&plan, noise)?;
        self.models.make_room(&plan)?;
        self.models.copy_dit_ahead(&plan)?;
        match condition::condition(&self.models, &plan, images, observer, cancel) {
            Ok(conditioning) => Ok(Job { plan, conditioning, state }),
            Err(error) => {
                self.models.forget_dit();
                Err(error)
            }
        }
    }

    /// Whether the model makes the video between two images.
    ///
    /// Errors: weights that cannot be read.
    pub fn takes_end_image(&self) -> Result<bool> {
        self.models.takes_end_image()
    }

    fn check_end_image(&self, images: Images<'_>) -> Result<()> {
        if images.last.is_none() || self.takes_end_image()? {
            return Ok(());
        }
        let expected = format!(
            "none: {} has no place for a second image; a first-and-last-frame model (FLF2V) has",
            self.model().name
        );
        Err(PipelineError::request("end-image", "an image", expected))
    }

    /// The DiT uses the index only after the encoders have run: too late to learn that there is no such frequency.
    fn check_riflex(&self, plan: &Plan) -> Result<()> {
        let index = plan.request.riflex_freq_index;
        if index == 0 {
            return Ok(());
        }
        let count = wan_dit::RopeTable::temporal_frequencies(self.models.dit_config()?.head_dim());
        if index > count {
            let expected = format!("0 to {count}, the temporal frequencies of this model");
            return Err(PipelineError::request("riflex-freq-index", index, expected));
        }
        Ok(())
    }

    /// Takes the steps that are left of a job. After an error, cancellation included, `job.state` is that after
    /// the last whole step, from which the run can go on.
    ///
    /// Errors: loading and computing; [`wan_core::Error::NonFinite`] naming the step;
    /// [`wan_core::Error::Cancelled`].
    pub fn denoise(&self, job: &mut Job, observer: &dyn Observer, cancel: &CancelToken) -> Result<()> {
        self.denoise_keeping(job, &mut |_| {}, observer, cancel)
    }

    /// As [`Self::denoise`], and shows the state after each step to `keep`, before the step is reported: whoever
    /// keeps it can go on from there after a crash.
    ///
    /// Errors: those of [`Self::denoise`].
    pub fn denoise_keeping(
        &self,
        job: &mut Job,
        keep: &mut dyn FnMut(&DenoiseState),
        observer: &dyn Observer,
        cancel: &CancelToken,
    ) -> Result<()> {
        denoise::denoise(&self.models, job, keep, observer, cancel)
    }

    /// Decodes `latents` `[1, 16, F, h, w]` and hands each frame to `sink`, as RGB bytes in order.
    ///
    /// Errors: loading, computing, the sink's own; [`wan_core::Error::NonFinite`];
    /// [`wan_core::Error::Cancelled`].
    pub fn decode(
        &self,
        plan: &Plan,
        latents: &Tensor,
        sink: &mut FrameSink<'_>,
        observer: &dyn Observer,
        cancel: &CancelToken,
    ) -> Result<()> {
        decode::decode(&self.models, plan, latents, sink, observer, cancel)
            .map_err(|e| e.during(Stage::Decode))
    }

    /// [`Self::prepare`], [`Self::denoise`] and [`Self::decode`] in a row; returns the final latents.
    ///
    /// Errors: those of the three.
    pub fn generate(
        &self,
        plan: Plan,
        image: Option<&RgbImage>,
        sink: &mut FrameSink<'_>,
        observer: &dyn Observer,
        cancel: &CancelToken,
    ) -> Result<Tensor> {
        let mut job = self.prepare(plan, image, None, observer, cancel)?;
        self.denoise(&mut job, observer, cancel)?;
        self.decode(&job.plan, &job.state.latents, sink, observer, cancel)?;
        Ok(job.state.latents)
    }
}
