//! Rounding of a tensor to another dtype, block by block, with the error it causes.

use float8::F8E4M3;
use half::bf16;
use wan_core::Stored;
use wan_core::weights::Scale;

/// Values handled at a time.
const BLOCK: usize = 1 << 18;

/// Largest finite f8_e4m3fn value.
const F8_MAX: f32 = 448.0;

/// Error of a rounded tensor.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Rounding {
    /// `|rounded - exact|_2²`.
    pub error: f64,
    /// `|exact|_2²`.
    pub energy: f64,
    /// Largest absolute difference.
    pub largest: f32,
}

impl Rounding {
    /// Error over size, in the 2-norm.
    pub fn relative(&self) -> f64 {
        if self.error == 0.0 { 0.0 } else { (self.error / self.energy).sqrt() }
    }

    fn add(&mut self, exact: f32, rounded: f32) {
        let difference = rounded - exact;
        self.error += f64::from(difference) * f64::from(difference);
        self.energy += f64::from(exact) * f64::from(exact);
        self.largest = self.largest.max(difference.abs());
    }
}

/// Calls `each` with blocks of the values and the flat index each starts at. Where `row` is given, no block
/// crosses a multiple of it.
pub(crate) fn blocks<E>(
    stored: &Stored,
    row: Option<usize>,
    mut each: impl FnMut(usize, &[f32]) -> Result<(), E>,
) -> Result<(), E> {
    let total = stored.elements();
    let mut buffer = vec![0f32; BLOCK.min(total)];
    let mut at = 0;
    while at < total {
        let limit = row.map_or(total, |row| (at / row + 1) * row).min(total);
        let count = BLOCK.min(limit - at);
        stored.widen_range(at..at + count, &mut buffer[..count]);
        each(at, &buffer[..count])?;
        at += count;
    }
    Ok(())
}

/// The scale that maps the largest magnitude of each unit to the largest FP8 value; 1 where all are zero.
pub(crate) fn scale(stored: &Stored, per_row: bool) -> Scale {
    let rows = stored.shape().first().copied().unwrap_or(1).max(1);
    let row = (stored.elements() / rows).max(1);
    let mut largest = vec![0f32; if per_row { rows } else { 1 }];
    let seen: Result<(), std::convert::Infallible> = blocks(stored, per_row.then_some(row), |at, values| {
        let unit = if per_row { at / row } else { 0 };
        largest[unit] = values.iter().fold(largest[unit], |m, v| m.max(v.abs()));
        Ok(())
    });
    let Ok(()) = seen;
    let factor = |m: f32| {
        let factor = m / F8_MAX;
        if factor.is_normal() { factor } else { 1.0 }
    };
    if per_row {
        Scale::Rows(largest.into_iter().map(factor).collect())
    } else {
        Scale::Tensor(factor(largest[0]))
    }
}

/// Rounds `values` to f8_e4m3fn codes of `value / factor`, saturating.
pub(crate) fn to_f8(values: &[f32], factor: f32, out: &mut Vec<u8>, rounding: &mut Rounding) {
    for value in values {
        let code = F8E4M3::from_f32((value / factor).clamp(-F8_MAX, F8_MAX));
        rounding.add(*value, code.to_f32() * factor);
        out.push(code.to_bits());
    }
}

/// Rounds `values` to bf16.
pub(crate) fn to_bf16(values: &[f32], out: &mut Vec<u8>, rounding: &mut Rounding) {
    for value in values {
        let rounded = bf16::from_f32(*value);
        rounding.add(*value, rounded.to_f32());
        out.extend(rounded.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device, Tensor};
    use wan_core::weights::Bytes;

    #[test]
    fn codes_are_the_nearest_values() {
        let all =
            Stored::new("f8", DType::F8E4M3, vec![256], Bytes::new((0..=255u8).collect::<Vec<_>>())).unwrap();
        let table = all.to_f32_vec().unwrap();
        let values: Vec<f32> =
            (-2000..2000).map(|i| (i as f32 / 400.0).powi(5) * 0.14 + i as f32 * 1e-5).collect();
        let (mut codes, mut rounding) = (Vec::new(), Rounding::default());
        to_f8(&values, 1.0, &mut codes, &mut rounding);
        for (value, code) in values.iter().zip(codes) {
            let found = (table[usize::from(code)] - value).abs();
            let best =
                table.iter().filter(|t| t.is_finite()).map(|t| (t - value).abs()).fold(f32::MAX, f32::min);
            assert!(found <= best, "{value}: {found} against {best}");
        }
        assert!(rounding.relative() < 1.0 / 16.0);
    }

    #[test]
    fn scales_reach_the_largest_code() {
        let tensor = Tensor::new(&[[1f32, -4.0], [0.0, 0.0], [2.0, 0.5]], &Device::Cpu).unwrap();
        let stored = Stored::from_tensor("w", &tensor).unwrap();
        assert_eq!(scale(&stored, false), Scale::Tensor(4.0 / 448.0));
        assert_eq!(scale(&stored, true), Scale::Rows([4.0 / 448.0, 1.0, 2.0 / 448.0].into()));
    }
}
