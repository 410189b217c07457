use candle_core::{DType, Device};
use wan_checkpoint::Component;
use wan_clip::ClipVision;
use wan_core::progress::Stage;
use wan_core::{WeightSet, device};
use wan_dit::{Dit, DitConfig, Lora, LoraReport, swapped_blocks};
use wan_models::{LatentRgb, ModelDescription, ModelFiles, Source};
use wan_umt5::Umt5;
use wan_umt5::tokenizer::Tokenizer;
use wan_vae::Vae;

use crate::ahead::Ahead;
use crate::kept::KeptDit;
use crate::memory::stored_bytes;
use crate::remembered::Remembered;
use crate::{
    Budget, DitSizes, ImageEncoderSizes, LoraChoice, MemoryLimits, MemoryPlan, ModelSizes, PipelineError,
    Plan, Processor, Request, Result, TextEncoderSizes, VaeSizes,
};

/// The components of one model, each loaded when a stage asks for it and released when the stage drops it. This
/// is the only place that loads; no two large components are in memory together, but for a DiT that is kept.
pub(crate) struct Models {
    files: ModelFiles,
    device: Device,
    dtype: DType,
    limits: MemoryLimits,
    /// What the encoders made for earlier jobs.
    remembered: Remembered,
    /// The DiT between jobs.
    kept: KeptDit,
    /// The DiT of the job that is being prepared, and how many of its blocks are being copied to pinned memory.
    dit_ahead: Ahead<DitKey, (Dit, usize)>,
}

/// What the DiT of a job and the number of its swapped blocks follow from.
#[derive(PartialEq)]
struct DitKey {
    request: Request,
    size: [usize; 3],
}

impl DitKey {
    fn of(plan: &Plan) -> Self {
        Self { request: plan.request.clone(), size: [plan.width, plan.height, plan.frames] }
    }
}

impl Models {
    /// Looks at every component once, so that a wrong file is found in milliseconds and not after the stages
    /// before it. Weights stay mapped; nothing is kept.
    pub fn open(files: ModelFiles, device: Device, dtype: DType) -> Result<Self> {
        let on_host = Self {
            files,
            device: Device::Cpu,
            dtype,
            limits: MemoryLimits::default(),
            remembered: Remembered::default(),
            kept: KeptDit::default(),
            dit_ahead: Ahead::none(),
        };
        on_host.tokenizer()?;
        on_host.text_encoder(false)?;
        if on_host.files.image_encoder.is_some() {
            on_host.image_encoder()?;
        }
        on_host.vae()?;
        on_host.check_model_type(&on_host.dit(&[])?)?;
        Ok(Self { device, ..on_host })
    }

    /// A description is written by hand: the weights know better.
    fn check_model_type(&self, dit: &Dit) -> Result<()> {
        let (found, described) = (dit.config().model_type, self.description().model_type);
        let same = match described {
            wan_models::ModelType::I2v => found == wan_dit::ModelType::I2v,
            wan_models::ModelType::T2v => found == wan_dit::ModelType::T2v,
        };
        if same {
            return Ok(());
        }
        let weights = self.files.dit.weights()?;
        let expected = match described {
            wan_models::ModelType::I2v => "i2v",
            wan_models::ModelType::T2v => "t2v",
        };
        let expected = format!("{expected}, as the description of {} says", self.description().name);
        Err(wan_core::Error::invalid(weights.label(), format!("a {found} model"), expected).into())
    }

    pub fn description(&self) -> &ModelDescription {
        &self.files.description
    }

    /// Name of the DiT's file.
    pub fn dit_name(&self) -> String {
        self.files.dit.name()
    }

    pub fn device(&self) -> &Device {
        &self.device
    }

    pub fn dtype(&self) -> DType {
        self.dtype
    }

    pub fn latent_rgb(&self) -> Option<&LatentRgb> {
        self.files.latent_rgb.as_ref()
    }

    pub fn tokenizer(&self) -> Result<Tokenizer> {
        match &self.files.tokenizer {
            Source::File(path) => Ok(Tokenizer::from_file(path)?),
            inside => Ok(Tokenizer::from_bytes(&inside.read()?)?),
        }
    }

    /// `streamed`: whether its layers pass through the device one after the other, as the memory plan decides.
    pub fn text_encoder(&self, streamed: bool) -> Result<Umt5> {
        let weights = weights_of(&self.files.text_encoder, Component::TextEncoder)?;
        let mut encoder = Umt5::open(&weights, None, &self.device, self.dtype)?;
        encoder.place_blocks(streamed)?;
        Ok(encoder)
    }

    pub fn image_encoder(&self) -> Result<ClipVision> {
        let source = self.files.image_encoder.as_ref().ok_or_else(|| {
            PipelineError::request("image", "an image", "none: this model has no image encoder")
        })?;
        Ok(ClipVision::open(&weights_of(source, Component::ImageEncoder)?, None, &self.device, self.dtype)?)
    }

    pub fn vae(&self) -> Result<Vae> {
        Ok(Vae::open(&weights_of(&self.files.vae, Component::Vae)?, None, &self.device, self.dtype)?)
    }

    pub fn dit(&self, loras: &[LoraChoice]) -> Result<Dit> {
        let (weights, loras) = (weights_of(&self.files.dit, Component::Dit)?, open_loras(loras)?);
        Ok(Dit::open_with_loras(&weights, None, &loras, &self.device, self.dtype)?.0)
    }

    /// The DiT's hyper-parameters, from its header: nothing of it is loaded.
    pub fn dit_config(&self) -> Result<DitConfig> {
        Ok(DitConfig::read(&weights_of(&self.files.dit, Component::Dit)?, None)?)
    }

    /// Opens the DiT of a job whose encoders are about to run, and starts to copy the blocks that will be swapped.
    /// Nothing where none will be, or where one was kept.
    pub fn copy_dit_ahead(&self, plan: &Plan) -> Result<()> {
        let swapped = match self.device.is_cuda() && !self.kept.is_some() {
            true => self.memory(plan, Stage::EncodeText)?.swapped_blocks,
            false => 0,
        };
        if swapped == 0 {
            self.forget_dit();
            return Ok(());
        }
        self.dit_ahead.put(DitKey::of(plan), || {
            let mut dit = self.dit(&plan.request.loras)?;
            dit.copy_blocks(&swapped_blocks(dit.blocks(), swapped))?;
            Ok((dit, swapped))
        })
    }

    /// Drops what [`Self::copy_dit_ahead`] has started.
    pub fn forget_dit(&self) {
        self.dit_ahead.clear();
    }

    /// The DiT of a job, as its numerics ask, and how many of its blocks shall be swapped: those that are being copied
    /// already, else those of `memory`.
    pub fn dit_for(&self, plan: &Plan, memory: &MemoryPlan) -> Result<(Dit, usize)> {
        let (dit, swapped) = match self.dit_ahead.take(&DitKey::of(plan)) {
            Some(ahead) => ahead,
            None => (self.dit(&plan.request.loras)?, memory.swapped_blocks),
        };
        Ok((dit.with_numerics(plan.request.numerics()), swapped))
    }

    /// Whether the DiT has positions for the tokens of two images.
    pub fn takes_end_image(&self) -> Result<bool> {
        Ok(self.dit_config()?.takes_end_image())
    }

    /// What the encoders made for earlier jobs.
    pub fn remembered(&self) -> &Remembered {
        &self.remembered
    }

    /// Expects more jobs: the DiT may stay after each.
    pub fn keeping_dit(self) -> Self {
        Self { kept: KeptDit::wanted(), ..self }
    }

    /// The DiT between jobs.
    pub fn kept(&self) -> &KeptDit {
        &self.kept
    }

    /// Releases what earlier jobs left and `plan` has no room for or no use of.
    pub fn make_room(&self, plan: &Plan) -> Result<()> {
        self.kept.make_room(plan, &self.memory(plan, Stage::EncodeText)?);
        Ok(())
    }

    pub fn with_limits(self, limits: MemoryLimits) -> Self {
        Self { limits, ..self }
    }

    /// The memory of a stage, to be declared before its component: when both are dropped, in reverse order, what the
    /// component took is free for the next stage, other programs and the driver's own count, and not kept by allocators.
    pub fn stage_memory(&self) -> StageMemory<'_> {
        StageMemory { device: &self.device }
    }

    /// What a job may use on this machine. A DiT that is kept counts as free: it is used, or it goes.
    pub fn budget(&self) -> Budget {
        let processor = if self.device.is_cuda() { Processor::Gpu } else { Processor::Cpu };
        let free = device::free_bytes(&self.device).map(|free| free + self.kept.device_bytes());
        Budget::of_this_machine(processor, self.limits, free)
    }

    /// What `plan` takes from stage `first` on, and how it is made to fit.
    pub fn memory(&self, plan: &Plan, first: Stage) -> Result<MemoryPlan> {
        MemoryPlan::new(&self.sizes(&plan.request.loras)?, plan, first, self.budget())
    }

    /// Sizes of all components, read off headers.
    pub fn sizes(&self, loras: &[LoraChoice]) -> Result<ModelSizes> {
        let files = &self.files;
        let image = files.image_encoder.as_ref();
        Ok(ModelSizes {
            dtype: self.dtype,
            text_encoder: TextEncoderSizes::read(&files.text_encoder.weights()?, files.tokenizer.bytes())?,
            image_encoder: image
                .map(|s| Ok::<_, PipelineError>(ImageEncoderSizes::read(&s.weights()?)?))
                .transpose()?,
            vae: self.vae_sizes()?,
            dit: DitSizes::read(&files.dit.weights()?)?,
            loras: open_loras(loras)?.iter().map(|lora| stored_bytes(&lora.weights)).sum(),
        })
    }

    /// Sizes of the VAE alone.
    pub fn vae_sizes(&self) -> Result<VaeSizes> {
        Ok(VaeSizes::read(&self.files.vae.weights()?)?)
    }

    pub fn lora_reports(&self, loras: &[LoraChoice]) -> Result<Vec<LoraReport>> {
        Ok(LoraReport::of(&weights_of(&self.files.dit, Component::Dit)?, &open_loras(loras)?)?)
    }
}

/// Gives back what allocators keep of a stage; see [`Models::stage_memory`].
pub(crate) struct StageMemory<'m> {
    device: &'m Device,
}

impl Drop for StageMemory<'_> {
    fn drop(&mut self) {
        // A device that fails here fails at its next use, which has somebody to tell.
        let _ = wan_ops::release_unused(self.device);
    }
}

fn open_loras(loras: &[LoraChoice]) -> Result<Vec<Lora>> {
    let open = |lora: &LoraChoice| {
        Ok(Lora {
            weights: WeightSet::open(&lora.path)?,
            strength: lora.strength as f32,
            blocks: lora.blocks.clone(),
        })
    };
    loras.iter().map(open).collect()
}

/// Opens weights and checks that they are those of `component`, which files in the wrong place are not.
fn weights_of(source: &Source, component: Component) -> Result<WeightSet> {
    let weights = source.weights()?;
    wan_checkpoint::expect(&weights, component)?;
    Ok(weights)
}
