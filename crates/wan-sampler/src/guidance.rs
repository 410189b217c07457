//! Classifier-free guidance (Ho and Salimans, 2022), and the steps that have it.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use crate::sampler::require_f32;
use crate::{Result, SamplerError};

/// The part of a run whose steps are guided; the others take the conditional velocity alone, which is half the work.
/// Text: `START:END`.
///
/// Source: "Applying Guidance in a Limited Interval Improves Sample and Distribution Quality in Diffusion Models"
/// (arXiv 2404.07724), which cuts by noise level; here by steps, as diffusers' `ClassifierFreeGuidance` (`start`, `stop`).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct GuidanceInterval {
    /// Share of the steps before the first guided one, in [0, 1).
    pub start: f64,
    /// Share of the steps behind which none is guided, in (0, 1].
    pub end: f64,
}

impl Default for GuidanceInterval {
    /// All steps.
    fn default() -> Self {
        Self { start: 0.0, end: 1.0 }
    }
}

impl GuidanceInterval {
    /// The guided ones of `steps` steps; shares are rounded down to whole steps, so there may be none.
    pub fn steps(&self, steps: usize) -> Range<usize> {
        let at = |share: f64| ((share * steps as f64) as usize).min(steps);
        at(self.start)..at(self.end)
    }

    /// Errors: [`SamplerError::GuidanceInterval`] unless `0 <= start < end <= 1`.
    pub fn check(&self) -> Result<()> {
        if 0.0 <= self.start && self.start < self.end && self.end <= 1.0 {
            return Ok(());
        }
        Err(SamplerError::GuidanceInterval { found: self.to_string() })
    }
}

impl fmt::Display for GuidanceInterval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.start, self.end)
    }
}

impl FromStr for GuidanceInterval {
    type Err = SamplerError;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || SamplerError::GuidanceInterval { found: text.to_owned() };
        let (start, end) = text.split_once(':').ok_or_else(wrong)?;
        let share = |part: &str| part.trim().parse::<f64>().map_err(|_| wrong());
        let interval = Self { start: share(start)?, end: share(end)? };
        interval.check().map_err(|_| wrong())?;
        Ok(interval)
    }
}

/// `v_u + scale (v_c - v_u)` in f32.
///
/// - `cond`, `uncond`: velocities for the positive and the negative prompt, f32 of one shape
/// - `scale`: guidance scale; at exactly 1 callers skip the unconditional pass and use `cond`
///
/// Errors: `DType` unless both are f32, `Shape` if they differ.
pub fn classifier_free_guidance(cond: &Tensor, uncond: &Tensor, scale: f64) -> Result<Tensor> {
    require_f32("cond", cond, cond.dims())?;
    require_f32("uncond", uncond, cond.dims())?;
    Ok((uncond + ((cond - uncond)? * scale)?)?)
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;

    #[test]
    fn extrapolates_from_the_unconditional_velocity() {
        let cond = Tensor::new(&[1.0_f32, -2.0, 0.5], &Device::Cpu).unwrap();
        let uncond = Tensor::new(&[0.5_f32, -1.0, 0.5], &Device::Cpu).unwrap();
        let values =
            |scale| classifier_free_guidance(&cond, &uncond, scale).unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(values(6.0), [3.5, -7.0, 0.5]);
        assert_eq!(values(0.0), [0.5, -1.0, 0.5]);
        assert_eq!(values(1.0), [1.0, -2.0, 0.5]);
    }

    #[test]
    fn an_interval_is_whole_steps() {
        let steps = |text: &str, n| text.parse::<GuidanceInterval>().unwrap().steps(n);
        assert_eq!(GuidanceInterval::default().steps(7), 0..7);
        assert_eq!(steps("0:0.5", 10), 0..5);
        assert_eq!(steps("0.2:0.79", 10), 2..7);
        assert_eq!(steps("0 : 0.25", 4), 0..1);
        assert!(steps("0.5:0.55", 10).is_empty());
        let interval: GuidanceInterval = "0.25:1".parse().unwrap();
        assert_eq!(interval.to_string().parse::<GuidanceInterval>().unwrap(), interval);
        for text in ["", "0.5", "0.5:0.5", "0.6:0.5", "-0.1:1", "0:1.1", "0:nan", "nan:1", "a:1", "0:1:1"] {
            let error = text.parse::<GuidanceInterval>().unwrap_err();
            assert!(error.is_usage() && error.to_string().contains(&format!("`{text}`")), "{error}");
        }
    }

    #[test]
    fn refuses_other_shapes_and_dtypes() {
        let a = Tensor::zeros((2, 2), DType::F32, &Device::Cpu).unwrap();
        let b = Tensor::zeros((2, 1), DType::F32, &Device::Cpu).unwrap();
        let message = classifier_free_guidance(&a, &b, 5.0).unwrap_err().to_string();
        assert_eq!(message, "uncond has shape [2, 1], expected [2, 2]");
        let half = a.to_dtype(DType::F16).unwrap();
        assert!(classifier_free_guidance(&half, &half, 5.0).is_err());
    }
}
