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

/// The numerics that users choose from, and the default without cuDNN.
const NUMERICS: [(&str, Numerics); 4] = [
    ("bf16", Numerics { precision: Precision::Bf16, attention: AttentionChoice::Auto }),
    ("bf16-exact", Numerics { precision: Precision::Bf16, attention: AttentionChoice::Exact }),
    ("fp8", Numerics { precision: Precision::Fp8, attention: AttentionChoice::Auto }),
    ("fast", Numerics::FAST),
];

pub fn run(bench: &Bench<'_>, runner: &mut Runner<'_>) {
    for video in &bench.options.videos {
        for (name, numerics) in NUMERICS {
            for swapped in &bench.options.swapped {
                let row = format!("{name} swap {swapped} {}", label(*video));
                let mut timed = None;
                runner.row(GROUP, row.as_str(), || {
                    let step = Step::open(bench, *video, numerics, *swapped)?;
                    let (checks, milliseconds) = step.time(bench, numerics)?;
                    timed = Some((step, milliseconds));
                    Ok(checks)
                });
                // A row of its own: what was timed is kept whatever happens to this.
                if let Some((step, milliseconds)) = timed.filter(|_| bench.device().is_cuda()) {
                    runner.row(GROUP, format!("{row}, by kernel"), || step.by_kernel(bench, milliseconds));
                }
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

/// A model and what it reads, once it has made a step.
struct Step {
    dit: Dit,
    inputs: Inputs,
    tokens: usize,
    /// Seconds until the model was there, and from then on until a step was made, tuning and plans included.
    seconds: [f64; 2],
}

impl Step {
    fn open(bench: &Bench<'_>, video: VideoSize, numerics: Numerics, swapped: usize) -> Result<Self> {
        let device = bench.device();
        wan_ops::release_unused(device)?; // what the step before kept
        forget_peak(device)?;
        let begun = Instant::now();
        let weights = bench.files.dit.weights()?;
        let mut dit = Dit::open(&weights, None, device, compute_dtype(device))?.with_numerics(numerics);
        dit.place_blocks(&swapped_blocks(dit.blocks(), swapped))?;
        device.synchronize()?;
        let opened = begun.elapsed().as_secs_f64();
        let inputs = Inputs::new(bench, &dit, video)?;
        inputs.step(&dit)?;
        device.synchronize()?;
        let stepped = begun.elapsed().as_secs_f64() - opened;
        Ok(Self { dit, inputs, tokens: latent(video).tokens(), seconds: [opened, stepped] })
    }

    /// The figures of a row, and the median in milliseconds.
    fn time(&self, bench: &Bench<'_>, numerics: Numerics) -> Result<(Vec<Check>, f64)> {
        let runs = bench.options.runs.min(3);
        let times = bench.stopwatch()?.measure(0, runs, || self.inputs.step(&self.dit))?;
        let milliseconds = times.median;
        let work = StepWork::of(self.dit.config(), self.tokens, 2);
        let mut checks = Bench::figures(times, work.flops(), floor(bench, numerics, work));
        let [opened, stepped] = self.seconds;
        checks.push(Check::info("opening, s", opened));
        checks.push(Check::info("first step, s", stepped));
        checks.extend(device_peak(bench.device())?);
        Ok((checks, milliseconds))
    }

    /// Where the `milliseconds` of a step go, on a GPU: products, attention, and all else. Kernels are timed in a step
    /// of their own; what is neither product nor attention is what is left, so that candle's own kernels, copies and gaps
    /// are in it.
    fn by_kernel(&self, bench: &Bench<'_>, milliseconds: f64) -> Result<Vec<Check>> {
        #[cfg(feature = "cuda")]
        if let candle_core::Device::Cuda(device) = bench.device() {
            let gpu = wan_cuda::gpu::Gpu::of(device).map_err(candle_core::Error::from)?;
            let profile = gpu.profile(|| self.inputs.step(&self.dit)).map_err(candle_core::Error::from)?;
            let (answer, kernels) = profile;
            answer?;
            let sum = |is: fn(&str) -> bool| -> f64 {
                kernels.iter().filter(|k| is(k.kernel)).map(|k| k.milliseconds).sum()
            };
            let (products, attention) = (sum(is_product), sum(is_attention));
            let rest = milliseconds - products - attention;
            let mut checks = vec![
                Check::info("products, ms", products),
                Check::info("attention, ms", attention),
                Check::info("all else, ms", rest),
                Check::info("all else, %", 100.0 * rest / milliseconds),
            ];
            let named = kernels.iter().filter(|k| !is_product(k.kernel)).take(12);
            checks.extend(
                named.map(|k| Check::info(format!("{} x{}, ms", k.kernel, k.launches), k.milliseconds)),
            );
            return Ok(checks);
        }
        let _ = (bench, milliseconds);
        Ok(Vec::new())
    }
}

#[cfg(feature = "cuda")]
fn is_product(kernel: &str) -> bool {
    kernel == "gemm"
}

/// With what makes 8-bit values for it, but for the pass that also normalises the queries.
#[cfg(feature = "cuda")]
fn is_attention(kernel: &str) -> bool {
    kernel == "cudnn" || kernel.starts_with("attention") || kernel.starts_with("sage")
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
