//! What a job will take, told from headers and shapes alone.

use candle_core::DType;
use wan_core::memory;
use wan_core::progress::Stage;
use wan_dit::{KeyCache, MemoryJob};
use wan_umt5::tokenizer::TEXT_LEN;
use wan_vae::Vae;

use crate::{Models, OutputRange, Plan, Result, TilingChoice};

/// Part of the free memory that a job may plan with; the rest is for the encoder and everything unforeseen.
const USABLE: f64 = 0.85;

/// What one stage takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryItem {
    /// The stage.
    pub stage: Stage,
    /// Bytes of its weights as stored. On the CPU they are mapped: page cache, given back under pressure.
    pub weights_bytes: u64,
    /// Bytes allocated while it runs.
    pub working_bytes: u64,
}

/// What all stages take, and what follows from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryPlan {
    /// Stage by stage.
    pub items: Vec<MemoryItem>,
    /// Whether the VAE decodes in tiles.
    pub tiled: bool,
    /// Number of tiles of a frame.
    pub tiles: usize,
    /// Bytes free at present, where the system tells.
    pub available_bytes: Option<u64>,
}

impl MemoryPlan {
    /// Plans `plan` on `models`.
    pub(crate) fn new(models: &Models, plan: &Plan) -> Result<Self> {
        let available_bytes = memory::available_bytes();
        let dtype = models.dtype();
        let mut items = Vec::new();
        let mut item = |stage, weights_bytes, working_bytes| {
            items.push(MemoryItem { stage, weights_bytes, working_bytes });
        };

        let text = models.text_encoder()?;
        item(Stage::EncodeText, text.weight_bytes(), text.config().activation_bytes(TEXT_LEN, dtype));
        let mut image_tokens = 0;
        if models.files().image_encoder.is_some() {
            let image = models.image_encoder()?;
            image_tokens = image.config().tokens();
            item(Stage::EncodeImage, image.weight_bytes(), image.config().activation_bytes(dtype));
        }

        let (h, w) = (plan.latent.height, plan.latent.width);
        let vae = models.vae()?;
        let (vae_bytes, packed) = vae_bytes(models)?;
        if models.files().image_encoder.is_some() {
            let encode = vae.config.encode_memory(h, w, None, dtype)?;
            item(Stage::EncodeCondition, vae_bytes, encode.total() + packed);
        }

        let dit = models.dit(&plan.request.loras)?;
        let job = MemoryJob {
            tokens: plan.latent.tokens(),
            image_tokens,
            contexts: if plan.uses_guidance() { 2 } else { 1 },
            dtype,
            cache: KeyCache::Keep,
        };
        let denoise = wan_dit::estimate_memory(&models.files().dit.weights()?, dit.config(), &job);
        let dit_bytes = denoise.weights_bytes.iter().map(|(_, b)| b).sum::<u64>();
        let dit_bytes = dit_bytes + models.lora_bytes(&plan.request.loras)?;
        item(Stage::Denoise, dit_bytes, denoise.context_bytes + denoise.activation_bytes);

        let decode = DecodePlan::new(models, plan, &vae)?;
        item(Stage::Decode, vae_bytes, decode.working_bytes);
        Ok(Self { items, tiled: decode.tiled, tiles: decode.tiles, available_bytes })
    }

    /// Bytes allocated in the stage that allocates most.
    pub fn peak_bytes(&self) -> u64 {
        self.items.iter().map(|i| i.working_bytes).max().unwrap_or(0)
    }

    /// Whether the plan fits into the memory that is free; yes where the system does not tell.
    pub fn fits(&self) -> bool {
        self.available_bytes.is_none_or(|free| self.peak_bytes() <= free)
    }

    /// One line for people.
    pub fn summary(&self) -> String {
        let mib = |bytes: u64| bytes.div_ceil(1 << 20);
        let decode =
            if self.tiled { format!("decoded in {} tiles", self.tiles) } else { "decoded whole".into() };
        let free = match self.available_bytes {
            Some(free) if !self.fits() => format!(", more than the {} MiB that are free", mib(free)),
            Some(free) => format!(" of {} MiB free", mib(free)),
            None => String::new(),
        };
        format!("{decode}, at most {} MiB of memory{free}", mib(self.peak_bytes()))
    }
}

/// How the VAE decodes with the memory that is free at present.
pub(crate) struct DecodePlan {
    /// Whether in tiles.
    pub tiled: bool,
    /// Number of tiles of a frame.
    pub tiles: usize,
    /// Bytes allocated.
    pub working_bytes: u64,
}

impl DecodePlan {
    /// Decides for `plan` on `vae`, which is the one of `models`.
    pub fn new(models: &Models, plan: &Plan, vae: &Vae) -> Result<Self> {
        let (h, w) = (plan.latent.height, plan.latent.width);
        let (dtype, (_, packed)) = (models.dtype(), vae_bytes(models)?);
        // The frames that a stretched output has to keep until the last one is known.
        let kept = match plan.request.output_range {
            OutputRange::Minmax => {
                (plan.frames * plan.height * plan.width * 3 * DType::F32.size_in_bytes()) as u64
            }
            OutputRange::Clamp => 0,
        };
        let whole = vae.config.decode_memory(h, w, None, dtype)?;
        let fits =
            |bytes: u64| memory::available_bytes().is_none_or(|free| bytes as f64 <= free as f64 * USABLE);
        let tiled = match plan.request.vae_tiling {
            TilingChoice::On => true,
            TilingChoice::Off => false,
            TilingChoice::Auto => !fits(whole.total() + kept + packed),
        };
        let decode =
            if tiled { vae.config.decode_memory(h, w, Some(&plan.request.tile), dtype)? } else { whole };
        Ok(Self { tiled, tiles: decode.tiles, working_bytes: decode.total() + kept + packed })
    }
}

/// Bytes of the VAE's weights as stored, and of its convolutions' weights once widened to f32.
fn vae_bytes(models: &Models) -> Result<(u64, u64)> {
    let weights = models.files().vae.weights()?;
    let stored = weights.iter().map(|t| t.bytes().len() as u64).sum();
    Ok((stored, weights.iter().map(|t| t.elements() as u64 * 4).sum()))
}
