//! Decoder and sampler: everything about a video but its conditioning.

use wan_core::progress::Stage;
use wan_pipeline::{
    AttentionChoice, BlocksToSwap, ContextWindows, GuidanceInterval, LoraChoice, Numerics, OutputRange,
    PipelineError, Precision, Request, TeaCache, TeaCacheMode, TilingChoice, WindowSchedule,
};
use wan_sampler::{KSampler, SchedulerKind};
use wan_vae::Tiling;

use super::encode::{self, Conditioning};
use super::read::{End, Reader};
use super::{Result, Video};
use crate::job::{ModelChoice, ModelFile};

/// ComfyUI's shift for Wan where no node sets another (`comfy/supported_models.py`, WAN21).
const NATIVE_SHIFT: f64 = 8.0;

/// The transformer as its nodes set it up.
#[derive(Debug, PartialEq)]
struct Transformer {
    file: ModelFile,
    loras: Vec<LoraChoice>,
    shift: f64,
    numerics: Numerics,
    blocks_to_swap: BlocksToSwap,
}

/// The video whose frames `decoder` makes.
pub(super) fn video(reader: &Reader<'_>, decoder: &End) -> Result<Video> {
    let sampler = reader.source(&decoder.id, "samples")?;
    let id = &sampler.id;
    let (transformer, conditioning, mut request) = match sampler.class {
        "WanVideoSampler" => wrapper(reader, id)?,
        "KSampler" => native(reader, id)?,
        class => {
            let message = format!("found the output of {class}, expected that of a sampler");
            return reader.refuse(&decoder.id, "samples", message);
        }
    };
    request.loras = transformer.loras;
    tiling(reader, decoder, &mut request);
    let vae = encode::vae(reader, &decoder.id, "vae")?;
    if conditioning.vae.as_ref().is_some_and(|other| *other != vae) {
        return reader.refuse(
            &decoder.id,
            "vae",
            "encoding and decoding use different VAEs; link both to one loader",
        );
    }
    check(reader, id, &request)?;
    let mut stages = conditioning.stages;
    stages.insert(id.clone(), vec![Stage::Denoise]);
    stages.insert(decoder.id.clone(), vec![Stage::Decode]);
    let (text_encoder, image_encoder) = (conditioning.text_encoder, conditioning.image_encoder);
    let model = ModelChoice { dit: transformer.file, vae, text_encoder, image_encoder };
    let (image, end_image) = (conditioning.image, conditioning.end_image);
    Ok(Video { request, model, image, end_image, stages })
}

/// What the pipeline says about the request, told of the sampler.
fn check(reader: &Reader<'_>, id: &str, request: &Request) -> Result<()> {
    match request.check() {
        Ok(()) => Ok(()),
        Err(PipelineError::Request { field, found, expected }) => {
            reader.refuse(id, &field.replace('-', "_"), format!("found {found}, expected {expected}"))
        }
        Err(error) => reader.refuse(id, "", error.to_string()),
    }
}

fn wrapper(reader: &Reader<'_>, id: &str) -> Result<(Transformer, Conditioning, Request)> {
    let loader = reader.source(id, "model")?.id;
    let swap = reader.linked(&loader, "block_swap_args");
    let transformer = Transformer {
        file: reader.model(&loader, "model")?,
        loras: selected_loras(reader, &loader)?,
        shift: reader.float(id, "shift"),
        numerics: Numerics {
            precision: precision(reader.text(&loader, "quantization")),
            attention: attention(reader.text(&loader, "attention_mode")),
        },
        blocks_to_swap: swap
            .map_or(BlocksToSwap::Auto, |swap| BlocksToSwap::Count(reader.size(&swap.id, "blocks_to_swap"))),
    };
    let conditioning = encode::wrapper(reader, id)?;
    let windows = reader.linked(id, "context_options");
    if windows.is_some() && conditioning.image.is_some() {
        return reader.refuse(
            id,
            "context_options",
            "context windows are for text-to-video; remove the image",
        );
    }
    let scheduler = match reader.text(id, "scheduler").parse::<SchedulerKind>() {
        Ok(scheduler) => scheduler,
        Err(error) => return reader.refuse(id, "scheduler", error.to_string()),
    };
    let request = Request {
        seed: reader.int(id, "seed"),
        denoise_strength: reader.float(id, "denoise_strength"),
        riflex_freq_index: reader.size(id, "riflex_freq_index"),
        teacache: reader.linked(id, "teacache_args").map(|args| teacache(reader, &args.id)),
        context: windows.map(|args| context_windows(reader, &args.id)),
        ..request(reader, id, scheduler, &transformer, &conditioning)
    };
    Ok((transformer, conditioning, request))
}

fn native(reader: &Reader<'_>, id: &str) -> Result<(Transformer, Conditioning, Request)> {
    let transformer = patched_transformer(reader, id)?;
    let conditioning = encode::native(reader, id)?;
    // Names that are not among the choices are refused where the graph is checked.
    let (sampler, scheduler) = (reader.text(id, "sampler_name"), reader.text(id, "scheduler"));
    let pair = KSampler::ALL
        .into_iter()
        .find(|pair| (pair.sampler.name(), pair.scheduler.name()) == (sampler, scheduler))
        .unwrap_or(KSampler::ALL[0]);
    let scheduler = SchedulerKind::KSampler(pair);
    let request = Request {
        seed: reader.int(id, "seed"),
        ..request(reader, id, scheduler, &transformer, &conditioning)
    };
    Ok((transformer, conditioning, request))
}

fn request(
    reader: &Reader<'_>,
    id: &str,
    scheduler: SchedulerKind,
    transformer: &Transformer,
    conditioning: &Conditioning,
) -> Request {
    Request {
        prompt: conditioning.prompt.clone(),
        negative_prompt: conditioning.negative_prompt.clone(),
        width: conditioning.size.0,
        height: conditioning.size.1,
        frames: conditioning.frames,
        steps: reader.size(id, "steps"),
        cfg: reader.float(id, "cfg"),
        guidance_interval: GuidanceInterval::default(),
        teacache: None,
        shift: transformer.shift,
        seed: 0,
        scheduler,
        denoise_strength: 1.0,
        riflex_freq_index: 0,
        noise_aug_strength: conditioning.noise_aug_strength,
        latent_strength: conditioning.latent_strength,
        clip_embed_strength: conditioning.clip_embed_strength,
        adjust_resolution: conditioning.adjust_resolution,
        vae_tiling: TilingChoice::Auto,
        tile: Tiling::default(),
        output_range: OutputRange::Clamp,
        context: None,
        loras: Vec::new(),
        precision: transformer.numerics.precision,
        attention: transformer.numerics.attention,
        blocks_to_swap: transformer.blocks_to_swap,
        nodes: conditioning.nodes,
    }
}

/// The node `args`. Without coefficients the wrapper ignores the mode.
fn teacache(reader: &Reader<'_>, args: &str) -> TeaCache {
    let mode = match (reader.boolean(args, "use_coefficients"), reader.text(args, "mode")) {
        (false, _) => TeaCacheMode::Raw,
        (true, "e0") => TeaCacheMode::E0,
        (true, _) => TeaCacheMode::E,
    };
    // -1 is the last step, however many there come to be.
    const LAST: usize = 9999;
    TeaCache {
        threshold: reader.float(args, "rel_l1_thresh"),
        mode,
        start: Some(reader.size(args, "start_step")),
        end: Some(usize::try_from(reader.signed(args, "end_step")).unwrap_or(LAST)),
    }
}

/// The node `args`. All but two schedules and one way to blend are refused where the graph is checked.
fn context_windows(reader: &Reader<'_>, args: &str) -> ContextWindows {
    ContextWindows {
        schedule: match reader.text(args, "context_schedule") {
            "static_standard" => WindowSchedule::StaticStandard,
            _ => WindowSchedule::UniformStandard,
        },
        frames: reader.size(args, "context_frames"),
        stride: reader.size(args, "context_stride"),
        overlap: reader.size(args, "context_overlap"),
        freenoise: reader.boolean(args, "freenoise"),
    }
}

/// ComfyUI's name for how matrices are multiplied: weights are always kept as they are stored.
fn precision(name: &str) -> Precision {
    if name.ends_with("_fast") && name.starts_with("fp8") { Precision::Fp8 } else { Precision::Bf16 }
}

/// The wrapper's name for an attention: kinds that are not 8-bit are exact, and so are the sparse ones here.
fn attention(name: &str) -> AttentionChoice {
    if matches!(name, "sageattn" | "sageattn_compiled" | "sageattn_3") {
        AttentionChoice::Sage
    } else {
        AttentionChoice::Auto
    }
}

fn tiling(reader: &Reader<'_>, decoder: &End, request: &mut Request) {
    let size = |name| reader.size(&decoder.id, name);
    match decoder.class {
        "WanVideoDecode" => {
            let on = reader.boolean(&decoder.id, "enable_vae_tiling");
            request.vae_tiling = if on { TilingChoice::On } else { TilingChoice::Off };
            // The wrapper's x counts rows (`wanvideo/wan_video_vae.py`, tiled_decode).
            let tile = Tiling {
                tile_height: size("tile_x"),
                tile_width: size("tile_y"),
                stride_height: size("tile_stride_x"),
                stride_width: size("tile_stride_y"),
            };
            // Sizes that are not used may be anything.
            request.tile = if on { tile } else { Tiling::default() };
            if reader.text(&decoder.id, "normalization") == "minmax" {
                request.output_range = OutputRange::Minmax;
            }
        }
        "VAEDecodeTiled" => {
            let (tile, overlap) = (size("tile_size"), size("overlap"));
            // ComfyUI's own remedy for overlaps that leave no progress.
            let stride = tile - overlap.min(tile / 4);
            request.vae_tiling = TilingChoice::On;
            request.tile =
                Tiling { tile_height: tile, tile_width: tile, stride_height: stride, stride_width: stride };
        }
        _ => {}
    }
}

/// The wrapper's chain of LoRAs, the first one first.
fn selected_loras(reader: &Reader<'_>, loader: &str) -> Result<Vec<LoraChoice>> {
    let mut loras = Vec::new();
    let mut next = reader.linked(loader, "lora");
    while let Some(End { id, .. }) = next {
        let mut lora = lora(reader, &id, "lora", "strength")?;
        if let Some(edit) = reader.linked(&id, "blocks") {
            lora.blocks = selected_blocks(reader, &edit.id)?;
        }
        loras.push(lora);
        next = reader.linked(&id, "prev_lora");
    }
    loras.reverse();
    Ok(loras)
}

fn selected_blocks(reader: &Reader<'_>, edit: &str) -> Result<Option<wan_dit::BlockSelection>> {
    let inputs = reader.graph.class(edit).map_or(&[][..], |class| class.inputs);
    let on: Vec<String> = (0..inputs.len())
        .filter(|block| reader.boolean(edit, inputs[*block].name))
        .map(|block| block.to_string())
        .collect();
    match on.len() {
        all if all == inputs.len() => Ok(None),
        0 => reader.refuse(edit, "", "no block is selected; remove the LoRA instead"),
        _ => match on.join(",").parse() {
            Ok(blocks) => Ok(Some(blocks)),
            Err(error) => reader.refuse(edit, "", error.to_string()),
        },
    }
}

fn lora(reader: &Reader<'_>, id: &str, name: &str, strength: &str) -> Result<LoraChoice> {
    let file = reader.model(id, name)?;
    match reader.catalog.model_path(file.folder, &file.name) {
        Some(path) => Ok(LoraChoice { path, strength: reader.float(id, strength), blocks: None }),
        None => reader.refuse(id, name, format!("found no file {}", file.name)),
    }
}

/// ComfyUI's chain from a sampler to the loader; of several shifts the one nearest to the sampler holds.
fn patched_transformer(reader: &Reader<'_>, sampler: &str) -> Result<Transformer> {
    let (mut loras, mut shift) = (Vec::new(), None);
    let mut end = reader.source(sampler, "model")?;
    loop {
        match end.class {
            "ModelSamplingSD3" => drop(shift.get_or_insert(reader.float(&end.id, "shift"))),
            "LoraLoaderModelOnly" => loras.push(lora(reader, &end.id, "lora_name", "strength_model")?),
            _ => break,
        }
        end = reader.source(&end.id, "model")?;
    }
    loras.reverse();
    let precision = precision(reader.text(&end.id, "weight_dtype"));
    Ok(Transformer {
        file: reader.model(&end.id, "unet_name")?,
        loras,
        shift: shift.unwrap_or(NATIVE_SHIFT),
        numerics: Numerics { precision, ..Numerics::default() },
        blocks_to_swap: BlocksToSwap::Auto,
    })
}
