//! Every component on the device against the same component on the CPU in f32, at the embedded model's dimensions and
//! at the true ones.

mod dit;
mod encoders;
mod vae;

use candle_core::{DType, Device, Tensor};
use wan_core::WeightSet;
use wan_models::{ModelFiles, Places, Registry};
use wan_pipeline::Result;

use crate::compare::difference;
use crate::reference::Matrix;
use crate::synthesis::{Layout, weights};
use crate::{Check, Runner};

pub(crate) use dit::reference_row;

/// Name of the group.
pub(crate) const GROUP: &str = "components";

/// Where weights and sizes come from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scale {
    /// Whether true dimensions are tried as well.
    pub full: bool,
    /// Whether the device, and the CPU beside it, are large enough for more than the smallest of inputs.
    pub large: bool,
    /// Seed of weights and inputs.
    pub seed: u64,
}

/// Runs all rows of the group.
pub(crate) fn run(runner: &mut Runner<'_>, device: &Device, scale: Scale) {
    encoders::run(runner, device, scale);
    vae::run(runner, device, scale);
    dit::run(runner, device, scale);
}

/// The embedded model.
pub(crate) fn tiny() -> Result<ModelFiles> {
    let registry = Registry::builtin()?;
    Ok(registry.resolve(&registry.find("tiny")?, &Places::default())?)
}

/// How a component computes on the device, and what its error against f32 on the CPU may be: relative L2 and cosine.
#[derive(Debug, Clone, Copy)]
struct Precision {
    dtype: DType,
    error: f64,
    cosine: f64,
}

/// Sums in another order, through all layers.
const F32: Precision = Precision { dtype: DType::F32, error: 1e-4, cosine: 0.999_999 };
/// Rounding of every operation (half of 2⁻⁸ each) through up to 31 layers with a residual stream in bf16.
const BF16: Precision = Precision { dtype: DType::BF16, error: 5e-2, cosine: 0.998 };

/// The checks of an output.
fn checks(found: &Tensor, expected: &Tensor, precision: Precision) -> Result<Vec<Check>> {
    let d = difference(&Matrix::of(found)?, &Matrix::of(expected)?);
    Ok(vec![
        Check::at_most("error", d.relative_l2, precision.error),
        Check::at_least("cosine", d.cosine, precision.cosine),
        Check::info("largest", d.largest),
    ])
}

/// Weights of the true dimensions with fewer blocks.
fn synthetic(label: &str, layout: Layout, blocks: usize, seed: u64) -> Result<WeightSet> {
    Ok(weights(label, &layout.with_blocks(blocks), seed)?)
}
