mod checks;
mod reuse;

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use wan_core::geometry::LatentSize;
use wan_core::progress::CancelToken;
use wan_core::{Error, Loader, Result, WeightSet};
use wan_ops::{HostCopies, HostSide, Linear, Numerics, Residency, RowFormat};

use crate::block::Block;
use crate::config::DitConfig;
use crate::context::{BlockKeys, Context, KeyCache};
use crate::head::Head;
use crate::image_embed::ImageEmbedding;
use crate::lora::{Lora, LoraReport, resolve};
use crate::names::canonical;
use crate::patch::{PatchEmbedding, unpatchify};
use crate::residual::ResidualStream;
use crate::rope::RopeTable;
use crate::text_embed::TextEmbedding;
use crate::time_embed::{TimeEmbedding, TimeEmbeds};

pub use reuse::{BlockResiduals, TimeSignal};

/// The Wan2.1 diffusion transformer.
///
/// Linear weights stay mapped in their file, in the dtype they are stored in.
#[derive(Debug)]
pub struct Dit {
    config: DitConfig,
    patch_embedding: PatchEmbedding,
    time_embedding: TimeEmbedding,
    text_embedding: TextEmbedding,
    image_embedding: Option<ImageEmbedding>,
    blocks: Vec<Block>,
    head: Head,
    residency: Residency,
    copies: Option<HostCopies>,
    device: Device,
    dtype: DType,
}

/// What all contexts of one denoising step have in common.
#[derive(Debug, Clone, Copy)]
pub struct DitInput<'a> {
    /// Noisy latents `[1, 16, F, h, w]`, any float dtype.
    pub latents: &'a Tensor,
    /// For i2v, mask and image latent `[1, 20, F, h, w]`; absent for t2v.
    pub condition: Option<&'a Tensor>,
    /// Timestep in [0, 1000].
    pub timestep: f32,
    /// Positions of the latents' tokens, from [`Dit::rope`].
    pub rope: &'a RopeTable,
}

impl Dit {
    /// Opens a DiT in any supported naming for `device`.
    ///
    /// - `config_file`: JSON of the documented keys; without it see [`DitConfig::read`]
    /// - `dtype`: f32, bf16 or f16, of the activations inside the blocks
    ///
    /// Errors: those of [`DitConfig::read`]; `WeightsError::Tensors` naming every missing, unexpected and misshapen
    /// tensor; [`Error::Invalid`] for another dtype.
    pub fn open(
        weights: &WeightSet,
        config_file: Option<&Path>,
        device: &Device,
        dtype: DType,
    ) -> Result<Self> {
        Ok(Self::open_with_loras(weights, config_file, &[], device, dtype)?.0)
    }

    /// [`Dit::open`] with LoRA files, whose changes add up in order, and what became of each file's tensors.
    ///
    /// The matrices of both stay mapped: a change is computed beside its weight, which is not rounded again. A file
    /// at strength 0 changes no bit.
    ///
    /// Errors: those of [`Dit::open`]; [`Error::Invalid`] naming the file and the tensors for shapes that do not fit,
    /// half a product, a method other than low-rank products and differences, a block that does not exist, or a file
    /// of which nothing applies.
    pub fn open_with_loras(
        weights: &WeightSet,
        config_file: Option<&Path>,
        loras: &[Lora],
        device: &Device,
        dtype: DType,
    ) -> Result<(Self, Vec<LoraReport>)> {
        if !matches!(dtype, DType::F32 | DType::BF16 | DType::F16) {
            return Err(Error::invalid("dit dtype", dtype.as_str(), "f32, bf16 or f16"));
        }
        let weights = canonical(weights)?;
        let config = DitConfig::from_canonical(&weights, config_file)?;
        let (deltas, reports) = resolve(&weights, loras)?;
        let dit = Loader::load_changed(weights, deltas, device, |l| {
            let blocks =
                (0..config.num_layers).map(|n| Block::load(&l.pp(format!("blocks.{n}")), &config, dtype));
            Ok(Self {
                patch_embedding: PatchEmbedding::load(&l.pp("patch_embedding"), &config)?,
                time_embedding: TimeEmbedding::load(l, &config)?,
                text_embedding: TextEmbedding::load(&l.pp("text_embedding"), &config)?,
                image_embedding: config
                    .image_dim
                    .map(|d| ImageEmbedding::load(&l.pp("img_emb"), config.image_positions, d, config.dim))
                    .transpose()?,
                blocks: blocks.collect::<Result<_>>()?,
                head: Head::load(&l.pp("head"), &config)?,
                residency: Residency::on_demand(),
                copies: None,
                device: device.clone(),
                dtype,
                config: config.clone(),
            })
        })?;
        Ok((dit, reports))
    }

    /// Hyper-parameters.
    pub fn config(&self) -> &DitConfig {
        &self.config
    }

    /// Device it computes on.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Dtype of the activations inside the blocks.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The same model, whose blocks compute as `numerics` says. It changes nothing on the CPU. Before
    /// [`Self::place_blocks`].
    #[must_use]
    pub fn with_numerics(self, numerics: Numerics) -> Self {
        let blocks = self.blocks.into_iter().map(|block| block.with_numerics(numerics)).collect();
        Self { blocks, ..self }
    }

    /// Puts the blocks where a GPU computes with them: those whose number is in `swapped` into pinned host memory, from
    /// which they are brought in time for their use, the others onto the device. Called again it places them anew;
    /// without it each block is uploaded at its first use and stays. Results do not depend on it. Nothing on the CPU,
    /// where weights stay in their file.
    ///
    /// Pinned memory is filled in the background, if [`Self::copy_blocks`] has not done so: the first forward waits for
    /// what is not there yet. LoRA matrices stay on the device.
    ///
    /// Errors: [`Error::OutOfMemory`] where the device has no room.
    pub fn place_blocks(&mut self, swapped: &[usize]) -> Result<()> {
        // The old places go first, and with them their memory.
        self.residency = Residency::on_demand();
        wan_ops::release_unused(&self.device)?;
        let copies = self.copies.take();
        self.residency = Residency::place(&self.device, self.layers(), swapped, HostSide::Pinned, copies)?;
        Ok(())
    }

    /// Starts to copy the blocks whose number is in `swapped` into pinned host memory, in the background, for
    /// [`Self::place_blocks`] of the same ones: while the device is still used by others. Nothing on the CPU.
    ///
    /// Errors: the driver's.
    pub fn copy_blocks(&mut self, swapped: &[usize]) -> Result<()> {
        self.copies = None; // the old ones go first
        self.copies = Some(HostCopies::start(&self.device, self.layers(), swapped)?);
        Ok(())
    }

    /// The layers of each block that every forward uses.
    fn layers(&self) -> Vec<Vec<Linear>> {
        self.blocks.iter().map(|block| block.layers().cloned().collect()).collect()
    }

    /// Whether any matrix of the blocks is multiplied in FP8 as it is stored; on the CPU none is.
    pub fn multiplies_in_fp8(&self) -> bool {
        let in_fp8 =
            |layer: &Linear| matches!(layer.row_format(&self.device, self.dtype), RowFormat::Quantised(_));
        self.blocks.iter().flat_map(Block::layers).any(in_fp8)
    }

    /// Number of blocks.
    pub fn blocks(&self) -> usize {
        self.blocks.len()
    }

    /// Positions of latents of `latent`, computed once per job; `riflex_index` as in [`RopeTable::new`].
    ///
    /// Errors: those of [`RopeTable::new`].
    pub fn rope(&self, latent: LatentSize, riflex_index: usize) -> Result<RopeTable> {
        RopeTable::new(self.config.head_dim(), latent, riflex_index, &self.device)
    }

    /// Positions of windows of a longer video; see [`RopeTable::of_window`].
    ///
    /// Errors: those of [`RopeTable::new`].
    pub fn rope_of_window(
        &self,
        latent: LatentSize,
        video_frames: usize,
        riflex_index: usize,
    ) -> Result<RopeTable> {
        RopeTable::of_window(self.config.head_dim(), latent, video_frames, riflex_index, &self.device)
    }

    /// Prepares one prompt and its image, keeping all keys and values; see [`Dit::contexts`].
    pub fn context(&self, text_embeds: &Tensor, image_embeds: Option<&Tensor>) -> Result<Context> {
        let mut contexts = self.contexts(&[text_embeds], image_embeds, KeyCache::Keep)?;
        Ok(contexts.remove(0))
    }

    /// Prepares several prompts over the same image, once per job. What they have of the image they share.
    ///
    /// - `text_embeds`: each `[S, text_dim]` or `[1, S, text_dim]`, the prompt's true length, 1 to `text_len`;
    ///   padded with zero rows to `text_len`
    /// - `image_embeds`: `[N, image_dim]` or `[1, N, image_dim]` for i2v, absent for t2v
    /// - returns one context per prompt, in order
    ///
    /// Errors: [`Error::Shape`], or [`Error::Invalid`] where an image is missing or not wanted.
    pub fn contexts(
        &self,
        text_embeds: &[&Tensor],
        image_embeds: Option<&Tensor>,
        cache: KeyCache,
    ) -> Result<Vec<Context>> {
        let image = match (&self.image_embedding, image_embeds) {
            (Some(embedding), Some(image)) => {
                Some(embedding.forward(&image.to_device(&self.device)?, self.dtype)?)
            }
            (None, None) => None,
            (Some(_), None) => {
                let expected =
                    format!("[1, N, {}] for an i2v model", self.config.image_dim.unwrap_or_default());
                return Err(Error::invalid("image_embeds", "none", expected));
            }
            (None, Some(image)) => {
                let found = format!("shape {:?}", image.dims());
                return Err(Error::invalid("image_embeds", found, "none for a t2v model"));
            }
        };
        let text = |t: &&Tensor| self.text_embedding.forward(&t.to_device(&self.device)?, self.dtype);
        let texts = text_embeds.iter().map(text).collect::<Result<Vec<_>>>()?;
        let mut keys = texts.iter().map(|_| Vec::new()).collect::<Vec<_>>();
        if cache == KeyCache::Keep {
            for block in &self.blocks {
                let attention = block.cross_attention();
                let image = attention.image_keys(image.as_ref())?;
                for (text, keys) in texts.iter().zip(&mut keys) {
                    keys.push(BlockKeys { text: attention.text_keys(text)?, image: image.clone() });
                }
                attention.release_key_weights();
            }
        }
        let contexts = texts.into_iter().zip(keys).map(|(text, keys)| Context {
            text,
            image: image.clone(),
            keys: (cache == KeyCache::Keep).then_some(keys),
        });
        Ok(contexts.collect())
    }

    /// The velocity of one context.
    ///
    /// - `latents`: `[1, 16, F, h, w]`, noisy; `condition`: `[1, 20, F, h, w]` for i2v, absent for t2v
    /// - `timestep`: in [0, 1000]
    /// - `rope`: made by [`Dit::rope`] for the latents' size
    /// - returns `[1, 16, F, h, w]` f32
    ///
    /// Errors: [`Error::Shape`] or [`Error::Invalid`] naming the input that does not fit.
    pub fn forward(
        &self,
        latents: &Tensor,
        condition: Option<&Tensor>,
        timestep: f32,
        context: &Context,
        rope: &RopeTable,
    ) -> Result<Tensor> {
        let input = DitInput { latents, condition, timestep, rope };
        let mut velocities = self.forward_lockstep(&input, &[context], &CancelToken::new())?;
        Ok(velocities.remove(0))
    }

    /// The velocities of several contexts, such as prompt and negative prompt: every block runs for all of them
    /// before the next one, and what does not depend on the context runs once. Bit for bit what
    /// [`Dit::forward`] gives for each.
    ///
    /// - returns one `[1, 16, F, h, w]` f32 per context, in order
    ///
    /// Errors: those of [`Dit::forward`]; [`Error::Cancelled`], checked before each block.
    pub fn forward_lockstep(
        &self,
        input: &DitInput<'_>,
        contexts: &[&Context],
        cancel: &CancelToken,
    ) -> Result<Vec<Tensor>> {
        self.forward_watched(input, contexts, cancel, &mut |_| Ok(()))
    }

    /// The residual stream of one context, `[L, dim]` f32, before the first block and behind each, and the velocity:
    /// for comparisons block by block. A block's own work is the difference of two.
    ///
    /// Errors: those of [`Dit::forward`].
    pub fn trace(&self, input: &DitInput<'_>, context: &Context) -> Result<(Vec<Tensor>, Tensor)> {
        let mut streams = Vec::new();
        let mut velocities = self.forward_watched(input, &[context], &CancelToken::new(), &mut |stream| {
            streams.push(stream.value()?);
            Ok(())
        })?;
        Ok((streams, velocities.remove(0)))
    }

    /// [`Dit::forward_lockstep`], which shows the first context's stream before the first block and behind each.
    fn forward_watched(
        &self,
        input: &DitInput<'_>,
        contexts: &[&Context],
        cancel: &CancelToken,
        watch: &mut dyn FnMut(&ResidualStream) -> Result<()>,
    ) -> Result<Vec<Tensor>> {
        let (grid, x) = self.input(input)?;
        let time = self.time_embedding.forward(input.timestep)?;
        let streams = self.run_blocks(&x, input.rope, &time, contexts, cancel, watch)?;
        streams.into_iter().map(|stream| self.velocity(&stream, &time, grid)).collect()
    }

    /// The streams of several contexts behind the last block. `x`: input channels `[1, in_dim, F, h, w]`.
    fn run_blocks(
        &self,
        x: &Tensor,
        rope: &RopeTable,
        time: &TimeEmbeds,
        contexts: &[&Context],
        cancel: &CancelToken,
        watch: &mut dyn FnMut(&ResidualStream) -> Result<()>,
    ) -> Result<Vec<ResidualStream>> {
        self.check_contexts(contexts)?;
        let tokens = self.patch_embedding.forward(x)?; // [L, dim]
        let rope = rope.table();
        // One stream for all contexts until the first cross-attention tells them apart.
        let mut streams = vec![ResidualStream::new(tokens)];
        watch(&streams[0])?;
        let mut pass = self.residency.pass()?;
        for (index, block) in self.blocks.iter().enumerate() {
            cancel.check()?;
            pass.enter(index)?;
            let modulation = block.modulation(&time.projection)?;
            for stream in &mut streams {
                block.self_attention(stream, &modulation, rope)?;
            }
            let shared = streams[0].clone();
            streams.resize(contexts.len(), shared);
            for (stream, context) in streams.iter_mut().zip(contexts) {
                block.cross_attention_ffn(stream, &modulation, &context.block_keys(index, block)?)?;
            }
            watch(&streams[0])?;
            pass.leave()?;
        }
        Ok(streams)
    }

    /// What the head makes of a stream behind the last block: `[1, out_dim, F, h, w]` f32.
    fn velocity(&self, stream: &ResidualStream, time: &TimeEmbeds, grid: [usize; 3]) -> Result<Tensor> {
        let patches = self.head.forward(stream, &time.embedding)?; // [L, 4 * out_dim]
        unpatchify(&patches, self.config.out_dim, grid)
    }
}
