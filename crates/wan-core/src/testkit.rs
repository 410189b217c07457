//! Helpers for the tests of every crate (feature `testkit`): golden files and comparisons.

mod peak_memory;

use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};

pub use peak_memory::PeakMemory;

use crate::{Result, WeightSet};

/// Path of a file under the repository's root.
pub fn repo_path(relative: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(relative)
}

/// Tensors of a golden file `tests/golden/{relative}`: inputs under their `wan-run probe` names, expected
/// outputs as `expected.{name}`.
pub struct Golden(pub WeightSet);

impl Golden {
    /// Opens a golden file. Panics if it is absent: fixtures are committed.
    pub fn open(relative: &str) -> Self {
        let path = repo_path("tests/golden").join(relative);
        Self(WeightSet::open(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())))
    }

    /// A float tensor as f32 on the CPU; panics if absent.
    pub fn f32(&self, name: &str) -> Tensor {
        self.try_f32(name).unwrap_or_else(|| panic!("{}: no tensor {name}", self.0.label()))
    }

    /// A float tensor as f32 on the CPU, if present.
    pub fn try_f32(&self, name: &str) -> Option<Tensor> {
        self.0.get(name).map(|t| t.to_f32_tensor(&Device::Cpu).expect("a float tensor"))
    }

    /// An i64 tensor's values; panics if absent.
    pub fn i64(&self, name: &str) -> Vec<i64> {
        let t = self.0.get(name).unwrap_or_else(|| panic!("{}: no tensor {name}", self.0.label()));
        assert_eq!(t.dtype(), DType::I64, "{name}");
        t.bytes().as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b)).collect()
    }

    /// A header metadata entry; panics if absent.
    pub fn metadata(&self, key: &str) -> &str {
        self.0.metadata().get(key).unwrap_or_else(|| panic!("{}: no metadata {key}", self.0.label()))
    }
}

/// How far `found` is from `expected`: relative L2, largest absolute difference, and cosine.
#[derive(Debug, Clone, Copy)]
pub struct Distance {
    /// `|found - expected|_2 / |expected|_2`.
    pub relative_l2: f64,
    /// Largest absolute difference.
    pub max_abs: f64,
    /// Cosine of the angle between the two.
    pub cosine: f64,
}

/// Measures in f64. Panics on different shapes.
pub fn distance(found: &Tensor, expected: &Tensor) -> Result<Distance> {
    assert_eq!(found.dims(), expected.dims(), "shapes differ");
    let values = |t: &Tensor| -> Result<Vec<f32>> {
        Ok(t.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?)
    };
    let (found, expected) = (values(found)?, values(expected)?);
    let (mut diff, mut ff, mut ee, mut fe, mut max) = (0f64, 0f64, 0f64, 0f64, 0f64);
    for (f, e) in found.iter().zip(&expected) {
        let (f, e) = (f64::from(*f), f64::from(*e));
        diff += (f - e) * (f - e);
        ff += f * f;
        ee += e * e;
        fe += f * e;
        // `max` ignores NaN: let it count as infinite instead.
        max = max.max(if (f - e).is_nan() { f64::INFINITY } else { (f - e).abs() });
    }
    let relative_l2 = if diff == 0.0 { 0.0 } else { (diff / ee).sqrt() };
    Ok(Distance { relative_l2, max_abs: max, cosine: fe / (ff * ee).sqrt() })
}

/// Asserts a relative L2 distance of at most `tolerance`; prints all three measures on failure.
pub fn assert_close(what: &str, found: &Tensor, expected: &Tensor, tolerance: f64) {
    let d = distance(found, expected).expect("tensors can be read");
    // Written so that NaN fails.
    assert!(
        d.relative_l2 <= tolerance && d.max_abs.is_finite(),
        "{what}: {d:?}, allowed relative L2 {tolerance:e}"
    );
}
