//! Scales of quantised weights: `value = code * scale`.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use candle_core::DType;

use super::{Stored, WeightSet};
use crate::{Error, Result};

/// What the stored codes of a tensor are multiplied with.
#[derive(Debug, Clone, PartialEq)]
pub enum Scale {
    /// One factor for all values.
    Tensor(f32),
    /// One factor for every index of the first axis (for a matrix: every output).
    Rows(Arc<[f32]>),
}

impl Scale {
    /// Reads a scale tensor for a weight of `shape`: `[]` or `[1]`, or one value a row (`[rows]`, `[rows, 1]`).
    ///
    /// Errors: [`Error::Shape`]; [`Error::Invalid`] for values that are not finite.
    pub fn read(scale: &Stored, shape: &[usize]) -> Result<Self> {
        let rows = shape.first().copied().unwrap_or(1);
        let values = match scale.elements() {
            n if n == 1 || n == rows => scale.to_f32_vec()?,
            _ => {
                let expected = format!("[] or [{rows}]");
                return Err(Error::shape(format!("scale {}", scale.name()), scale.shape(), expected));
            }
        };
        if let Some(bad) = values.iter().find(|v| !v.is_finite()) {
            return Err(Error::invalid(format!("scale {}", scale.name()), bad, "finite factors"));
        }
        Ok(if values.len() == 1 { Self::Tensor(values[0]) } else { Self::Rows(values.into()) })
    }

    /// The scale of rows `range`.
    pub(super) fn slice(&self, range: Range<usize>) -> Self {
        match self {
            Self::Tensor(factor) => Self::Tensor(*factor),
            Self::Rows(factors) => Self::Rows(factors[range].into()),
        }
    }

    /// Multiplies `values`, which start at flat index `start` of a tensor of `elements` values.
    pub(super) fn apply(&self, start: usize, elements: usize, values: &mut [f32]) {
        match self {
            Self::Tensor(factor) => values.iter_mut().for_each(|v| *v *= factor),
            Self::Rows(factors) => {
                let length = (elements / factors.len()).max(1);
                let (mut at, mut rest) = (start, values);
                while !rest.is_empty() {
                    let count = (length - at % length).min(rest.len());
                    let (row, after) = rest.split_at_mut(count);
                    let factor = factors[at / length];
                    row.iter_mut().for_each(|v| *v *= factor);
                    (at, rest) = (at + count, after);
                }
            }
        }
    }
}

/// Suffixes under which a file keeps the scale of `X.weight`: ComfyUI's (and Kijai's) `fp8_scaled` and its
/// later name.
const SCALES: [&str; 2] = [".scale_weight", ".weight_scale"];
/// Tensors beside a scaled weight that its value does not depend on.
const BESIDE: [(&str, &str); 3] = [
    (".scale_input", "scales activations for FP8 products; activations are not quantised here"),
    (".input_scale", "scales activations for FP8 products; activations are not quantised here"),
    (".comfy_quant", "repeats the format, which the weight's own dtype tells"),
];
/// Says that a file is scaled; every weight has its own scale besides.
const MARKER: &str = "scaled_fp8";

impl WeightSet {
    /// Joins `fp8_scaled` weights with their scales; the scale tensors and markers are then [`WeightSet::unused`].
    /// Scales without a weight stay, to be reported as unexpected.
    ///
    /// Source: ComfyUI `comfy/ops.py`, `scaled_fp8_ops`.
    ///
    /// Errors: [`Error::Invalid`] for a scale on a weight that is not f8_e4m3, and those of [`Scale::read`].
    pub fn with_scales(&self) -> Result<WeightSet> {
        let mut tensors: BTreeMap<String, Stored> = BTreeMap::new();
        let mut unused = Vec::new();
        let weight_of = |name: &str, suffix: &str| {
            name.strip_suffix(suffix).map(|base| format!("{base}.weight")).filter(|w| self.get(w).is_some())
        };
        for (name, stored) in &self.tensors {
            if SCALES.iter().any(|s| weight_of(name, s).is_some()) {
                unused.push((name.clone(), "the scale of its weight, applied with it"));
            } else if let Some((_, why)) = BESIDE.iter().find(|(s, _)| weight_of(name, s).is_some()) {
                unused.push((name.clone(), *why));
            } else if name == MARKER || name.ends_with(&format!(".{MARKER}")) {
                unused.push((name.clone(), "marks a scaled file"));
            } else {
                let scale = name
                    .strip_suffix(".weight")
                    .and_then(|base| SCALES.iter().find_map(|s| self.get(&format!("{base}{s}"))));
                let stored = match scale {
                    Some(scale) => stored.clone().with_scale(Scale::read(scale, stored.shape())?)?,
                    None => stored.clone(),
                };
                tensors.insert(name.clone(), stored);
            }
        }
        let mut set = self.with_tensors(tensors);
        set.unused.extend(unused);
        Ok(set)
    }
}

/// Whether a tensor of `dtype` may carry a scale.
pub(super) fn may_scale(dtype: DType) -> bool {
    dtype == DType::F8E4M3
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::Bytes;
    use candle_core::{Device, Tensor};

    fn codes(name: &str, shape: &[usize]) -> Stored {
        // 0x38 is 1.0, 0x40 is 2.0.
        let bytes: Vec<u8> =
            (0..shape.iter().product()).map(|i| if i % 2 == 0 { 0x38 } else { 0x40 }).collect();
        Stored::new(name, DType::F8E4M3, shape.to_vec(), Bytes::new(bytes)).unwrap()
    }

    fn floats(name: &str, values: &[f32]) -> Stored {
        Stored::from_tensor(name, &Tensor::new(values, &Device::Cpu).unwrap()).unwrap()
    }

    #[test]
    fn scales_join_their_weights() {
        let set = WeightSet::from_tensors(
            "f",
            [
                codes("a.weight", &[3, 2]),
                floats("a.scale_weight", &[0.5]),
                floats("a.scale_input", &[9.0]),
                codes("b.weight", &[3, 2]),
                floats("b.scale_weight", &[1.0, 10.0, 100.0]),
                floats("p.scaled_fp8", &[]),
                floats("c.scale_weight", &[1.0]),
            ],
        );
        let joined = set.with_scales().unwrap();
        assert_eq!(joined.names().collect::<Vec<_>>(), ["a.weight", "b.weight", "c.scale_weight"]);
        assert_eq!(joined.unused().len(), 4);
        let values = |name: &str| joined.get(name).unwrap().to_f32_vec().unwrap();
        assert_eq!(values("a.weight"), [0.5, 1.0, 0.5, 1.0, 0.5, 1.0]);
        assert_eq!(values("b.weight"), [1.0, 2.0, 10.0, 20.0, 100.0, 200.0]);
        let b = joined.get("b.weight").unwrap();
        let mut part = [0f32; 3];
        b.widen_range(1..4, &mut part);
        assert_eq!(part, [2.0, 10.0, 20.0]);
        assert_eq!(b.rows(2, 3).unwrap().to_f32_vec().unwrap(), [100.0, 200.0]);
    }

    #[test]
    fn scales_that_cannot_be_are_refused() {
        let error = |weight: Stored, scale: &[f32]| {
            let set = WeightSet::from_tensors("f", [weight, floats("a.scale_weight", scale)]);
            set.with_scales().unwrap_err().to_string()
        };
        assert!(error(codes("a.weight", &[3, 2]), &[1.0, 2.0]).contains("expected [] or [3]"));
        assert!(error(codes("a.weight", &[3, 2]), &[f32::NAN]).contains("finite"));
        assert!(error(floats("a.weight", &[1.0]), &[1.0]).contains("a.weight: found dtype F32"));
    }
}
