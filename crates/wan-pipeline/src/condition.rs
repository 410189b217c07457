//! First stage: prompts and image to the tensors that the DiT is conditioned on.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use wan_clip::ImageFit;
use wan_core::device::to_host;
use wan_core::geometry::{LATENT_CHANNELS, TEMPORAL_FACTOR};
use wan_core::progress::{CancelToken, Event, Observer, Stage};
use wan_media::{RgbImage, resize_lanczos};
use wan_sampler::TorchRng;
use wan_umt5::tokenizer::Encoded;

use crate::finite::check_finite;
use crate::prompt::marked_words;
use crate::remembered::{ConditionKey, ImageKey};
use crate::{Images, Models, NodeOptions, Plan, PromptSyntax, Request, Result};

/// What the DiT is conditioned on, all f32 on the CPU.
#[derive(Debug, Clone)]
pub struct Conditioning {
    /// Embeddings of the prompt `[L, text_dim]`, true length.
    pub text: Tensor,
    /// Those of the prompts that later parts of the video follow; with context windows only.
    pub later_texts: Vec<Tensor>,
    /// Embeddings of the negative prompt; absent at guidance scale 1.
    pub negative: Option<Tensor>,
    /// Image embeddings `[1, 257, image_dim]`, with an end image those of both, `[1, 514, image_dim]`; image-to-video
    /// only.
    pub image: Option<Tensor>,
    /// Mask (4 channels) and image latents (16): `[1, 20, F, h, w]`; image-to-video only.
    pub condition: Option<Tensor>,
}

/// Name of the embeddings of prompt `n`, from 0, in a resume file.
fn later_name(n: usize) -> String {
    format!("{}.{n}", NAMES[0])
}

const NAMES: [&str; 4] = ["text_embeds", "negative_embeds", "image_embeds", "condition"];

impl Conditioning {
    pub(crate) fn tensors(&self) -> BTreeMap<String, Tensor> {
        let all = [Some(&self.text), self.negative.as_ref(), self.image.as_ref(), self.condition.as_ref()];
        let later = (1..).zip(&self.later_texts).map(|(n, t)| (later_name(n), t.clone()));
        NAMES.iter().zip(all).filter_map(|(n, t)| Some((n.to_string(), t?.clone()))).chain(later).collect()
    }

    pub(crate) fn from_tensors(tensors: &BTreeMap<String, Tensor>) -> Result<Self, String> {
        let [text, negative, image, condition] = NAMES.map(|n| tensors.get(n).cloned());
        let text = text.ok_or_else(|| format!("no tensor `{}`", NAMES[0]))?;
        let later_texts = (1..).map_while(|n| tensors.get(&later_name(n)).cloned()).collect();
        Ok(Self { text, later_texts, negative, image, condition })
    }

    /// Embeddings of all prompts, in order.
    pub(crate) fn texts(&self) -> impl Iterator<Item = &Tensor> {
        std::iter::once(&self.text).chain(&self.later_texts)
    }
}

/// Runs the three encoders, each loaded for its turn only, and not at all for what is remembered.
pub(crate) fn condition(
    models: &Models,
    plan: &Plan,
    images: Images<'_>,
    observer: &dyn Observer,
    cancel: &CancelToken,
) -> Result<Conditioning> {
    let text = encode_text(models, plan, observer, cancel).map_err(|e| e.during(Stage::EncodeText))?;
    let Some(first) = images.first else { return Ok(text) };
    cancel.check()?;
    let image_embeds =
        encode_images(models, plan, images, observer).map_err(|e| e.during(Stage::EncodeImage))?;
    cancel.check()?;
    let condition = encode_condition(models, plan, first, images.last, observer, cancel)
        .map_err(|e| e.during(Stage::EncodeCondition))?;
    Ok(Conditioning { image: Some(image_embeds), condition: Some(condition), ..text })
}

/// Everything that comes from the prompts.
fn encode_text(
    models: &Models,
    plan: &Plan,
    observer: &dyn Observer,
    cancel: &CancelToken,
) -> Result<Conditioning> {
    let start = Instant::now();
    let request = &plan.request;
    let prompts = request.prompts();
    let total = prompts.len() + usize::from(plan.uses_guidance());
    observer.on_event(&Event::Started { stage: Stage::EncodeText, total });
    note_reading(request, observer);
    let negative_prompt = plan.uses_guidance().then_some(request.negative_prompt.as_str());
    let all: Vec<&str> = prompts.iter().map(|p| &*p.text).chain(negative_prompt).collect();
    let mut texts = text_embeds(models, plan, &all, observer, cancel)?;
    for (embeds, prompt) in texts.iter_mut().zip(&prompts) {
        if prompt.weight != 1.0 {
            *embeds = (&*embeds * prompt.weight)?;
        }
    }
    let took = start.elapsed() / total as u32; // they were encoded side by side
    for step in 1..=total {
        observer.on_event(&Event::Step { stage: Stage::EncodeText, step, total, took });
    }
    let negative = negative_prompt.and_then(|_| texts.pop());
    let later_texts = texts.split_off(1);
    let text = texts.remove(0);
    observer.on_event(&Event::Finished { stage: Stage::EncodeText, took: start.elapsed() });
    Ok(Conditioning { text, later_texts, negative, image: None, condition: None })
}

/// Says what of the prompts is read otherwise than may be meant.
fn note_reading(request: &Request, observer: &dyn Observer) {
    let (written, used) = (request.written_prompts().len(), request.prompts().len());
    if written > used {
        observer.on_event(&Event::Note(&format!(
            "the prompt has {written} parts separated by `|`; without context windows only the first is used"
        )));
    }
    let plain = request.nodes.prompt_syntax == PromptSyntax::Plain;
    let marked = |text: &str| !marked_words(text).is_empty();
    if plain && (marked(&request.prompt) || marked(&request.negative_prompt)) {
        let note = "weights such as `(text:1.3)` are read as plain text; WanVideoTextEncode takes them";
        observer.on_event(&Event::Note(note));
    }
}

/// Says how much of a prompt is not read, if it is too long.
fn note_length(encoded: &Encoded, observer: &dyn Observer) {
    let (read, left_out) = (encoded.ids.len() - 1, encoded.left_out);
    if left_out > 0 {
        observer.on_event(&Event::Note(&format!(
            "a prompt has {} tokens, of which the model reads {read}: the last {left_out} are left out",
            read + left_out
        )));
    }
}

/// Embeddings of each prompt, `[L, text_dim]` on the CPU. Those that are not remembered are encoded side by side, so that
/// a layer that has to be brought from elsewhere is brought once.
fn text_embeds(
    models: &Models,
    plan: &Plan,
    prompts: &[&str],
    observer: &dyn Observer,
    cancel: &CancelToken,
) -> Result<Vec<Tensor>> {
    let remembered = &models.remembered().text;
    let mut known: HashMap<&str, Tensor> = HashMap::new();
    let mut new = Vec::new();
    for &prompt in prompts {
        match remembered.get(&prompt.to_string()) {
            Some(embeds) => drop(known.insert(prompt, embeds)),
            None if new.contains(&prompt) => {}
            None => new.push(prompt),
        }
    }
    if !new.is_empty() {
        let _memory = models.stage_memory();
        let tokenizer = models.tokenizer()?;
        let encoder = models.text_encoder(models.memory(plan, Stage::EncodeText)?.text_layers_streamed)?;
        let tokens = new.iter().map(|p| Ok(tokenizer.encode_prompt(p)?)).collect::<Result<Vec<_>>>()?;
        tokens.iter().for_each(|encoded| note_length(encoded, observer));
        let ids: Vec<&[u32]> = tokens.iter().map(|encoded| encoded.ids.as_slice()).collect();
        for (prompt, embeds) in new.into_iter().zip(encoder.encode_all(&ids, cancel)?) {
            let embeds = to_host(&embeds)?;
            check_finite("text encoding", &embeds)?;
            remembered.put(prompt.to_string(), embeds.clone());
            known.insert(prompt, embeds);
        }
    }
    Ok(prompts.iter().map(|prompt| known[prompt].clone()).collect())
}

/// Embeddings of one image, or of both one after the other.
///
/// Source: Wan2.1 `wan/image2video.py`, `wan/first_last_frame2video.py`.
fn encode_images(
    models: &Models,
    plan: &Plan,
    images: Images<'_>,
    observer: &dyn Observer,
) -> Result<Tensor> {
    let start = Instant::now();
    let fit = plan.request.nodes.image_fit;
    let images: Vec<&RgbImage> = images.seen().collect();
    let total = images.len();
    observer.on_event(&Event::Started { stage: Stage::EncodeImage, total });
    let mut embeds = Vec::with_capacity(total);
    for (index, image) in images.into_iter().enumerate() {
        let begun = Instant::now();
        let key = (ImageKey::from(image), fit);
        let plain = models.remembered().image.get_or_make(key, || encode_image(models, image, fit))?;
        embeds.push((plain * plan.request.clip_embed_strength)?);
        let took = begun.elapsed();
        observer.on_event(&Event::Step { stage: Stage::EncodeImage, step: index + 1, total, took });
    }
    observer.on_event(&Event::Finished { stage: Stage::EncodeImage, took: start.elapsed() });
    Ok(Tensor::cat(&embeds, 1)?)
}

/// `[1, 257, image_dim]` f32 on the CPU.
fn encode_image(models: &Models, image: &RgbImage, fit: ImageFit) -> Result<Tensor> {
    let _memory = models.stage_memory();
    let encoder = models.image_encoder()?;
    let (height, width) = (image.height() as usize, image.width() as usize);
    let pixels = wan_clip::preprocess_rgb8(image.data(), height, width, encoder.config().image_size, fit)?;
    let embeds = encoder.encode(&pixels.to_device(models.device())?)?;
    let embeds = to_host(&embeds)?.to_dtype(DType::F32)?;
    check_finite("image encoding", &embeds)?;
    Ok(embeds)
}

/// `[1, 20, F, h, w]`: 4 mask channels and the latents of the conditioning video, whose first frame is the image, whose
/// last is the end image if there is one, and whose other frames are 0, mid grey.
fn encode_condition(
    models: &Models,
    plan: &Plan,
    first: &RgbImage,
    last: Option<&RgbImage>,
    observer: &dyn Observer,
    cancel: &CancelToken,
) -> Result<Tensor> {
    let start = Instant::now();
    let total = plan.latent.frames;
    observer.on_event(&Event::Started { stage: Stage::EncodeCondition, total });
    let key = ConditionKey::new(plan, first, last);
    let condition = models.remembered().condition.get_or_make(key, || {
        let latents = weigh_ends(&encode_frames(models, plan, first, last, observer, cancel)?, plan)?;
        Ok::<_, crate::PipelineError>(Tensor::cat(&[frame_mask(plan, last.is_some())?, latents], 1)?)
    })?;
    observer.on_event(&Event::Finished { stage: Stage::EncodeCondition, took: start.elapsed() });
    Ok(condition)
}

/// `latents` `[1, 16, F, h, w]` with their first and last frame multiplied as the request asks; a single frame is both.
///
/// Source: ComfyUI-WanVideoWrapper, `WanVideoImageToVideoEncode`.
fn weigh_ends(latents: &Tensor, plan: &Plan) -> Result<Tensor> {
    let NodeOptions { first_latent_strength: first, last_latent_strength: last, .. } = plan.request.nodes;
    if (first, last) == (1.0, 1.0) {
        return Ok(latents.clone());
    }
    let mut factors = vec![1f32; latents.dim(2)?];
    if let Some(factor) = factors.first_mut() {
        *factor *= first as f32;
    }
    if let Some(factor) = factors.last_mut() {
        *factor *= last as f32;
    }
    let frames = factors.len();
    Ok(latents.broadcast_mul(&Tensor::from_vec(factors, (1, 1, frames, 1, 1), latents.device())?)?)
}

/// Latents of the conditioning video, `[1, 16, F, h, w]` f32 on the CPU.
///
/// Source: Wan2.1 `wan/image2video.py`, `wan/first_last_frame2video.py`; ComfyUI-WanVideoWrapper,
/// `WanVideoImageClipEncode`.
fn encode_frames(
    models: &Models,
    plan: &Plan,
    first: &RgbImage,
    last: Option<&RgbImage>,
    observer: &dyn Observer,
    cancel: &CancelToken,
) -> Result<Tensor> {
    let total = plan.latent.frames;
    let _memory = models.stage_memory();
    let vae = models.vae()?;
    let first = conditioning_frame(models, plan, first, 1)?;
    let last = last.map(|image| conditioning_frame(models, plan, image, 2)).transpose()?;
    let grey =
        |frames: usize| Tensor::zeros((1, 3, frames, plan.height, plan.width), DType::F32, models.device());
    let mut begun = Instant::now();
    let latents = vae.encode_chunks(
        total,
        |chunk| {
            Ok(match &last {
                _ if chunk == 0 => first.clone(),
                Some(last) if chunk + 1 == total => Tensor::cat(&[&grey(TEMPORAL_FACTOR - 1)?, last], 2)?,
                _ => grey(TEMPORAL_FACTOR)?,
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
    let latents = to_host(&latents)?.to_dtype(DType::F32)?;
    check_finite("conditioning encode", &latents)?;
    debug_assert_eq!(latents.dim(1)?, LATENT_CHANNELS);
    Ok(latents)
}

/// An image as a frame of the conditioning video, `[1, 3, 1, H, W]`; `place` tells the noise of several apart.
fn conditioning_frame(models: &Models, plan: &Plan, image: &RgbImage, place: u64) -> Result<Tensor> {
    let request = &plan.request;
    let mut frame = image_tensor(image, plan.width, plan.height)?;
    if request.noise_aug_strength > 0.0 {
        frame = add_noise(&frame, request.noise_aug_strength, request.seed.wrapping_add(place))?;
    }
    let frame = (frame * request.latent_strength)?.to_device(models.device())?;
    Ok(frame.reshape((1, 3, 1, plan.height, plan.width))?)
}

/// Which frames are given: `[1, 4, F, h, w]`, a channel for each of a latent frame's four. The first frame counts four
/// times; of the end image there is one.
fn frame_mask(plan: &Plan, end_image: bool) -> Result<Tensor> {
    let (frames, height, width) = (plan.latent.frames, plan.latent.height, plan.latent.width);
    let last = TEMPORAL_FACTOR * frames - 1;
    let given = (0..TEMPORAL_FACTOR * frames).map(|i| {
        // Channel by channel; each has a value per latent frame.
        let frame = i % frames * TEMPORAL_FACTOR + i / frames;
        if frame < TEMPORAL_FACTOR || (end_image && frame == last) { 1f32 } else { 0.0 }
    });
    let mask = Tensor::from_iter(given, &Device::Cpu)?.reshape((1, TEMPORAL_FACTOR, frames, 1, 1))?;
    Ok(mask.broadcast_as((1, TEMPORAL_FACTOR, frames, height, width))?.contiguous()?)
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
/// The reference draws from the process-wide generator, which nothing seeds; here one is seeded, from the job's seed but
/// apart from the initial noise's, so that the job can be repeated.
fn add_noise(image: &Tensor, strength: f64, seed: u64) -> Result<Tensor> {
    let noise = TorchRng::seed(seed).randn_tensor(image.shape(), image.device())?;
    let keep = image.ne(-1f64)?.to_dtype(DType::F32)?;
    Ok((image + ((noise * strength)? * keep)?)?)
}
