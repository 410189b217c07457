//! One denoising step with guidance.

use std::time::Instant;

use candle_core::{DType, Tensor};
use wan_core::device::compute_dtype;
use wan_core::progress::CancelToken;
use wan_dit::{
    AttentionChoice, Context, Dit, DitInput, KeyCache, Numerics, Precision, RopeTable, swapped_blocks,
};
use wan_pipeline::Result;

use super::{Bench, StepWork, VideoSize, label, latent};
use crate::memory::{device_peak, forget_peak};
use crate::synthesis::normal;
use crate::{Check, Runner};

const GROUP: &str = "step";

/// The numerics that users choose from.
const NUMERICS: [(&str, Numerics); 3] = [
    ("bf16", Numerics { precision: Precision::Bf16, attention: AttentionChoice::Auto }),
    ("fp8", Numerics { precision: Precision::Fp8, attention: AttentionChoice::Auto }),
    ("fast", Numerics::FAST),
];

pub fn run(bench: &Bench<'_>, runner: &mut Runner<'_>) {
    for video in &bench.options.videos {
        for (name, numerics) in NUMERICS {
            for swapped in &bench.options.swapped {
                let row = format!("{name} swap {swapped} {}", label(*video));
                runner.row(GROUP, row, || step(bench, *video, numerics, *swapped));
            }
        }
    }
}

/// What a step reads, on the device.
struct Inputs {
    latents: Tensor,
    condition: Option<Tensor>,
    contexts: Vec<Context>,
    rope: RopeTable,
}

impl Inputs {
    fn new(bench: &Bench<'_>, dit: &Dit, video: VideoSize) -> Result<Self> {
        let (config, size, seed) = (dit.config(), latent(video), bench.options.seed);
        let on_device = |shape: &[usize], n| -> Result<Tensor> {
            Ok(normal(DType::F32, shape, 1.0, seed + n)?.to_device(bench.device())?)
        };
        let plane = |channels, n| on_device(&[1, channels, size.frames, size.height, size.width], n);
        let texts =
            [on_device(&[1, config.text_len, config.text_dim], 3)?, on_device(&[1, 1, config.text_dim], 4)?];
        let image = config.image_dim.map(|dim| on_device(&[1, 257, dim], 5)).transpose()?;
        Ok(Self {
            latents: plane(config.out_dim, 1)?,
            condition: match config.condition_dim() {
                0 => None,
                channels => Some(plane(channels, 2)?),
            },
            contexts: dit.contexts(&[&texts[0], &texts[1]], image.as_ref(), KeyCache::Keep)?,
            rope: dit.rope(size, 0)?,
        })
    }

    fn step(&self, dit: &Dit) -> Result<()> {
        let input = DitInput {
            latents: &self.latents,
            condition: self.condition.as_ref(),
            timestep: 500.0,
            rope: &self.rope,
        };
        let contexts: Vec<&Context> = self.contexts.iter().collect();
        let velocities = dit.forward_lockstep(&input, &contexts, &CancelToken::new())?;
        wan_sampler::classifier_free_guidance(&velocities[0], &velocities[1], 6.0)?;
        Ok(())
    }
}

fn step(bench: &Bench<'_>, video: VideoSize, numerics: Numerics, swapped: usize) -> Result<Vec<Check>> {
    let (device, begun) = (bench.device(), Instant::now());
    forget_peak(device)?;
    let weights = bench.files.dit.weights()?;
    let mut dit = Dit::open(&weights, None, device, compute_dtype(device))?.with_numerics(numerics);
    dit.place_blocks(&swapped_blocks(dit.blocks(), swapped))?;
    let inputs = Inputs::new(bench, &dit, video)?;
    inputs.step(&dit)?;
    device.synchronize()?;
    let loading = begun.elapsed().as_secs_f64();

    let times = bench.stopwatch()?.measure(0, bench.options.runs.min(3), || inputs.step(&dit))?;
    let work = StepWork::of(dit.config(), latent(video).tokens(), 2);
    let mut checks = Bench::figures(times, work.flops(), floor(bench, numerics, work));
    checks.push(Check::info("from opening to the first step's end, s", loading));
    checks.extend(device_peak(device)?.map(|peak| Check::info("peak, GB", peak as f64 / 1e9)));
    checks.extend(breakdown(bench, &dit, &inputs)?);
    wan_ops::release_unused(device)?;
    Ok(checks)
}

/// Seconds that the step takes at the device's rates.
fn floor(bench: &Bench<'_>, numerics: Numerics, work: StepWork) -> Option<f64> {
    let rates = bench.rates?;
    let eight_bit = |yes: bool| if yes { rates.fp8 } else { rates.bf16 };
    Some(
        work.products / eight_bit(numerics.precision == Precision::Fp8)
            + work.self_attention / eight_bit(numerics.attention == AttentionChoice::Sage)
            + work.cross_attention / rates.bf16,
    )
}

/// Where a step's time goes, on a GPU: products, attention, and the kernels of all else.
fn breakdown(bench: &Bench<'_>, dit: &Dit, inputs: &Inputs) -> Result<Vec<Check>> {
    #[cfg(feature = "cuda")]
    if let candle_core::Device::Cuda(device) = bench.device() {
        let gpu = wan_cuda::gpu::Gpu::of(device).map_err(candle_core::Error::from)?;
        let (answer, kernels) = gpu.profile(|| inputs.step(dit)).map_err(candle_core::Error::from)?;
        answer?;
        let class = |kernel: &str| match kernel {
            "gemm" => 0,
            k if k == "cudnn" || k.starts_with("attention") || k.starts_with("sage") => 1,
            _ => 2,
        };
        let sum = |wanted| -> f64 {
            kernels.iter().filter(|k| class(k.kernel) == wanted).map(|k| k.milliseconds).sum()
        };
        let mut checks = vec![
            Check::info("products, ms", sum(0)),
            Check::info("attention, ms", sum(1)),
            Check::info("other kernels, ms", sum(2)),
        ];
        let largest = kernels.iter().filter(|k| class(k.kernel) == 2).take(6);
        checks.extend(
            largest.map(|k| Check::info(format!("{} x{}, ms", k.kernel, k.launches), k.milliseconds)),
        );
        return Ok(checks);
    }
    let _ = (bench, dit, inputs);
    Ok(Vec::new())
}
