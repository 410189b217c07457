use bytesize::ByteSize;
use candle_core::DType;
use serde::{Serialize, Serializer};
use wan_core::progress::Stage;
use wan_vae::{MemoryEstimate, Tiling};

use super::{Budget, JobShape, ModelSizes, Processor, VaeSizes, advice, device, host};
use crate::{PipelineError, Plan, Result, TilingChoice};

/// How the VAE turns latents into frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DecodeMode {
    /// The whole picture, frame by frame.
    Whole,
    /// All tiles of a latent frame before the next one; each tile keeps its own caches, frames come in order.
    TimeOuter,
    /// All frames of a tile before the next one, blended in main memory; frames come at the end. The same values.
    TileOuter,
}

/// What one stage takes, in bytes. It holds one component, which is dropped before the next stage begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MemoryItem {
    /// The stage.
    #[serde(serialize_with = "stage_name")]
    pub stage: Stage,
    /// Its weights as stored. They are mapped: page cache, given back under pressure.
    pub weights_bytes: u64,
    /// Main memory that it allocates, pinned memory included.
    pub host_bytes: u64,
    /// Main memory of the process meanwhile: libraries, what the allocator keeps back, the video's encoder.
    pub process_bytes: u64,
    /// Weights on the GPU; 0 where the CPU computes.
    pub device_weights_bytes: u64,
    /// Activations, caches, context and libraries on the GPU; 0 where the CPU computes.
    pub device_working_bytes: u64,
}

impl MemoryItem {
    /// Everything in main memory but mapped weights.
    pub fn host_total_bytes(&self) -> u64 {
        self.host_bytes + self.process_bytes
    }

    /// Everything on the GPU.
    pub fn device_bytes(&self) -> u64 {
        self.device_weights_bytes + self.device_working_bytes
    }
}

fn stage_name<S: Serializer>(stage: &Stage, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(stage.name())
}

/// What all stages take, and the settings that follow from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MemoryPlan {
    /// What may be used.
    pub budget: Budget,
    /// Stage by stage, in the order they run in.
    pub items: Vec<MemoryItem>,
    /// Blocks of the DiT.
    pub blocks: usize,
    /// How many of them lie in pinned host memory while it denoises; always 0 where the CPU computes.
    pub swapped_blocks: usize,
    /// Whether the text encoder's layers pass through the GPU one after the other.
    pub text_layers_streamed: bool,
    /// How the VAE decodes.
    pub decode: DecodeMode,
    /// Tiles of a frame; 1 if decoded whole.
    pub tiles: usize,
    /// Where the plan does not fit: options that do, nearest first; each is a part of a command line.
    pub advice: Vec<String>,
    /// What of the request has no effect, and why.
    pub notes: Vec<String>,
}

/// How the VAE decodes a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DecodeWay {
    pub mode: DecodeMode,
    /// Tiles of a frame.
    pub tiles: usize,
    /// Latent frames at a time.
    pub together: usize,
}

/// How the VAE decodes `plan` within `budget`; for the stage itself, which needs nothing else of the plan.
pub(crate) fn decode_way(vae: &VaeSizes, plan: &Plan, budget: Budget, dtype: DType) -> Result<DecodeWay> {
    let job = JobShape::of(plan, Stage::Decode).checked()?;
    Ok(match budget.processor {
        Processor::Cpu => host::decode(vae, &job, budget, dtype)?.0,
        Processor::Gpu => device::decode(vae, &job, budget)?.0,
    })
}

impl DecodeMode {
    /// The modes that a choice of tiling leaves, in the order in which they are tried.
    pub(super) fn allowed_by(tiling: TilingChoice) -> &'static [Self] {
        match tiling {
            TilingChoice::Auto => &[Self::Whole, Self::TimeOuter, Self::TileOuter],
            TilingChoice::On => &[Self::TimeOuter, Self::TileOuter],
            TilingChoice::Off => &[Self::Whole],
        }
    }

    /// What decoding so takes, the frames that wait in main memory not counted.
    pub(super) fn estimate(self, vae: &VaeSizes, job: &JobShape, dtype: DType) -> Result<MemoryEstimate> {
        let (config, latent) = (&vae.config, job.latent());
        let (h, w) = (latent.height, latent.width);
        Ok(match self {
            Self::Whole => config.decode_memory(h, w, None, dtype)?,
            Self::TimeOuter => config.decode_memory(h, w, Some(&job.tile), dtype)?,
            Self::TileOuter => config.decode_memory_tile_outer(h, w, &job.tile, dtype)?,
        })
    }

    /// Most latent frames that a GPU had best decode at a time so.
    pub(super) fn most_together(self, vae: &VaeSizes, job: &JobShape) -> Result<usize> {
        let latent = job.latent();
        let together =
            |tiling: Option<&Tiling>| vae.config.decode_together(latent.height, latent.width, tiling);
        Ok(match self {
            Self::Whole => together(None)?,
            Self::TimeOuter => together(Some(&job.tile))?,
            Self::TileOuter => 1, // where memory is short
        })
    }

    /// Bytes of the frames that wait in main memory: for the last tile where tiles come one after the other, and for the
    /// last frame where values are stretched.
    pub(super) fn waiting_bytes(self, job: &JobShape) -> u64 {
        if self == Self::TileOuter || job.keeps_frames { job.frames_bytes() } else { 0 }
    }
}

impl MemoryPlan {
    /// Plans `plan` on a model of `sizes` within `budget`: the fewest swapped blocks and the plainest decoding that fit.
    /// Where nothing does, the plan is that which takes least, and `advice` has settings that fit.
    ///
    /// Stages before `first`, such as those of a job that is resumed, are left out.
    ///
    /// Errors: tile sizes that make no sense.
    pub fn new(sizes: &ModelSizes, plan: &Plan, first: Stage, budget: Budget) -> Result<Self> {
        let job = JobShape::of(plan, first).checked()?;
        let mut memory = Self::of_job(sizes, &job, budget)?;
        if budget.processor == Processor::Cpu && !job.blocks_to_swap.is_auto() {
            memory.notes.push(
                "blocks-to-swap has no effect on the CPU: its weights are mapped from their file and take no memory of \
                 their own"
                    .into(),
            );
        }
        if !memory.fits() {
            memory.advice = advice::nearest(sizes, &job, budget)?;
        }
        Ok(memory)
    }

    /// The plan, without advice.
    pub(crate) fn of_job(sizes: &ModelSizes, job: &JobShape, budget: Budget) -> Result<Self> {
        let mut memory = match budget.processor {
            Processor::Cpu => host::plan(sizes, job, budget)?,
            Processor::Gpu => device::plan(sizes, job, budget)?,
        };
        let before = memory.items.iter().take_while(|i| i.stage != job.first).count();
        memory.items.drain(..before);
        Ok(memory)
    }

    /// Most bytes of main memory that are allocated at one time.
    pub fn host_peak_bytes(&self) -> u64 {
        self.items.iter().map(MemoryItem::host_total_bytes).max().unwrap_or(0)
    }

    /// Most bytes of the GPU's memory that are in use at one time.
    pub fn device_peak_bytes(&self) -> u64 {
        self.items.iter().map(MemoryItem::device_bytes).max().unwrap_or(0)
    }

    /// Whether every stage fits; yes where nobody can tell how much there is.
    pub fn fits(&self) -> bool {
        self.budget.host_bytes.is_none_or(|limit| self.host_peak_bytes() <= limit)
            && self.budget.device_bytes.is_none_or(|limit| self.device_peak_bytes() <= limit)
    }

    /// Refuses a job that does not fit.
    ///
    /// Errors: [`PipelineError::Memory`] naming each stage that is too large, with what it needs and what there is, and
    /// the nearest settings that fit.
    pub fn check(&self) -> Result<()> {
        if self.fits() {
            return Ok(());
        }
        Err(PipelineError::Memory { shortage: self.shortages().join("; "), advice: self.advice.clone() })
    }

    fn shortages(&self) -> Vec<String> {
        let too_much = |stage: Stage, bytes: u64, limit: Option<u64>, what: &str| {
            let limit = limit.filter(|limit| bytes > *limit)?;
            Some(format!("{} needs {} of {what}, of which there is {}", stage.name(), iec(bytes), iec(limit)))
        };
        let budget = &self.budget;
        let host = match budget.host_is_limit {
            true => "main memory (--max-ram)",
            false => "main memory",
        };
        let of = |i: &MemoryItem| {
            [
                too_much(i.stage, i.device_bytes(), budget.device_bytes, "GPU memory"),
                too_much(i.stage, i.host_total_bytes(), budget.host_bytes, host),
            ]
        };
        self.items.iter().flat_map(of).flatten().collect()
    }

    fn tiles_text(&self) -> String {
        match self.tiles {
            1 => "1 tile".into(),
            tiles => format!("{tiles} tiles"),
        }
    }

    /// What was chosen and what it takes, in one line for people.
    pub fn summary(&self) -> String {
        let mut parts = Vec::new();
        if self.budget.processor == Processor::Gpu {
            parts.push(format!("{} of {} blocks swapped", self.swapped_blocks, self.blocks));
            if self.text_layers_streamed {
                parts.push("text encoder streamed".into());
            }
        }
        parts.push(match self.decode {
            DecodeMode::Whole => "decoded whole".to_string(),
            DecodeMode::TimeOuter => format!("decoded in {}", self.tiles_text()),
            DecodeMode::TileOuter => format!("decoded in {}, one after the other", self.tiles_text()),
        });
        let of = |limit: Option<u64>, word: &str| {
            limit.map_or(String::new(), |limit| format!(" of {} {word}", iec(limit)))
        };
        if self.budget.processor == Processor::Gpu {
            let limit = of(self.budget.device_bytes, "given");
            parts.push(format!("at most {} of GPU memory{limit}", iec(self.device_peak_bytes())));
        }
        let limit = of(self.budget.host_bytes, if self.budget.host_is_limit { "given" } else { "free" });
        parts.push(format!("at most {} of memory{limit}", iec(self.host_peak_bytes())));
        parts.join(", ")
    }
}

/// Bytes for people, in powers of 1024.
fn iec(bytes: u64) -> String {
    ByteSize::b(bytes).display().iec().to_string()
}
