use candle_core::DType;
use float8::F8E4M3;
use half::{bf16, f16};

/// The arithmetic that a reference is computed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// f64 throughout: what is right.
    Exact,
    /// As an eager framework computes in a dtype: the result of every operation is rounded to it, sums inside of one
    /// operation are f32.
    Eager(DType),
}

impl Format {
    /// A value as this arithmetic holds it.
    pub fn round(self, x: f64) -> f64 {
        match self {
            Self::Exact => x,
            Self::Eager(DType::BF16) => f64::from(bf16::from_f64(x).to_f32()),
            Self::Eager(DType::F16) => f64::from(f16::from_f64(x).to_f32()),
            Self::Eager(_) => f64::from(x as f32),
        }
    }

    /// The sum of products, rounded once at the end.
    pub fn dot(self, pairs: impl Iterator<Item = (f64, f64)>) -> f64 {
        match self {
            Self::Exact => pairs.map(|(a, b)| a * b).sum(),
            Self::Eager(_) => {
                let sum: f32 = pairs.map(|(a, b)| a as f32 * b as f32).sum();
                self.round(f64::from(sum))
            }
        }
    }

    /// `sum + a b` inside of an operation.
    pub fn accumulate(self, sum: f64, a: f64, b: f64) -> f64 {
        match self {
            Self::Exact => sum + a * b,
            Self::Eager(_) => f64::from(sum as f32 + a as f32 * b as f32),
        }
    }

    /// The sum of values, not rounded: it is inside of an operation.
    pub fn sum(self, values: impl Iterator<Item = f64>) -> f64 {
        match self {
            Self::Exact => values.sum(),
            Self::Eager(_) => f64::from(values.map(|v| v as f32).sum::<f32>()),
        }
    }
}

/// A row rounded to e4m3 with the scale that maps its largest magnitude to 448; its values, scale included.
pub fn round_row_to_e4m3(row: &mut [f64]) {
    let largest = row.iter().fold(0f64, |m, v| m.max(v.abs()));
    let scale = if largest > 0.0 { largest / 448.0 } else { 1.0 };
    for value in row {
        *value = f64::from(F8E4M3::from_f32((*value / scale) as f32).to_f32()) * scale;
    }
}
