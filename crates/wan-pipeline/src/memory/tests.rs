//! The plan of the published 14B model, in FP8 as ComfyUI users have it, on machines of all sizes.

use candle_core::DType;
use wan_core::progress::Stage;
use wan_dit::{BlockSize, DitConfig, DitWeightSizes};
use wan_models::{Defaults, ModelType};
use wan_vae::VaeConfig;

use super::*;
use crate::{OutputRange, Plan, Request, TilingChoice};

const GB: u64 = 1_000_000_000;

/// Sizes of Kijai's FP8 file and of the encoders beside it.
fn i2v_14b() -> ModelSizes {
    let block = BlockSize { recurring: 299_309_056, once: 104_939_520 };
    ModelSizes {
        dtype: DType::F32,
        text_encoder: TextEncoderSizes {
            config: wan_umt5::Config::XXL,
            stored: 11_361_820_672,
            on_device: 9_261_522_944,
            layer: 385_896_448,
            tokenizer: 16_837_417,
        },
        image_encoder: Some(ImageEncoderSizes {
            config: wan_clip::Config {
                image_size: 224,
                patch_size: 14,
                dim: 1280,
                mlp_dim: 5120,
                num_heads: 16,
                num_layers: 32,
            },
            stored: 1_264_000_000,
        }),
        vae: VaeSizes {
            config: VaeConfig::default(),
            stored: 253_785_062,
            decoder_widened: 293_000_000,
            encoder_widened: 215_000_000,
            on_device: 253_785_062,
        },
        dit: DitSizes {
            config: DitConfig::I2V_14B,
            weights: DitWeightSizes {
                stored: 16_993_748_736,
                blocks: vec![block; 40],
                outside: 823_803_136,
                dequantised: 13824 * 5120 * 2,
            },
        },
        loras: 0,
    }
}

fn request(width: usize, height: usize, frames: usize) -> Request {
    let defaults = Defaults {
        width,
        height,
        frames,
        fps: 16,
        steps: 20,
        cfg: 6.0,
        shift: 5.0,
        scheduler: "dpm++".into(),
    };
    Request { adjust_resolution: false, ..Request::with_defaults(&defaults).unwrap() }
}

fn plan(request: Request) -> Plan {
    Plan::new(request, ModelType::I2v, Some((1024, 1024))).unwrap()
}

fn gpu(device: u64) -> Budget {
    Budget {
        processor: Processor::Gpu,
        host_bytes: Some(64 * GB),
        host_is_limit: true,
        device_bytes: Some(device),
    }
}

fn cpu(host: u64) -> Budget {
    Budget { processor: Processor::Cpu, host_bytes: Some(host), host_is_limit: true, device_bytes: None }
}

fn memory(request: Request, budget: Budget) -> MemoryPlan {
    MemoryPlan::new(&i2v_14b(), &plan(request), Stage::EncodeText, budget).unwrap()
}

#[test]
fn cards_of_all_sizes_run_480p() {
    for (card, swapped) in [(80, 0..=0), (24, 0..=0), (16, 8..=15), (12, 25..=40), (8, 38..=40)] {
        let memory = memory(request(832, 480, 81), gpu(card * GB));
        assert!(memory.fits() && memory.advice.is_empty(), "{card} GB: {memory:#?}");
        assert!(swapped.contains(&memory.swapped_blocks), "{card} GB: {} swapped", memory.swapped_blocks);
        assert_eq!(memory.decode, DecodeMode::Whole, "{card} GB");
        assert_eq!(memory.text_layers_streamed, card < 12, "{card} GB");
        // What is swapped is pinned in main memory, and nothing else of that size is.
        let pinned = memory.swapped_blocks as u64 * (299_309_056 + 104_939_520);
        assert!((pinned..pinned + GB).contains(&memory.items[3].host_bytes), "{card} GB: {memory:#?}");
    }
}

#[test]
fn large_cards_run_720p() {
    let memory = memory(request(1280, 720, 81), gpu(80 * GB));
    assert!(memory.fits());
    assert_eq!((memory.swapped_blocks, memory.decode), (0, DecodeMode::Whole));
    // 14.6 GB of weights, keys and context, and about 7 GB of activations.
    assert!((20 * GB..24 * GB).contains(&memory.items[3].device_bytes()), "{memory:#?}");
}

#[test]
fn every_stage_of_an_image_to_video_job_is_planned_in_order() {
    let stages = |memory: &MemoryPlan| memory.items.iter().map(|i| i.stage).collect::<Vec<_>>();
    use Stage::{Decode, Denoise, EncodeCondition, EncodeImage, EncodeText};
    let all = [EncodeText, EncodeImage, EncodeCondition, Denoise, Decode];
    for budget in [gpu(24 * GB), cpu(64 * GB)] {
        assert_eq!(stages(&memory(request(832, 480, 81), budget)), all);
        let plan = plan(request(832, 480, 81));
        let rest = MemoryPlan::new(&i2v_14b(), &plan, Denoise, budget).unwrap();
        assert_eq!(stages(&rest), [Denoise, Decode]);
    }
}

#[test]
fn asked_for_blocks_are_swapped_even_if_they_would_fit() {
    let asked = |blocks, card| {
        memory(
            Request { blocks_to_swap: BlocksToSwap::Count(blocks), ..request(832, 480, 81) },
            gpu(card * GB),
        )
    };
    assert_eq!(asked(10, 80).swapped_blocks, 10);
    assert_eq!(asked(99, 80).swapped_blocks, 40);
    let refused = asked(0, 12);
    assert!(!refused.fits());
    assert_eq!(refused.advice, ["--blocks-to-swap auto"]);
    let error = refused.check().unwrap_err();
    assert!(!error.is_usage());
    let text = error.to_string();
    assert!(text.starts_with("not enough memory: denoise needs 16."), "{text}");
    assert!(
        text.ends_with("of GPU memory, of which there is 11.2 GiB; what fits: --blocks-to-swap auto"),
        "{text}"
    );
}

#[test]
fn loras_stay_on_the_device_and_cost_blocks() {
    let sizes = ModelSizes { loras: 738_000_000, ..i2v_14b() };
    let with =
        MemoryPlan::new(&sizes, &plan(request(832, 480, 81)), Stage::EncodeText, gpu(12 * GB)).unwrap();
    let without = memory(request(832, 480, 81), gpu(12 * GB));
    // 738 MB, and a change with its sum of 335 MB each, are nearly five blocks.
    assert!((4..=5).contains(&(with.swapped_blocks - without.swapped_blocks)));
    assert!(with.fits());
}

#[test]
fn the_decode_goes_from_whole_to_tile_after_tile() {
    let decode = |tiling, card_mb: u64| {
        let sizes = i2v_14b();
        let request = Request { vae_tiling: tiling, ..request(1280, 720, 81) };
        let memory =
            MemoryPlan::new(&sizes, &plan(request), Stage::Decode, gpu(card_mb * 1_000_000)).unwrap();
        assert_eq!(memory.items.len(), 1);
        (memory.decode, memory.tiles, memory.fits())
    };
    assert_eq!(decode(TilingChoice::Auto, 16_000), (DecodeMode::Whole, 1, true));
    assert_eq!(decode(TilingChoice::Auto, 3_000), (DecodeMode::TileOuter, 45, true));
    assert_eq!(decode(TilingChoice::On, 24_000), (DecodeMode::TimeOuter, 45, true));
    assert_eq!(decode(TilingChoice::On, 8_000), (DecodeMode::TileOuter, 45, true));
    assert!(!decode(TilingChoice::Off, 3_000).2);
}

#[test]
fn a_gpu_decodes_as_many_small_latent_frames_together_as_fit() {
    let together = |tiling, (width, height), budget| {
        let plan = plan(Request { vae_tiling: tiling, ..request(width, height, 81) });
        let way = decode_way(&i2v_14b().vae, &plan, budget, DType::BF16).unwrap();
        (way.mode, way.together)
    };
    let (large, small) = ((832, 480), (512, 512));
    assert_eq!(together(TilingChoice::On, large, gpu(24 * GB)), (DecodeMode::TimeOuter, 4));
    assert_eq!(together(TilingChoice::Off, large, gpu(24 * GB)), (DecodeMode::Whole, 1));
    assert_eq!(together(TilingChoice::Off, small, gpu(24 * GB)), (DecodeMode::Whole, 2));
    // One frame less of memory and one frame less at a time.
    let bytes = |budget| {
        let request = Request { vae_tiling: TilingChoice::Off, ..request(512, 512, 81) };
        MemoryPlan::new(&i2v_14b(), &plan(request), Stage::Decode, budget).unwrap().device_peak_bytes()
    };
    let both = bytes(gpu(24 * GB));
    assert_eq!(together(TilingChoice::Auto, small, gpu(both - 1)), (DecodeMode::Whole, 1));
    assert!(bytes(gpu(both - 1)) < both);
    assert_eq!(together(TilingChoice::On, small, cpu(64 * GB)), (DecodeMode::TimeOuter, 1));
}

#[test]
fn what_cannot_fit_names_settings_that_do() {
    // 5 GB: swapping all blocks is not enough for 480p at 81 frames.
    let tight = memory(request(832, 480, 81), gpu(5 * GB));
    assert_eq!((tight.fits(), tight.swapped_blocks), (false, 40));
    let [frames, size] = tight.advice.as_slice() else { panic!("{:?}", tight.advice) };
    let number = |text: &str, option: &str| -> usize {
        let mut words = text.split_whitespace().skip_while(|w| *w != option);
        words.nth(1).unwrap().parse().unwrap()
    };
    let fewer = number(frames, "--frames");
    assert!(memory(request(832, 480, fewer), gpu(5 * GB)).fits());
    assert!(!memory(request(832, 480, fewer + 4), gpu(5 * GB)).fits(), "{frames} is not the nearest");
    let (width, height) = (number(size, "--width"), number(size, "--height"));
    assert!(width < 832 && width > 400, "{size}");
    assert!(memory(request(width, height, 81), gpu(5 * GB)).fits());

    let hopeless = memory(request(832, 480, 81), gpu(GB));
    assert!(hopeless.advice.is_empty());
    assert!(
        hopeless
            .check()
            .unwrap_err()
            .to_string()
            .ends_with("no smaller size or number of frames fits either")
    );
}

#[test]
fn the_cpu_refuses_by_what_it_allocates_and_not_by_weights() {
    let roomy = memory(request(832, 480, 81), cpu(24 * GB));
    assert!(roomy.fits() && roomy.decode == DecodeMode::Whole, "{roomy:#?}");
    assert!(roomy.items.iter().all(|i| i.device_bytes() == 0));
    let tight = memory(request(832, 480, 81), cpu(7 * GB));
    assert!(!tight.fits());
    let text = tight.check().unwrap_err().to_string();
    assert!(
        text.contains("denoise needs") && text.contains("main memory (--max-ram), of which there is 6.5 GiB"),
        "{text}"
    );
    assert!(text.contains("--frames "), "{text}");
    let swapping = Request { blocks_to_swap: BlocksToSwap::Count(7), ..request(832, 480, 81) };
    let swapping = memory(swapping, cpu(24 * GB));
    assert_eq!(swapping.swapped_blocks, 0);
    assert!(swapping.notes[0].starts_with("blocks-to-swap has no effect on the CPU"));
}

#[test]
fn stretched_frames_are_kept_and_counted() {
    let clamped = memory(request(832, 480, 81), cpu(64 * GB));
    let stretched = Request { output_range: OutputRange::Minmax, ..request(832, 480, 81) };
    let stretched = memory(stretched, cpu(64 * GB));
    assert_eq!(stretched.items[4].host_bytes - clamped.items[4].host_bytes, 81 * 832 * 480 * 3 * 4);
}

#[test]
fn free_memory_is_not_used_up_but_a_limit_is() {
    let needed = memory(request(832, 480, 81), cpu(64 * GB)).items[4].host_total_bytes();
    let decode = |host_is_limit, tiling| {
        let request = Request { vae_tiling: tiling, ..request(832, 480, 81) };
        let budget = Budget { host_is_limit, ..cpu(needed + 1) };
        MemoryPlan::new(&i2v_14b(), &plan(request), Stage::Decode, budget).unwrap().decode
    };
    assert_eq!(decode(true, TilingChoice::Auto), DecodeMode::Whole);
    // The default tiles overlap so much that in step they take more than the whole at this size; one by one they do not.
    assert_eq!(decode(false, TilingChoice::Auto), DecodeMode::TileOuter);
    assert_eq!(decode(false, TilingChoice::On), DecodeMode::TileOuter);
    let roomy = Request { vae_tiling: TilingChoice::On, ..request(832, 480, 81) };
    assert_eq!(memory(roomy, cpu(64 * GB)).decode, DecodeMode::TimeOuter);
    let budget = Budget { host_is_limit: false, ..cpu(100) };
    assert_eq!((budget.host_to_choose_by(), cpu(100).host_to_choose_by()), (85, 100));
}

#[test]
fn blocks_to_swap_is_read_and_written() {
    assert_eq!("auto".parse::<BlocksToSwap>().unwrap(), BlocksToSwap::Auto);
    assert_eq!("12".parse::<BlocksToSwap>().unwrap(), BlocksToSwap::Count(12));
    for bad in ["-1", "", "all", "1.5"] {
        let error = bad.parse::<BlocksToSwap>().unwrap_err();
        assert!(error.is_usage() && error.to_string().starts_with("blocks-to-swap: found `"), "{error}");
    }
    for (value, json) in [(BlocksToSwap::Auto, "\"auto\""), (BlocksToSwap::Count(3), "3")] {
        assert_eq!(serde_json::to_string(&value).unwrap(), json);
        assert_eq!(serde_json::from_str::<BlocksToSwap>(json).unwrap(), value);
    }
    let request = request(64, 64, 5);
    let json = serde_json::to_value(&request).unwrap();
    assert!(json.get("blocks_to_swap").is_none(), "the default is not written");
    assert_eq!(serde_json::from_value::<Request>(json).unwrap(), request);
}
