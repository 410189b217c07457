//! First stage: prompts and image to the tensors that the DiT is conditioned on.

use std::collections::BTreeMap;
use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use wan_core::geometry::{LATENT_CHANNELS, TEMPORAL_FACTOR};
use wan_core::progress::{CancelToken, Event, Observer, Stage};
use wan_media::{RgbImage, resize_lanczos};
use wan_sampler::TorchRng;

use crate::finite::check_finite;
use crate::{Models, Plan, Result};

/// What the DiT is conditioned on, all f32 on the CPU.
#[derive(Debug, Clone)]
pub struct Conditioning {
    /// Embeddings of the prompt `[L, text_dim]`, true length.
    pub text: Tensor,
    /// Embeddings of the negative prompt; absent at guidance scale 1.
    pub negative: Option<Tensor>,
    /// Image embeddings `[1, 257, image_dim]`; image-to-video only.
    pub image: Option<Tensor>,
    /// Mask (4 channels) and image latents (16): `[1, 20, F, h, w]`; image-to-video only.
    pub condition: Option<Tensor>,
}

const NAMES: [&str; 4] = ["text_embeds", "negative_embeds", "image_embeds", "condition"];

impl Conditioning {
    pub(crate) fn tensors(&self) -> BTreeMap<String, Tensor> {
        let all = [Some(&self.text), self.negative.as_ref(), self.image.as_ref(), self.condition.as_ref()];
        NAMES.iter().zip(all).filter_map(|(n, t)| Some((n.to_string(), t?.clone()))).collect()
    }

    pub(crate) fn from_tensors(tensors: &BTreeMap<String, Tensor>) -> Result<Self, String> {
        let [text, negative, image, condition] = NAMES.map(|n| tensors.get(n).cloned());
        let text = text.ok_or_else(|| format!("no tensor `{}`", NAMES[0]))?;
        Ok(Self { text, negative, image, condition })
    }
}

/// Runs the three encoders, each loaded for its turn only.
pub(crate) fn condition(
    models: &Models,
    plan: &Plan,
    image: Option<&RgbImage>,
    observer: &dyn Observer,
    cancel: &CancelToken,
) -> Result<Conditioning> {
    let (text, negative) = encode_text(models, plan, observer, cancel)?;
    let Some(image) = image else {
        return Ok(Conditioning { text, negative, image: None, condition: None });
    };
    cancel.check()?;
    let image_embeds = encode_image(models, plan, image, observer)?;
    cancel.check()?;
    let condition = encode_condition(models, plan, image, observer, cancel)?;
    Ok(Conditioning { text, negative, image: Some(image_embeds), condition: Some(condition) })
}

fn encode_text(
    models: &Models,
    plan: &Plan,
    observer: &dyn Observer,
    cancel: &CancelToken,
) -> Result<(Tensor, Option<Tensor>)> {
    let start = Instant::now();
    let request = &plan.request;
    let total = if plan.uses_guidance() { 2 } else { 1 };
    observer.on_event(&Event::Started { stage: Stage::EncodeText, total });
    let _memory = models.stage_memory();
    let tokenizer = models.tokenizer()?;
    let encoder = models.text_encoder(models.memory(plan, Stage::EncodeText)?.text_layers_streamed)?;
    let parts = request.prompt.split('|').count();
    if parts > 1 {
        observer.on_event(&Event::Note(&format!(
            "the prompt has {parts} parts separated by `|`; without context windows only the first is used"
        )));
    }
    let prompt = request.prompt.split('|').next().unwrap_or_default().trim();
    let prompts = [prompt, &request.negative_prompt];
    let tokens = prompts[..total].iter().map(|p| Ok(tokenizer.encode_prompt(p)?.ids));
    let tokens = tokens.collect::<Result<Vec<_>>>()?;
    let begun = Instant::now();
    let ids: Vec<&[u32]> = tokens.iter().map(Vec::as_slice).collect();
    let encoded = encoder.encode_all(&ids, cancel)?;
    let took = begun.elapsed() / total as u32; // they were encoded side by side
    let taken = |(index, embeds): (usize, Tensor)| -> Result<Tensor> {
        let embeds = embeds.to_device(&Device::Cpu)?;
        check_finite("text encoding", &embeds)?;
        observer.on_event(&Event::Step { stage: Stage::EncodeText, step: index + 1, total, took });
        Ok(embeds)
    };
    let mut embeds = encoded.into_iter().enumerate().map(taken).collect::<Result<Vec<_>>>()?;
    let text = embeds.remove(0);
    let negative = embeds.pop();
    observer.on_event(&Event::Finished { stage: Stage::EncodeText, took: start.elapsed() });
    Ok((text, negative))
}

fn encode_image(models: &Models, plan: &Plan, image: &RgbImage, observer: &dyn Observer) -> Result<Tensor> {
    let start = Instant::now();
    observer.on_event(&Event::Started { stage: Stage::EncodeImage, total: 1 });
    let _memory = models.stage_memory();
    let encoder = models.image_encoder()?;
    let (height, width) = (image.height() as usize, image.width() as usize);
    let pixels = wan_clip::preprocess_rgb8(image.data(), height, width, encoder.config().image_size)?;
    let embeds = (encoder
        .encode(&pixels.to_device(models.device())?)?
        .to_device(&Device::Cpu)?
        .to_dtype(DType::F32)?
        * plan.request.clip_embed_strength)?;
    check_finite("image encoding", &embeds)?;
    let took = start.elapsed();
    observer.on_event(&Event::Step { stage: Stage::EncodeImage, step: 1, total: 1, took });
    observer.on_event(&Event::Finished { stage: Stage::EncodeImage, took });
    Ok(embeds)
}

/// `[1, 20, F, h, w]`: 4 mask channels (1 on the first latent frame) and the latents of the conditioning video,
/// whose first frame is the image and whose other frames are 0, mid grey.
///
/// Source: Wan2.1 `wan/image2video.py`; ComfyUI-WanVideoWrapper, `WanVideoImageClipEncode`.
fn encode_condition(
    models: &Models,
    plan: &Plan,
    image: &RgbImage,
    observer: &dyn Observer,
    cancel: &CancelToken,
) -> Result<Tensor> {
    let start = Instant::now();
    let total = plan.latent.frames;
    observer.on_event(&Event::Started { stage: Stage::EncodeCondition, total });
    let _memory = models.stage_memory();
    let vae = models.vae()?;
    let mut first = image_tensor(image, plan.width, plan.height)?;
    if plan.request.noise_aug_strength > 0.0 {
        first = add_noise(&first, plan.request.noise_aug_strength, plan.request.seed)?;
    }
    let first = (first * plan.request.latent_strength)?.to_device(models.device())?; // [3, H, W]
    let (h, w) = (plan.height, plan.width);
    let mut begun = Instant::now();
    let latents = vae.encode_chunks(
        total,
        |chunk| {
            Ok(if chunk == 0 {
                first.reshape((1, 3, 1, h, w))?
            } else {
                Tensor::zeros((1, 3, TEMPORAL_FACTOR, h, w), DType::F32, models.device())?
            })
        },
        |step| {
            cancel.check()?;
            observer.on_event(&Event::Step {
                stage: Stage::EncodeCondition,
                step,
                total,
                took: begun.elapsed(),
            });
            begun = Instant::now();
            Ok(())
        },
    )?;
    let latents = latents.to_device(&Device::Cpu)?.to_dtype(DType::F32)?;
    check_finite("conditioning encode", &latents)?;
    let (_, channels, f, h, w) = latents.dims5()?;
    debug_assert_eq!(channels, LATENT_CHANNELS);
    let given = Tensor::ones((1, TEMPORAL_FACTOR, 1, h, w), DType::F32, &Device::Cpu)?;
    let mask = given.pad_with_zeros(2, 0, f - 1)?;
    let condition = Tensor::cat(&[mask, latents], 1)?;
    observer.on_event(&Event::Finished { stage: Stage::EncodeCondition, took: start.elapsed() });
    Ok(condition)
}

/// The image stretched to `width` x `height` by Pillow's Lanczos: `[3, height, width]` f32 in [-1, 1].
pub fn image_tensor(image: &RgbImage, width: usize, height: usize) -> Result<Tensor> {
    let resized = resize_lanczos(image, width as u32, height as u32)?;
    // u8 / 255, then 2x - 1, each rounded in f32 as the reference does.
    let values: Vec<f32> = resized.data().iter().map(|v| f32::from(*v) / 255.0 * 2.0 - 1.0).collect();
    let pixels = Tensor::from_vec(values, (height, width, 3), &Device::Cpu)?;
    Ok(pixels.permute((2, 0, 1))?.contiguous()?)
}

/// `image + strength · noise`, except where a value is exactly -1.
///
/// The reference draws from the process-wide generator, which nothing seeds; here one is seeded from the job's
/// seed, apart from the initial noise's, so that the job can be repeated.
fn add_noise(image: &Tensor, strength: f64, seed: u64) -> Result<Tensor> {
    let noise = TorchRng::seed(seed.wrapping_add(1)).randn_tensor(image.shape(), image.device())?;
    let keep = image.ne(-1f64)?.to_dtype(DType::F32)?;
    Ok((image + ((noise * strength)? * keep)?)?)
}
