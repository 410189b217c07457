//! Conditioning: prompts, image, size.

use std::collections::HashMap;

use wan_core::progress::Stage;
use wan_pipeline::{ImageFit, NodeOptions, PromptSyntax};

use super::Result;
use super::read::{End, Reader};
use crate::catalog::RootedName;
use crate::image_input::{ImageInput, Scale};
use crate::job::ModelFile;

/// What a sampler is conditioned on.
pub(super) struct Conditioning {
    pub prompt: String,
    pub negative_prompt: String,
    pub text_encoder: ModelFile,
    pub image_encoder: Option<ModelFile>,
    /// Of the encoder; none without an image.
    pub vae: Option<ModelFile>,
    pub image: Option<ImageInput>,
    pub end_image: Option<ImageInput>,
    /// Width and height in pixels.
    pub size: (usize, usize),
    pub frames: usize,
    pub noise_aug_strength: f64,
    pub latent_strength: f64,
    /// Prompt syntax, the image encoder's crop, strengths of latent frames.
    pub nodes: NodeOptions,
    pub clip_embed_strength: f64,
    pub adjust_resolution: bool,
    pub stages: HashMap<String, Vec<Stage>>,
}

impl Conditioning {
    /// Text alone.
    fn of_text(
        (prompt, negative_prompt): (&str, &str),
        prompt_syntax: PromptSyntax,
        text_encoder: ModelFile,
        node: String,
    ) -> Self {
        Self {
            prompt: prompt.to_owned(),
            negative_prompt: negative_prompt.to_owned(),
            text_encoder,
            image_encoder: None,
            vae: None,
            image: None,
            end_image: None,
            size: (0, 0),
            frames: 0,
            noise_aug_strength: 0.0,
            latent_strength: 1.0,
            nodes: NodeOptions { prompt_syntax, ..NodeOptions::default() },
            clip_embed_strength: 1.0,
            adjust_resolution: false,
            stages: [(node, vec![Stage::EncodeText])].into(),
        }
    }
}

/// The wrapper's, of the sampler `id`.
pub(super) fn wrapper(reader: &Reader<'_>, id: &str) -> Result<Conditioning> {
    let text = reader.source(id, "text_embeds")?.id;
    let loader = reader.source(&text, "t5")?.id;
    let base = Conditioning::of_text(
        (reader.text(&text, "positive_prompt"), reader.text(&text, "negative_prompt")),
        PromptSyntax::Weighted,
        reader.model(&loader, "model_name")?,
        text,
    );
    let embeds = reader.source(id, "image_embeds")?;
    match embeds.class {
        "WanVideoImageClipEncode" => clip_encode(reader, &embeds.id, base),
        "WanVideoImageToVideoEncode" => image_to_video(reader, &embeds.id, base),
        _ => Ok(Conditioning {
            size: (reader.size(&embeds.id, "width"), reader.size(&embeds.id, "height")),
            frames: reader.size(&embeds.id, "num_frames"),
            ..base
        }),
    }
}

fn clip_encode(reader: &Reader<'_>, id: &str, base: Conditioning) -> Result<Conditioning> {
    let loader = reader.source(id, "clip_vision")?.id;
    let mut stages = base.stages;
    stages.insert(id.to_owned(), vec![Stage::EncodeImage, Stage::EncodeCondition]);
    Ok(Conditioning {
        image_encoder: Some(
            reader.model(&loader, "model_name").or_else(|_| reader.model(&loader, "clip_name"))?,
        ),
        vae: Some(vae(reader, id, "vae")?),
        image: Some(image(reader, id, "image")?),
        size: (reader.size(id, "generation_width"), reader.size(id, "generation_height")),
        frames: reader.size(id, "num_frames"),
        noise_aug_strength: reader.float(id, "noise_aug_strength"),
        latent_strength: reader.float(id, "latent_strength"),
        clip_embed_strength: reader.float(id, "clip_embed_strength"),
        adjust_resolution: reader.boolean(id, "adjust_resolution"),
        stages,
        ..base
    })
}

fn image_to_video(reader: &Reader<'_>, id: &str, base: Conditioning) -> Result<Conditioning> {
    let clip = reader.source(id, "clip_embeds")?.id;
    let mut start = image(reader, id, "start_image")?;
    see_through(reader, &mut start, &clip, "image_1")?;
    let end_image = wrapper_end_image(reader, id, &clip)?;
    let loader = reader.source(&clip, "clip_vision")?;
    // The wrapper's crop is that of its own encoders; ComfyUI's always crop.
    let stretches = loader.class == "LoadWanVideoClipTextEncoder" && reader.text(&clip, "crop") == "disabled";
    let loader = loader.id;
    let mut stages = base.stages;
    stages.insert(clip.clone(), vec![Stage::EncodeImage]);
    stages.insert(id.to_owned(), vec![Stage::EncodeCondition]);
    Ok(Conditioning {
        image_encoder: Some(
            reader.model(&loader, "model_name").or_else(|_| reader.model(&loader, "clip_name"))?,
        ),
        vae: Some(vae(reader, id, "vae")?),
        image: Some(start),
        end_image,
        size: (reader.size(id, "width"), reader.size(id, "height")),
        frames: reader.size(id, "num_frames"),
        noise_aug_strength: reader.float(id, "noise_aug_strength"),
        nodes: NodeOptions {
            image_fit: if stretches { ImageFit::Stretch } else { ImageFit::Crop },
            first_latent_strength: reader.float(id, "start_latent_strength"),
            last_latent_strength: reader.float(id, "end_latent_strength"),
            ..base.nodes
        },
        clip_embed_strength: reader.float(&clip, "strength_1"),
        stages,
        ..base
    })
}

/// The end image of the encoder `id`, if it has one; `clip` encodes it for the cross-attention.
fn wrapper_end_image(reader: &Reader<'_>, id: &str, clip: &str) -> Result<Option<ImageInput>> {
    if reader.linked(id, "end_image").is_none() {
        return match reader.linked(clip, "image_2") {
            Some(_) => reader.refuse(clip, "image_2", "expected none where no end_image is linked"),
            None => Ok(None),
        };
    }
    let mut end = image(reader, id, "end_image")?;
    see_through(reader, &mut end, clip, "image_2")?;
    // Models for two images have positions for the tokens of both, which averages and sums are not.
    if !matches!(reader.text(clip, "combine_embeds"), "concat" | "batch") {
        return reader.refuse(clip, "combine_embeds", "expected concat or batch with an end image");
    }
    if reader.float(clip, "strength_2") != reader.float(clip, "strength_1") {
        return reader.refuse(
            clip,
            "strength_2",
            "expected that of strength_1: both images have one strength",
        );
    }
    if !reader.boolean(id, "fun_or_fl2v_model") {
        let message = "expected true with an end image: only first-and-last-frame models take one";
        return reader.refuse(id, "fun_or_fl2v_model", message);
    }
    Ok(Some(end))
}

/// ComfyUI's own, of the sampler `id`.
pub(super) fn native(reader: &Reader<'_>, id: &str) -> Result<Conditioning> {
    let latent = reader.source(id, "latent_image")?;
    let (positive, negative) = (reader.source(id, "positive")?, reader.source(id, "negative")?);
    match latent.class {
        class @ ("WanImageToVideo" | "WanFirstLastFrameToVideo") => {
            for (end, slot, name) in [(&positive, 0, "positive"), (&negative, 1, "negative")] {
                if (&end.id, end.slot) != (&latent.id, slot) {
                    return reader.refuse(
                        id,
                        name,
                        format!("expected the same {class} node as for latent_image"),
                    );
                }
            }
            let node = latent.id;
            let base =
                prompts(reader, &node, reader.source(&node, "positive")?, reader.source(&node, "negative")?)?;
            native_image(reader, &node, class, base)
        }
        "EmptyHunyuanLatentVideo" => Ok(Conditioning {
            size: (reader.size(&latent.id, "width"), reader.size(&latent.id, "height")),
            frames: reader.size(&latent.id, "length"),
            ..prompts(reader, id, positive, negative)?
        }),
        class => {
            let expected = "expected WanImageToVideo, WanFirstLastFrameToVideo or EmptyHunyuanLatentVideo";
            reader.refuse(id, "latent_image", format!("found the output of {class}, {expected}"))
        }
    }
}

/// Both prompts of the node `id`.
fn prompts(reader: &Reader<'_>, id: &str, positive: End, negative: End) -> Result<Conditioning> {
    for (end, name) in [(&positive, "positive"), (&negative, "negative")] {
        if end.class != "CLIPTextEncode" {
            let message = format!("found the output of {}, expected that of CLIPTextEncode", end.class);
            return reader.refuse(id, name, message);
        }
    }
    let encoder = |end: &End| reader.model(&reader.source(&end.id, "clip")?.id, "clip_name");
    let file = encoder(&positive)?;
    if encoder(&negative)? != file {
        return reader.refuse(id, "negative", "both prompts need the same text encoder");
    }
    let texts = (reader.text(&positive.id, "text"), reader.text(&negative.id, "text"));
    Ok(Conditioning::of_text(texts, PromptSyntax::Plain, file, positive.id))
}

fn native_image(reader: &Reader<'_>, id: &str, class: &str, base: Conditioning) -> Result<Conditioning> {
    let size = (reader.size(id, "width"), reader.size(id, "height"));
    let pixels = |side: usize| u32::try_from(wan_core::geometry::floor_pixels(side)).unwrap_or(u32::MAX);
    // The image of an input, which the node crops, and what encodes it for the cross-attention.
    let cropped = |input: &str, clip: &str| {
        let clip = reader.source(id, clip)?.id;
        let mut image = image(reader, id, input)?;
        image.scales.push(Scale { width: pixels(size.0), height: pixels(size.1), crop: true });
        see_through(reader, &mut image, &clip, "image")?;
        Ok((image, clip))
    };
    let between = class == "WanFirstLastFrameToVideo";
    let (start, clip) =
        cropped("start_image", if between { "clip_vision_start_image" } else { "clip_vision_output" })?;
    let ends = ["end_image", "clip_vision_end_image"];
    let end_image = if ends.iter().any(|input| reader.linked(id, input).is_some()) {
        let (end, end_clip) = cropped("end_image", "clip_vision_end_image")?;
        if reader.source(&end_clip, "clip_vision")? != reader.source(&clip, "clip_vision")? {
            return reader.refuse(&end_clip, "clip_vision", "both images need the same image encoder");
        }
        if reader.text(&end_clip, "crop") != reader.text(&clip, "crop") {
            return reader.refuse(&end_clip, "crop", "expected that of the start image");
        }
        Some(end)
    } else {
        None
    };
    let loader = reader.source(&clip, "clip_vision")?.id;
    let image_fit = if reader.text(&clip, "crop") == "none" { ImageFit::Stretch } else { ImageFit::Crop };
    let mut stages = base.stages;
    stages.insert(clip, vec![Stage::EncodeImage]);
    stages.insert(id.to_owned(), vec![Stage::EncodeCondition]);
    Ok(Conditioning {
        image_encoder: Some(
            reader.model(&loader, "clip_name").or_else(|_| reader.model(&loader, "model_name"))?,
        ),
        vae: Some(vae(reader, id, "vae")?),
        image: Some(start),
        end_image,
        size,
        frames: reader.size(id, "length"),
        nodes: NodeOptions { image_fit, ..base.nodes },
        stages,
        ..base
    })
}

/// The VAE behind an input.
pub(super) fn vae(reader: &Reader<'_>, id: &str, input: &str) -> Result<ModelFile> {
    let loader = reader.source(id, input)?;
    let name = if loader.class == "VAELoader" { "vae_name" } else { "model_name" };
    reader.model(&loader.id, name)
}

/// The image behind an input.
fn image(reader: &Reader<'_>, id: &str, input: &str) -> Result<ImageInput> {
    let mut end = reader.source(id, input)?;
    let mut scales = Vec::new();
    while end.class == "ImageScale" {
        let side = |name| u32::try_from(reader.int(&end.id, name)).unwrap_or(0);
        let crop = reader.text(&end.id, "crop") == "center" && side("width") > 0 && side("height") > 0;
        scales.push(Scale { width: side("width"), height: side("height"), crop });
        end = reader.source(&end.id, "image")?;
    }
    scales.reverse();
    let name = RootedName::parse(reader.text(&end.id, "image"));
    match name {
        Some(name) if end.class == "LoadImage" => {
            Ok(ImageInput { name, node: end.id, scales, seen_scales: None })
        }
        _ => {
            let message = format!("found the output of {}, expected an image from LoadImage", end.class);
            reader.refuse(id, input, message)
        }
    }
}

/// Lets the image encoder `clip` see `image` as the graph gives it one: the same file, but maybe of another size.
fn see_through(reader: &Reader<'_>, image: &mut ImageInput, clip: &str, input: &str) -> Result<()> {
    let seen = self::image(reader, clip, input)?;
    if seen.name != image.name {
        let message = format!("expected the same image as the other encoder's, {}", image.name.path);
        return reader.refuse(clip, input, message);
    }
    image.seen_scales = Some(seen.scales).filter(|scales| *scales != image.scales);
    Ok(())
}
