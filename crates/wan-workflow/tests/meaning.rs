//! Graphs that can run, and what they mean.

mod support;

use serde_json::{Value, json};
use support::{check, guide, native, with};
use wan_core::progress::Stage;
use wan_media::{FrameRate, OutputFormat};
use wan_pipeline::{
    AttentionChoice, BlocksToSwap, ContextWindows, ImageFit, NodeOptions, Precision, PromptSyntax, Request,
    TeaCache, TeaCacheMode, TilingChoice, WindowSchedule,
};
use wan_sampler::{ComfyScheduler, Schedule, SchedulerKind};
use wan_workflow::table::{Kind, classes};
use wan_workflow::{NodeWork, Root, SaveKind, Scale, WANX_21_API, WANX_21_UI, convert, signatures};

/// What is encoded of the prompt, and the factor on its embeddings.
fn texts(request: &Request) -> Vec<(String, f64)> {
    request.prompts().into_iter().map(|prompt| (prompt.text.into_owned(), prompt.weight)).collect()
}

#[test]
fn the_guides_graph_means_what_the_guide_says() {
    let valid = check(&guide()).unwrap();
    assert!(valid.node_errors.is_empty());
    assert_eq!(valid.outputs, ["54"]);
    assert_eq!(valid.graph.as_json()["52"]["inputs"]["cfg"].to_string(), "6.0");
    let job = &valid.job;
    let request = &job.request;
    assert_eq!((request.width, request.height, request.frames, request.steps), (512, 512, 81, 10));
    assert_eq!((request.cfg, request.shift, request.seed, request.denoise_strength), (6.0, 5.0, 42, 1.0));
    assert_eq!((request.scheduler, request.vae_tiling), (SchedulerKind::DpmPp2M, TilingChoice::On));
    let tile = request.tile;
    assert_eq!(
        (tile.tile_height, tile.tile_width, tile.stride_height, tile.stride_width),
        (272, 272, 144, 128)
    );
    assert!(request.adjust_resolution && request.prompt.starts_with("A beautiful anime girl"));
    assert_eq!((request.precision, request.attention), (Precision::Bf16, AttentionChoice::Sage));
    assert_eq!(request.blocks_to_swap, BlocksToSwap::Count(10));
    assert_eq!(job.image.as_ref().unwrap().name.path, "girl.png");
    assert_eq!(job.model.dit.name, "Wan2_1-I2V-14B-480P_fp8_e4m3fn.safetensors");
    let (_, save) = job.saves().next().unwrap();
    assert_eq!((save.root, save.prefix.as_str()), (Root::Output, "WanVideo2_1"));
    let SaveKind::Combined { video, format, save_metadata: true } = &save.kind else { panic!("{save:?}") };
    assert_eq!((video.crf, video.fps, *format), (19, FrameRate::new(16, 1).unwrap(), "video/h264-mp4"));
    let ids: Vec<_> = job.nodes.iter().map(|n| n.id.as_str()).collect();
    assert_eq!(&ids[ids.len() - 5..], ["49", "50", "52", "53", "54"]);
    assert!(!ids.contains(&"47"), "nothing links to it");
    let at = |id: &str| job.nodes.iter().find(|n| n.id == id).unwrap().work.clone();
    assert_eq!(at("50"), NodeWork::Stages(vec![Stage::EncodeImage, Stage::EncodeCondition]));
    assert_eq!(at("52"), NodeWork::Stages(vec![Stage::Denoise]));
}

#[test]
fn the_shipped_workflow_means_the_same_in_both_formats() {
    let ui: Value = serde_json::from_str(WANX_21_UI).unwrap();
    let api: Value = serde_json::from_str(WANX_21_API).unwrap();
    assert_eq!(api, guide());
    let mut converted = convert(&ui).unwrap();
    for node in converted.as_object_mut().unwrap().values_mut() {
        node.as_object_mut().unwrap().remove("_meta");
    }
    let mut expected = guide();
    // A value of the front end's own.
    expected["42"]["inputs"].as_object_mut().unwrap().remove("upload");
    assert_eq!(converted, expected);
    assert_eq!(check(&converted).unwrap().job, check(&guide()).unwrap().job);
    assert_eq!(convert(&guide()).unwrap(), guide());
}

#[test]
fn comfyuis_own_graph_is_translated() {
    let valid = check(&native()).unwrap();
    let job = valid.job;
    let request = &job.request;
    assert_eq!((request.width, request.height, request.frames, request.steps), (832, 480, 33, 20));
    assert_eq!(
        (request.shift, request.seed, request.scheduler),
        (3.0, u64::MAX, "uni_pc/simple".parse().unwrap())
    );
    assert_eq!((request.prompt.as_str(), request.negative_prompt.as_str()), ("good", "bad"));
    assert!(!request.adjust_resolution && request.loras[0].strength == 0.5);
    assert_eq!(job.model.vae.name, "wan2.1/Wan2_1_VAE_bf16.safetensors");
    let image = job.image.as_ref().unwrap();
    assert_eq!(image.scales, [Scale { width: 832, height: 480, crop: true }]);
    assert_eq!(image.seen_scales, Some(Vec::new()), "the image encoder sees the whole image");
    assert_eq!(request.nodes.image_fit, ImageFit::Stretch);
    let cropped = check(&with(native(), "8", "crop", json!("center"))).unwrap().job.request.nodes;
    assert_eq!(cropped.image_fit, ImageFit::Crop);
    let text = "a | b (c:1.5)";
    let prompts = check(&with(native(), "6", "text", json!(text))).unwrap().job.request;
    assert_eq!(texts(&prompts), [(text.to_owned(), 1.0)]);
    let (_, save) = job.saves().next().unwrap();
    assert!(matches!(&save.kind, SaveKind::Video { video } if video.format == OutputFormat::Mp4));
    assert_eq!(save.prefix.as_str(), "video/ComfyUI");
    let mut text_only = native();
    text_only["20"] = json!({"class_type": "EmptyHunyuanLatentVideo", "inputs": {
        "width": 832, "height": 480, "length": 33, "batch_size": 1}});
    text_only["12"]["inputs"]["latent_image"] = json!(["20", 0]);
    text_only["12"]["inputs"]["positive"] = json!(["6", 0]);
    text_only["12"]["inputs"]["negative"] = json!(["7", 0]);
    assert!(check(&text_only).unwrap().job.image.is_none());
}

/// ComfyUI's own samplers keep their sigmas; those of the wrapper's scheduler of a like name differ.
#[test]
fn comfyuis_own_samplers_run_on_its_own_grid() {
    for name in ["euler", "dpmpp_2m", "dpmpp_2m_sde", "lcm", "res_multistep", "uni_pc"] {
        let graph = with(with(native(), "12", "sampler_name", json!(name)), "12", "steps", json!(4));
        let request = check(&with(graph, "11", "shift", json!(5))).unwrap().job.request;
        assert_eq!(request.scheduler.name(), format!("{name}/simple"));
        let schedule = Schedule::new(request.scheduler, request.steps, request.shift, 1.0).unwrap();
        let last = if name == "uni_pc" { 0.7692308 } else { 0.625 };
        assert_eq!((schedule.sigmas()[3], schedule.timesteps()[3]), (last, 1000.0 * last));
    }
}

/// A sampler and a scheduler of ComfyUI's are one scheduler here.
#[test]
fn comfyuis_own_schedulers_are_translated() {
    let inputs = classes().find(|class| class.name == "KSampler").unwrap().inputs;
    let choices = |name| match inputs.iter().find(|input| input.name == name).unwrap().kind {
        Kind::Choice { options, .. } => options,
        _ => panic!("{name} is no choice"),
    };
    let (samplers, schedulers) = (choices("sampler_name"), choices("scheduler"));
    assert_eq!((samplers.len(), schedulers), (6, &ComfyScheduler::ALL.map(ComfyScheduler::name)[..]));
    for (sampler, scheduler) in
        samplers.iter().flat_map(|sampler| schedulers.iter().map(move |s| (sampler, s)))
    {
        let graph = with(native(), "12", "sampler_name", json!(sampler));
        let found = check(&with(graph, "12", "scheduler", json!(scheduler))).unwrap().job.request.scheduler;
        let SchedulerKind::KSampler(pair) = found else { panic!("{sampler}/{scheduler} became {found}") };
        assert_eq!((pair.sampler.name(), pair.scheduler.name()), (*sampler, *scheduler));
    }
    let one =
        with(with(native(), "12", "scheduler", json!("kl_optimal")), "12", "sampler_name", json!("euler"));
    let refused = check(&with(one, "12", "steps", json!(1))).unwrap_err().details;
    assert!(refused.contains("sigma 0 is not a number"), "{refused}");
}

/// The wrapper's schedulers are the program's of the same names.
#[test]
fn the_wrappers_schedulers_keep_their_names() {
    let inputs = classes().find(|class| class.name == "WanVideoSampler").unwrap().inputs;
    let scheduler = inputs.iter().find(|input| input.name == "scheduler").unwrap();
    let Kind::Choice { options, .. } = scheduler.kind else { panic!("no choice") };
    assert_eq!(options.len(), SchedulerKind::WRAPPER.len());
    for name in options {
        let graph = with(with(guide(), "52", "scheduler", json!(name)), "52", "steps", json!(4));
        assert_eq!(check(&graph).unwrap().job.request.scheduler.name(), *name);
    }
}

/// As in the wrapper, but before anything is loaded.
#[test]
fn flowmatch_distill_takes_four_steps() {
    let graph = with(guide(), "52", "scheduler", json!("flowmatch_distill"));
    let refused = check(&with(graph, "52", "steps", json!(6))).unwrap_err().details;
    assert!(refused.contains("flowmatch_distill has a grid of 4 steps, found 6"), "{refused}");
}

#[test]
fn outputs_of_one_video_share_its_run_and_others_are_refused() {
    let mut graph = guide();
    graph["38"] = json!({"class_type": "GetImageSizeAndCount", "inputs": {"image": ["53", 0]}});
    graph["60"] = json!({"class_type": "SaveImage", "inputs": {"images": ["38", 0], "filename_prefix": "f"}});
    graph["61"] = graph["52"].clone();
    graph["61"]["inputs"]["seed"] = json!(7);
    graph["62"] = graph["53"].clone();
    graph["62"]["inputs"]["samples"] = json!(["61", 0]);
    graph["63"] = json!({"class_type": "PreviewImage", "inputs": {"images": ["62", 0]}});
    let valid = check(&graph).unwrap();
    assert_eq!(valid.outputs, ["54", "60"]);
    assert_eq!(valid.job.saves().count(), 2);
    assert!(valid.job.nodes.iter().any(|n| n.work == NodeWork::Measure));
    assert_eq!(valid.node_errors.get("63").unwrap().errors[0].kind, "custom_validation_failed");
}

#[test]
fn a_webp_of_video_combine_counts_its_plays() {
    let of = |format: &str| {
        let graph = with(with(guide(), "54", "loop_count", json!(3)), "54", "format", json!(format));
        let job = check(&graph).unwrap().job;
        let (_, save) = job.saves().next().unwrap();
        let SaveKind::Combined { video, .. } = &save.kind else { panic!("{save:?}") };
        (video.loop_count, video.counts_plays)
    };
    assert_eq!(
        (of("image/webp"), of("image/gif"), of("video/h264-mp4")),
        ((3, true), (3, false), (3, false))
    );
}

#[test]
fn loras_are_chained_with_their_blocks() {
    let mut graph = with(guide(), "48", "lora", json!(["60", 0]));
    graph["60"] = json!({"class_type": "WanVideoLoraSelect", "inputs": {
        "lora": "b.safetensors", "strength": 1, "prev_lora": ["61", 0]}});
    graph["61"] = json!({"class_type": "WanVideoLoraSelect", "inputs": {
        "lora": "a.safetensors", "strength": 0.5, "blocks": ["62", 0]}});
    let blocks = (0..40).map(|n| (format!("blocks.{n}."), json!(n < 2)));
    graph["62"] =
        json!({"class_type": "WanVideoLoraBlockEdit", "inputs": blocks.collect::<serde_json::Map<_, _>>()});
    let texts: Vec<_> = check(&graph).unwrap().job.request.loras.iter().map(ToString::to_string).collect();
    assert_eq!(texts, ["loras/a.safetensors:0.5:blocks=0,1", "loras/b.safetensors:1"]);
}

#[test]
fn newer_encoders_and_aliases_mean_the_same_image() {
    let mut graph = guide();
    graph["50"] = json!({"class_type": "WanVideoImageToVideoEncode", "inputs": {
        "vae": ["43", 0], "width": 512, "height": 512, "num_frames": 81, "noise_aug_strength": 0,
        "start_latent_strength": 1, "end_latent_strength": 1, "force_offload": true, "clip_embeds": ["60", 0],
        "start_image": ["42", 0]}});
    graph["60"] = json!({"class_type": "WanVideoClipVisionEncode", "inputs": {
        "clip_vision": ["44", 0], "image_1": ["42", 0], "strength_1": 1, "strength_2": 1, "crop": "center",
        "combine_embeds": "average", "force_offload": true}});
    let job = check(&graph).unwrap().job;
    assert!(!job.request.adjust_resolution && job.image.is_some());
    let nodes = |node: &str, input: &str, value: Value| {
        let request = check(&with(graph.clone(), node, input, value)).unwrap().job.request;
        assert_eq!(request.latent_strength, 1.0, "that one is on the pixels");
        request.nodes
    };
    let plain = NodeOptions { prompt_syntax: PromptSyntax::Weighted, ..NodeOptions::default() };
    assert_eq!(job.request.nodes, plain);
    let first = NodeOptions { first_latent_strength: 0.5, ..plain };
    assert_eq!(nodes("50", "start_latent_strength", json!(0.5)), first);
    let last = NodeOptions { last_latent_strength: 0.2, ..plain };
    assert_eq!(nodes("50", "end_latent_strength", json!(0.2)), last);
    let stretched = NodeOptions { image_fit: ImageFit::Stretch, ..plain };
    assert_eq!(nodes("60", "crop", json!("disabled")), stretched);
    // ComfyUI's own encoder is not told of the crop.
    let mut native_clip = graph.clone();
    native_clip["44"] = json!({"class_type": "CLIPVisionLoader", "inputs": {
        "clip_name": "wan2.1/open-clip-xlm-roberta-large-vit-huge-14_visual_fp16.safetensors"}});
    native_clip["60"]["inputs"]["crop"] = json!("disabled");
    assert_eq!(check(&native_clip).unwrap().job.request.nodes, plain);
    // The image is scaled on its way to the video, to the image encoder, to both.
    let mut scaled = graph.clone();
    scaled["70"] = json!({"class_type": "ImageScale", "inputs": {
        "image": ["42", 0], "upscale_method": "lanczos", "width": 64, "height": 32, "crop": "disabled"}});
    let scale = vec![Scale { width: 64, height: 32, crop: false }];
    for (start, clip, scales, seen) in [
        ("70", "42", scale.clone(), Some(Vec::new())),
        ("42", "70", Vec::new(), Some(scale.clone())),
        ("70", "70", scale.clone(), None),
    ] {
        let graph = with(scaled.clone(), "50", "start_image", json!([start, 0]));
        let image = check(&with(graph, "60", "image_1", json!([clip, 0]))).unwrap().job.image.unwrap();
        assert_eq!((image.scales, image.seen_scales), (scales, seen), "{start} {clip}");
    }
    let mut graph = with(guide(), "43", "model_name", json!("wanvideo\\Wan2_1_VAE_bf16.safetensors"));
    let inputs = graph["50"]["inputs"].as_object_mut().unwrap();
    let clip = inputs.remove("clip_vision").unwrap();
    inputs.insert("clip".into(), clip);
    assert_eq!(check(&graph).unwrap().job, check(&guide()).unwrap().job);
}

/// The guide's graph with the newer encoder and an end image.
fn between_two_images() -> Value {
    let mut graph = guide();
    graph["50"] = json!({"class_type": "WanVideoImageToVideoEncode", "inputs": {
        "vae": ["43", 0], "width": 512, "height": 512, "num_frames": 81, "noise_aug_strength": 0,
        "start_latent_strength": 1, "end_latent_strength": 1, "force_offload": true, "clip_embeds": ["60", 0],
        "start_image": ["42", 0], "end_image": ["61", 0], "fun_or_fl2v_model": true}});
    graph["60"] = json!({"class_type": "WanVideoClipVisionEncode", "inputs": {
        "clip_vision": ["44", 0], "image_1": ["42", 0], "image_2": ["61", 0], "strength_1": 0.5, "strength_2": 0.5,
        "crop": "center", "combine_embeds": "batch", "force_offload": true}});
    graph["61"] = json!({"class_type": "LoadImage", "inputs": {"image": "end.png"}});
    graph
}

#[test]
fn an_end_image_is_the_second_of_both_encoders() {
    let graph = between_two_images();
    let job = check(&graph).unwrap().job;
    let names = |image: &Option<wan_workflow::ImageInput>| image.as_ref().map(|i| i.name.path.clone());
    assert_eq!(names(&job.image).as_deref(), Some("girl.png"));
    assert_eq!(names(&job.end_image).as_deref(), Some("end.png"));
    assert_eq!(job.request.clip_embed_strength, 0.5);
    assert_eq!(check(&with(graph.clone(), "60", "combine_embeds", json!("concat"))).unwrap().job, job);
    for (node, input, value, expected) in [
        ("60", "combine_embeds", json!("average"), "expected concat or batch"),
        ("60", "strength_2", json!(1), "that of strength_1"),
        ("60", "image_2", json!(["42", 0]), "expected the same image"),
        ("50", "fun_or_fl2v_model", json!(false), "expected true with an end image"),
    ] {
        let text = check(&with(graph.clone(), node, input, value)).unwrap_err().details;
        assert!(text.contains(expected) && text.contains(input), "{input}: {text}");
    }
    let ends = with(graph.clone(), "50", "end_latent_strength", json!(0.5));
    let nodes = check(&with(ends, "50", "start_latent_strength", json!(2))).unwrap().job.request.nodes;
    assert_eq!((nodes.first_latent_strength, nodes.last_latent_strength), (2.0, 0.5));
    let mut alone = graph;
    alone["50"]["inputs"].as_object_mut().unwrap().remove("end_image");
    let text = check(&alone).unwrap_err().details;
    assert!(text.contains("expected none where no end_image is linked"), "{text}");
}

#[test]
fn comfyuis_own_node_takes_both_images() {
    let mut graph = native();
    graph["20"] = json!({"class_type": "LoadImage", "inputs": {"image": "end.png"}});
    graph["21"] = graph["8"].clone();
    graph["21"]["inputs"]["image"] = json!(["20", 0]);
    graph["9"]["class_type"] = json!("WanFirstLastFrameToVideo");
    let inputs = graph["9"]["inputs"].as_object_mut().unwrap();
    let clip = inputs.remove("clip_vision_output").unwrap();
    inputs.insert("clip_vision_start_image".into(), clip);
    let alone = check(&graph).unwrap().job;
    assert_eq!(alone, {
        let mut job = check(&native()).unwrap().job;
        job.nodes.iter_mut().filter(|n| n.id == "9").for_each(|n| n.class_type = "WanFirstLastFrameToVideo");
        job
    });
    let graph = with(graph, "9", "end_image", json!(["20", 0]));
    let text = check(&graph).unwrap_err().details;
    assert!(text.contains("clip_vision_end_image"), "{text}");
    let job = check(&with(graph.clone(), "9", "clip_vision_end_image", json!(["21", 0]))).unwrap().job;
    let mut other_crop = graph.clone();
    other_crop["21"]["inputs"]["crop"] = json!("center");
    let refused = check(&with(other_crop, "9", "clip_vision_end_image", json!(["21", 0]))).unwrap_err();
    assert!(refused.details.contains("expected that of the start image"), "{refused:?}");
    let end = job.end_image.unwrap();
    assert!(end.name.path == "end.png" && end.scales == job.image.unwrap().scales && end.scales[0].crop);
}

#[test]
fn teacache_is_that_of_its_node() {
    let teacache = |input: &str, inputs: Value| {
        let mut graph = with(guide(), "52", input, json!(["60", 0]));
        graph["60"] = json!({"class_type": "WanVideoTeaCache", "inputs": inputs});
        check(&graph).unwrap().job.request.teacache
    };
    assert_eq!(check(&guide()).unwrap().job.request.teacache, None);
    // As version 1.0.6 has it: distances as they are.
    let old = json!({"rel_l1_thresh": 0.04, "start_step": 6, "cache_device": "offload_device"});
    let expected = TeaCache { threshold: 0.04, mode: TeaCacheMode::Raw, start: Some(6), end: Some(9999) };
    assert_eq!(teacache("teacache_args", old), Some(expected));
    let new = |end: i64, mode: &str| {
        json!({"rel_l1_thresh": 0.25, "start_step": 1, "end_step": end, "cache_device": "main_device",
            "use_coefficients": true, "mode": mode})
    };
    let expected = TeaCache { threshold: 0.25, mode: TeaCacheMode::E, start: Some(1), end: Some(7) };
    assert_eq!(teacache("cache_args", new(7, "e")), Some(expected));
    let expected = TeaCache { mode: TeaCacheMode::E0, end: Some(9999), ..expected };
    assert_eq!(teacache("cache_args", new(-1, "e0")), Some(expected));
}

#[test]
fn context_windows_are_those_of_their_node() {
    let of_text = with(guide(), "52", "image_embeds", json!(["61", 0]));
    let mut graph = with(of_text, "52", "context_options", json!(["60", 0]));
    graph["60"] = json!({"class_type": "WanVideoContextOptions", "inputs": {
        "context_schedule": "static_standard", "context_frames": 49, "context_stride": 8, "context_overlap": 12,
        "freenoise": false, "verbose": false, "fuse_method": "linear"}});
    graph["61"] = json!({"class_type": "WanVideoEmptyEmbeds", "inputs": {
        "width": 832, "height": 480, "num_frames": 161}});
    let encoder = graph["52"]["inputs"]["text_embeds"][0].as_str().unwrap().to_owned();
    let graph = with(graph, &encoder, "positive_prompt", json!("(waves:1.3) | a storm"));
    let request = check(&graph).unwrap().job.request;
    let schedule = WindowSchedule::StaticStandard;
    let windows = ContextWindows { schedule, frames: 49, stride: 8, overlap: 12, freenoise: false };
    assert_eq!(request.context, Some(windows));
    assert_eq!(texts(&request), [("waves".to_owned(), 1.3), ("a storm".to_owned(), 1.0)]);

    let errors = |graph: &Value| format!("{:?}", check(graph).unwrap_err());
    assert!(errors(&with(graph.clone(), "60", "context_overlap", json!(60))).contains("context_overlap"));
    assert!(
        errors(&with(graph.clone(), "60", "context_schedule", json!("uniform_looped")))
            .contains("not_in_list")
    );
    assert!(errors(&with(graph.clone(), "52", "image_embeds", json!(["50", 0]))).contains("text-to-video"));
    let mut without = graph;
    without["52"]["inputs"].as_object_mut().unwrap().remove("context_options");
    assert_eq!(texts(&check(&without).unwrap().job.request), [("waves".to_owned(), 1.3)]);
    let wrong = with(without, &encoder, "positive_prompt", json!("(waves:1.3.1)"));
    assert!(errors(&wrong).contains("found a weight that is no number"), "{}", errors(&wrong));
}

#[test]
fn saved_workflows_are_followed_through_the_browsers_own_nodes() {
    let ui = json!({"nodes": [
        {"id": 1, "type": "LoadImage", "mode": 0, "order": 0, "outputs": [{"type": "IMAGE"}], "widgets_values": ["a.png", "image"]},
        {"id": 2, "type": "Reroute", "mode": 0, "order": 1, "inputs": [{"name": "", "link": 1}]},
        {"id": 3, "type": "ImageScale", "mode": 4, "order": 2, "inputs": [{"name": "image", "type": "IMAGE", "link": 2}],
         "outputs": [{"type": "IMAGE"}]},
        {"id": 4, "type": "PrimitiveNode", "mode": 0, "order": 3, "widgets_values": [77, "fixed"]},
        {"id": 5, "type": "SaveImage", "mode": 0, "order": 4, "widgets_values": ["p"],
         "inputs": [{"name": "images", "link": 3}, {"name": "filename_prefix", "link": 4, "widget": {"name": "filename_prefix"}}]},
        {"id": 6, "type": "ImageScale", "mode": 2, "order": 5, "outputs": [{"type": "IMAGE"}]},
        {"id": 7, "type": "PreviewImage", "mode": 0, "order": 6, "inputs": [{"name": "images", "link": 5}]},
        {"id": 8, "type": "Note", "mode": 0, "order": 7, "widgets_values": ["x"]},
        {"id": 9, "type": "WanVideoSampler", "mode": 0, "order": 8,
         "widgets_values": [10, 6, 5, 123, "fixed", true, "unipc", 0, 1, ""]},
    ], "links": [
        [1, 1, 0, 2, 0, "IMAGE"], [2, 2, 0, 3, 0, "IMAGE"], [3, 3, 0, 5, 0, "IMAGE"], [4, 4, 0, 5, 1, "STRING"],
        [5, 6, 0, 7, 0, "IMAGE"],
    ]});
    let graph = convert(&ui).unwrap();
    assert_eq!(graph.as_object().unwrap().keys().collect::<Vec<_>>(), ["1", "5", "7", "9"]);
    assert_eq!(graph["1"]["inputs"], json!({"image": "a.png"}));
    assert_eq!(graph["5"]["inputs"], json!({"filename_prefix": 77, "images": ["1", 0]}));
    assert_eq!(graph["7"]["inputs"], json!({}));
    let expected = json!({"steps": 10, "cfg": 6, "shift": 5, "seed": 123, "force_offload": true,
        "scheduler": "unipc", "riflex_freq_index": 0, "denoise_strength": 1});
    assert_eq!(graph["9"]["inputs"], expected);
    let circle = json!({"nodes": [
        {"id": 1, "type": "Reroute", "inputs": [{"name": "", "link": 1}]},
        {"id": 2, "type": "PreviewImage", "inputs": [{"name": "images", "link": 1}]},
    ], "links": [[1, 1, 0, 1, 0, "*"]]});
    assert_eq!(convert(&circle).unwrap()["2"]["inputs"], json!({}));
}

#[test]
fn signatures_change_where_results_would() {
    let of = |graph: &Value, image: &str| {
        let valid = check(graph).unwrap();
        signatures(&valid.graph, &valid.outputs, &|_| Some(image.into()))
    };
    let first = of(&guide(), "x");
    assert_eq!(first, of(&guide(), "x"));
    let changed = |other: std::collections::BTreeMap<String, [u8; 32]>| {
        let ids = first.keys().filter(|id| first[*id] != other[*id]);
        ids.cloned().collect::<Vec<_>>()
    };
    assert_eq!(changed(of(&with(guide(), "52", "seed", json!(7)), "x")), ["52", "53", "54"]);
    assert_eq!(changed(of(&guide(), "y")), ["42", "50", "52", "53", "54"]);
    assert_eq!(changed(of(&with(guide(), "46", "unknown", json!(1)), "x")), ["46", "48", "52", "53", "54"]);
}

#[test]
fn loaders_of_comfyui_gguf_mean_what_comfyuis_own_do() {
    let plain = check(&native()).unwrap().job;
    let name = native()["1"]["inputs"]["unet_name"].clone();
    let text = native()["2"]["inputs"]["clip_name"].clone();
    for unet in [
        json!({"class_type": "UnetLoaderGGUF", "inputs": {"unet_name": name}}),
        json!({"class_type": "UnetLoaderGGUFAdvanced", "inputs": {"unet_name": name, "dequant_dtype": "target",
            "patch_dtype": "bfloat16", "patch_on_device": true}}),
    ] {
        let mut graph = native();
        graph["1"] = unet;
        graph["2"] = json!({"class_type": "CLIPLoaderGGUF", "inputs": {"clip_name": text, "type": "wan"}});
        let job = check(&graph).unwrap().job;
        assert_eq!((&job.request, &job.model), (&plain.request, &plain.model));
    }
    let mut other = native();
    other["2"] = json!({"class_type": "CLIPLoaderGGUF", "inputs": {"clip_name": text, "type": "flux"}});
    assert!(check(&other).unwrap_err().to_string().contains("flux"));
}
