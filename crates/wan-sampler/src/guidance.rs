//! Classifier-free guidance (Ho and Salimans, 2022).

use candle_core::Tensor;

use crate::Result;
use crate::sampler::require_f32;

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
    fn refuses_other_shapes_and_dtypes() {
        let a = Tensor::zeros((2, 2), DType::F32, &Device::Cpu).unwrap();
        let b = Tensor::zeros((2, 1), DType::F32, &Device::Cpu).unwrap();
        let message = classifier_free_guidance(&a, &b, 5.0).unwrap_err().to_string();
        assert_eq!(message, "uncond has shape [2, 1], expected [2, 2]");
        let half = a.to_dtype(DType::F16).unwrap();
        assert!(classifier_free_guidance(&half, &half, 5.0).is_err());
    }
}
