use std::path::Path;

use candle_core::{DType, Device, Tensor};
use wan_core::device::to_host;
use wan_core::geometry::LatentSize;
use wan_core::progress::CancelToken;
use wan_core::{Error, WeightSet};
use wan_dit::{AttentionChoice, Dit, DitInput, KeyCache, Numerics, Precision, swapped_blocks};
use wan_pipeline::Result;

use super::{GROUP, Scale, synthetic, tiny};
use crate::compare::difference;
use crate::reference::Matrix;
use crate::synthesis::{Layout, normal};
use crate::{Check, Runner};

/// One way to compute the blocks, and what the error of a block's own work (out - in) may be.
#[derive(Debug, Clone, Copy)]
struct Way {
    name: &'static str,
    dtype: DType,
    numerics: Numerics,
    error: f64,
    cosine: f64,
}

const PLAIN: Numerics = Numerics { precision: Precision::Bf16, attention: AttentionChoice::Auto };

/// The limits are those of the formats: bf16 rounds to 2⁻⁹ in every operation, e4m3 activations lose 2.6 % a product.
const WAYS: [Way; 5] = [
    Way { name: "f32", dtype: DType::F32, numerics: PLAIN, error: 1e-4, cosine: 0.999_999 },
    Way { name: "bf16", dtype: DType::BF16, numerics: PLAIN, error: 1e-2, cosine: 0.9999 },
    Way {
        name: "bf16 sage",
        dtype: DType::BF16,
        numerics: Numerics { attention: AttentionChoice::Sage, ..PLAIN },
        error: 6e-2,
        cosine: 0.998,
    },
    Way {
        name: "fp8",
        dtype: DType::BF16,
        numerics: Numerics { precision: Precision::Fp8, ..PLAIN },
        error: 6e-2,
        cosine: 0.998,
    },
    Way { name: "fast", dtype: DType::BF16, numerics: Numerics::FAST, error: 8e-2, cosine: 0.997 },
];

/// How much larger errors of the embedded model may be, whose 192 channels and 3 heads average less.
const TINY_SLACK: f64 = 2.0;

/// The inputs of one forward, on the CPU in f32.
#[derive(Debug, Clone)]
pub(crate) struct DitCase {
    latents: Tensor,
    condition: Option<Tensor>,
    text: Tensor,
    image: Option<Tensor>,
    timestep: f32,
}

/// What a forward gave, on the CPU: the residual streams and the velocity.
struct Trace {
    streams: Vec<Tensor>,
    velocity: Tensor,
}

pub fn run(runner: &mut Runner<'_>, device: &Device, scale: Scale) {
    let tiny_weights = || -> Result<WeightSet> { Ok(tiny()?.dit.weights()?) };
    let size = LatentSize { frames: 3, height: 12, width: 10 };
    group(runner, device, ("tiny", TINY_SLACK), size, scale.seed, tiny_weights);
    if scale.full {
        let size = if scale.large {
            LatentSize { frames: 3, height: 30, width: 52 }
        } else {
            LatentSize { frames: 1, height: 6, width: 10 }
        };
        let blocks = if scale.large { 2 } else { 1 };
        group(runner, device, ("full", 1.0), size, scale.seed, || {
            synthetic("dit", Layout::dit()?, blocks, scale.seed)
        });
    }
}

/// A row for each way to compute, all against one forward on the CPU.
fn group(
    runner: &mut Runner<'_>,
    device: &Device,
    (which, slack): (&str, f64),
    size: LatentSize,
    seed: u64,
    weights: impl FnOnce() -> Result<WeightSet>,
) {
    let mut prepared = None;
    runner.row(GROUP, format!("dit {which} on the cpu"), || {
        let weights = weights()?;
        let case = DitCase::random(&weights, size, seed)?;
        let expected = case.trace(&weights, &Device::Cpu, DType::F32, PLAIN)?;
        let growth = rms(expected.streams.last())? / rms(expected.streams.first())?;
        prepared = Some((weights, case, expected));
        Ok(vec![Check::info("growth of the residual stream", growth)])
    });
    let Some((weights, case, expected)) = prepared else {
        runner.skip(GROUP, format!("dit {which}"), "its row on the cpu was not run or failed");
        return;
    };
    for way in WAYS {
        runner.row(GROUP, format!("dit {which} {}", way.name), || {
            let way =
                Way { error: slack * way.error, cosine: 1.0 - slack * slack * (1.0 - way.cosine), ..way };
            compare(&case.trace(&weights, device, way.dtype, way.numerics)?, &expected, way)
        });
        runner.row(GROUP, format!("dit {which} {} swapped", way.name), || {
            same_when_swapped(&case, &weights, device, way)
        });
    }
}

impl DitCase {
    /// Random inputs that fit a model.
    pub fn random(weights: &WeightSet, size: LatentSize, seed: u64) -> Result<Self> {
        let dit = Dit::open(weights, None, &Device::Cpu, DType::F32)?;
        let config = dit.config();
        let LatentSize { frames, height, width } = size;
        let plane = |channels, n| normal(DType::F32, &[1, channels, frames, height, width], 1.0, seed + n);
        let rows = |count, dim, n| normal(DType::F32, &[1, count, dim], 1.0, seed + n);
        Ok(Self {
            latents: plane(config.out_dim, 1)?,
            condition: match config.condition_dim() {
                0 => None,
                channels => Some(plane(channels, 2)?),
            },
            text: rows(config.text_len.min(37), config.text_dim, 3)?,
            image: config.image_dim.map(|dim| rows(257, dim, 4)).transpose()?,
            timestep: 500.0,
        })
    }

    fn trace(&self, weights: &WeightSet, device: &Device, dtype: DType, numerics: Numerics) -> Result<Trace> {
        self.run(Dit::open(weights, None, device, dtype)?.with_numerics(numerics))
    }

    fn run(&self, dit: Dit) -> Result<Trace> {
        let device = &dit.device().clone();
        let on = |t: &Tensor| t.to_device(device);
        let (latents, text) = (on(&self.latents)?, on(&self.text)?);
        let condition = self.condition.as_ref().map(on).transpose()?;
        let image = self.image.as_ref().map(on).transpose()?;
        let context = dit.contexts(&[&text], image.as_ref(), KeyCache::Keep)?.remove(0);
        let (_, _, frames, height, width) = latents.dims5()?;
        let rope = dit.rope(LatentSize { frames, height, width }, 0)?;
        let condition = condition.as_ref();
        let input = DitInput { latents: &latents, condition, timestep: self.timestep, rope: &rope };
        let (streams, velocity) = dit.trace(&input, &context)?;
        // The plain forward is what jobs run.
        let plain = dit.forward_lockstep(&input, &[&context], &CancelToken::new())?.remove(0);
        let apart = difference(&Matrix::of(&plain)?, &Matrix::of(&velocity)?).largest;
        if apart != 0.0 {
            let expected = "that of the traced one, bit for bit";
            return Err(Error::invalid("velocity", format!("{apart} apart"), expected).into());
        }
        let streams = streams.iter().map(to_host).collect::<Result<_, _>>()?;
        Ok(Trace { streams, velocity: to_host(&velocity)? })
    }
}

/// The blocks' own work, and the velocity.
fn compare(found: &Trace, expected: &Trace, way: Way) -> Result<Vec<Check>> {
    let updates = |trace: &Trace| -> Result<Vec<Matrix>> {
        trace.streams.windows(2).map(|pair| Ok(Matrix::of(&(&pair[1] - &pair[0])?)?)).collect()
    };
    let (found_updates, expected_updates) = (updates(found)?, updates(expected)?);
    if found_updates.len() != expected_updates.len() || found_updates.is_empty() {
        let found = format!("{} blocks", found_updates.len());
        return Err(Error::invalid("trace", found, format!("{}", expected_updates.len())).into());
    }
    // Only the first block has the same input in both; the others add what came before to their own error.
    let first = difference(&found_updates[0], &expected_updates[0]);
    let worst = found_updates.iter().zip(&expected_updates).fold(0f64, |worst, (f, e)| {
        let error = difference(f, e).relative_l2;
        // A comparison that lets NaN through to the condition.
        if error <= worst { worst } else { error }
    });
    let velocity = difference(&Matrix::of(&found.velocity)?, &Matrix::of(&expected.velocity)?);
    Ok(vec![
        Check::at_most("error of the first block's update", first.relative_l2, way.error),
        Check::at_least("cosine", first.cosine, way.cosine),
        Check::at_most("of any block's, with those before it", worst, 3.0 * way.error),
        Check::info("error of the velocity", velocity.relative_l2),
    ])
}

/// Where the blocks' weights lie changes no bit.
fn same_when_swapped(case: &DitCase, weights: &WeightSet, device: &Device, way: Way) -> Result<Vec<Check>> {
    let velocity = |swapped: usize| -> Result<Tensor> {
        let mut dit = Dit::open(weights, None, device, way.dtype)?.with_numerics(way.numerics);
        dit.place_blocks(&swapped_blocks(dit.blocks(), swapped))?;
        Ok(case.run(dit)?.velocity)
    };
    let apart = difference(&Matrix::of(&velocity(usize::MAX)?)?, &Matrix::of(&velocity(0)?)?);
    Ok(vec![Check::at_most("largest difference", apart.largest, 0.0)])
}

fn rms(tensor: Option<&Tensor>) -> Result<f64> {
    let Some(tensor) = tensor else { return Ok(f64::NAN) };
    Ok(f64::from(tensor.sqr()?.mean_all()?.to_scalar::<f32>()?).sqrt())
}

/// The blocks of `dit` against values of the same blocks that another implementation wrote to `file`: inputs under the
/// names of `wan-run probe dit`, and `block.N.in`, `block.N.out` and `velocity`.
///
/// Errors: a file without them.
pub(crate) fn reference_row(runner: &mut Runner<'_>, device: &Device, file: &Path, dit: &WeightSet) {
    const GROUP: &str = "reference";
    let mut opened = None;
    runner.row(GROUP, "values", || {
        let (case, expected) = read_reference(file)?;
        let blocks = expected.streams.len() - 1;
        opened = Some((case, expected));
        Ok(vec![Check::at_least("blocks", blocks as f64, 1.0)])
    });
    let Some((case, expected)) = opened else { return };
    let blocks = expected.streams.len() - 1;
    let fewer = (dit.count("blocks") > blocks).then(|| first_blocks(dit, blocks));
    let weights = fewer.as_ref().unwrap_or(dit);
    for way in WAYS {
        runner.row(GROUP, format!("dit {}", way.name), || {
            compare(&case.trace(weights, device, way.dtype, way.numerics)?, &expected, way)
        });
    }
}

fn read_reference(file: &Path) -> Result<(DitCase, Trace)> {
    let set = WeightSet::open(file)?;
    let tensor = |name: &str| -> Result<Option<Tensor>> {
        Ok(set.get(name).map(|t| t.to_f32_tensor(&Device::Cpu)).transpose()?)
    };
    let need = |name: &str| -> Result<Tensor> {
        let missing = || Error::invalid(file.display().to_string(), "no such tensor", name.to_string());
        Ok(tensor(name)?.ok_or_else(missing)?)
    };
    let mut streams = vec![need("block.0.in")?];
    while let Some(stream) = tensor(&format!("block.{}.out", streams.len() - 1))? {
        streams.push(stream);
    }
    let timestep = need("timestep")?.flatten_all()?.to_vec1::<f32>()?;
    let case = DitCase {
        latents: need("latents")?,
        condition: tensor("condition")?,
        text: need("text_embeds")?,
        image: tensor("image_embeds")?,
        timestep: timestep.first().copied().unwrap_or(f32::NAN),
    };
    Ok((case, Trace { streams, velocity: need("velocity")? }))
}

/// The weights without the blocks from `count` on, and without the header: the configuration comes from the shapes.
fn first_blocks(weights: &WeightSet, count: usize) -> WeightSet {
    let later = |name: &str| {
        let number = name.strip_prefix("blocks.").and_then(|rest| rest.split('.').next());
        number.and_then(|n| n.parse::<usize>().ok()).is_some_and(|n| n >= count)
    };
    WeightSet::from_tensors(weights.label(), weights.iter().filter(|t| !later(t.name())).cloned())
}
