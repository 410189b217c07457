//! The plan's memory against what the stages really allocate, on the embedded model and on one of some size.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Mutex;

use candle_core::{DType, Device, Tensor};
use wan_core::progress::{CancelToken, Event, Observer, Stage};
use wan_core::testkit::{PeakMemory, repo_path};
use wan_media::{Alpha, load_image};
use wan_models::{ModelFiles, Places, Registry, Source};
use wan_pipeline::{
    DecodeMode, MemoryLimits, OutputRange, Pipeline, Request, TeaCache, TeaCacheMode, Tiling, TilingChoice,
    save_tensors,
};

#[global_allocator]
static MEMORY: PeakMemory = PeakMemory::new();

/// The plan never promises less than is allocated, and never more than this factor above it ...
const ABOVE: f64 = 1.5;
/// ... and this many bytes, where threads, tables and buffers of fixed size outweigh a small model's tensors.
const FIXED: f64 = 4e6;

/// Measures each stage from its first event to its last.
#[derive(Default)]
struct Stages(Mutex<(usize, Vec<(Stage, usize)>)>);

impl Observer for Stages {
    fn on_event(&self, event: &Event<'_>) {
        let mut measured = self.0.lock().unwrap();
        match event {
            Event::Started { .. } => measured.0 = MEMORY.begin(),
            Event::Finished { stage, .. } => {
                let bytes = MEMORY.since(measured.0);
                measured.1.push((*stage, bytes));
            }
            _ => {}
        }
    }
}

struct Case {
    size: usize,
    frames: usize,
    cfg: f64,
    teacache: Option<TeaCache>,
    range: OutputRange,
    decode: DecodeMode,
}

fn check(name: &str, pipeline: &Pipeline, case: &Case) {
    let image = load_image(&repo_path("models/tiny/sample.png"), Alpha::Drop).unwrap();
    let long = "a red balloon rises over the hills ".repeat(80);
    let request = Request {
        prompt: long.clone(),
        negative_prompt: long,
        width: case.size,
        height: case.size,
        frames: case.frames,
        steps: 2,
        cfg: case.cfg,
        teacache: case.teacache,
        adjust_resolution: false,
        output_range: case.range,
        tile: Tiling { tile_height: 64, tile_width: 64, stride_height: 48, stride_width: 48 },
        vae_tiling: if case.decode == DecodeMode::Whole { TilingChoice::Off } else { TilingChoice::On },
        ..Request::with_defaults(&pipeline.model().defaults).unwrap()
    };
    let plan = pipeline.plan(request, Some(&image)).unwrap();
    let planned = pipeline.memory(&plan, Stage::EncodeText).unwrap();
    assert_eq!(planned.decode, case.decode);
    let run = || {
        let (stages, cancel) = (Stages::default(), CancelToken::new());
        pipeline.generate(plan.clone(), Some(&image), &mut |_| Ok(()), &stages, &cancel).unwrap();
        stages.0.into_inner().unwrap().1
    };
    let measured = run();
    assert_eq!(measured.len(), planned.items.len());
    for ((stage, bytes), item) in run().into_iter().zip(&planned.items) {
        assert!(bytes as u64 <= item.host_bytes, "{name}, {} again: {bytes} bytes", stage.name());
    }
    for ((stage, bytes), item) in measured.into_iter().zip(&planned.items) {
        assert_eq!(stage, item.stage);
        let (found, promised) = (bytes as f64, item.host_bytes as f64);
        println!("{name} {} x{}, {}: {found:.3e} of {promised:.3e}", case.size, case.frames, stage.name());
        assert!(found <= promised, "{name}, {}: {found} bytes allocated, {promised} planned", stage.name());
        assert!(
            promised <= ABOVE * found + FIXED,
            "{name}, {}: {promised} bytes planned for the {found} allocated",
            stage.name()
        );
    }
}

/// One test, since all threads count together.
#[test]
fn stages_allocate_what_is_planned() {
    // Each thread has buffers of its own, which would count on machines with many.
    rayon::ThreadPoolBuilder::new().num_threads(2).build_global().unwrap();
    let registry = Registry::builtin().unwrap();
    let tiny = registry.resolve(&registry.find("tiny").unwrap(), &Places::default()).unwrap();
    let open = |files| Pipeline::open(files, Device::Cpu, DType::F32).unwrap().keeping_dit();
    use DecodeMode::{TileOuter, TimeOuter, Whole};
    // The second of the two steps reuses what the first one's blocks added.
    let reusing = TeaCache { threshold: 1.0, mode: TeaCacheMode::Raw, start: Some(0), end: Some(1) };
    for (size, frames, cfg, teacache, range, decode) in [
        (64, 5, 6.0, None, OutputRange::Clamp, Whole),
        (192, 17, 6.0, None, OutputRange::Minmax, Whole),
        (192, 17, 6.0, Some(reusing), OutputRange::Clamp, Whole),
        (192, 17, 1.0, None, OutputRange::Clamp, TimeOuter),
    ] {
        // Nothing is remembered of the case before.
        check("tiny", &open(tiny.clone()), &Case { size, frames, cfg, teacache, range, decode });
    }
    // Where nothing fits, the least is taken.
    let none = MemoryLimits { ram: Some(1), vram: None };
    let cramped = open(tiny.clone()).with_limits(none);
    let case = Case {
        size: 192,
        frames: 17,
        cfg: 1.0,
        teacache: None,
        range: OutputRange::Minmax,
        decode: TileOuter,
    };
    check("cramped", &cramped, &case);

    let folder = tempfile::tempdir().unwrap();
    // Lengths of the embedded model's axes, and those that take their place.
    let dit =
        enlarged(&tiny.dit, &[(192, 512), (768, 1536), (1152, 3072)], &folder.path().join("dit.safetensors"));
    let vae = enlarged(
        &tiny.vae,
        &[(16, 32), (32, 64), (64, 128), (128, 256), (192, 384)],
        &folder.path().join("vae.safetensors"),
    );
    let larger = open(ModelFiles { dit, vae, ..tiny });
    check(
        "larger",
        &larger,
        &Case { size: 192, frames: 9, cfg: 6.0, teacache: None, range: OutputRange::Clamp, decode: Whole },
    );
}

/// A file with the tensors of `source` at other lengths, drawn at random, in bf16.
fn enlarged(source: &Source, lengths: &[(usize, usize)], path: &Path) -> Source {
    let mut tensors = BTreeMap::new();
    for tensor in source.weights().unwrap().iter() {
        let longer = |(axis, n): (usize, &usize)| {
            let found = lengths.iter().find(|(from, _)| from == n && !is_latent(tensor.name(), axis));
            found.map_or(*n, |(_, to)| *to)
        };
        let shape: Vec<usize> = tensor.shape().iter().enumerate().map(longer).collect();
        let values = Tensor::randn(0f32, 0.02, shape.as_slice(), &Device::Cpu).unwrap();
        tensors.insert(tensor.name().to_string(), values.to_dtype(DType::BF16).unwrap());
    }
    save_tensors(path, &tensors, HashMap::new()).unwrap();
    Source::File(path.to_path_buf())
}

/// Whether an axis is that of the latent's channels, which are as many as the VAE's first level has.
fn is_latent(name: &str, axis: usize) -> bool {
    name.starts_with("conv")
        || (name.starts_with("encoder.head.2") && axis == 0)
        || (name.starts_with("decoder.conv1") && axis == 1)
}
