use crate::reference::Matrix;

/// How far values are from those expected.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Difference {
    /// `|found - expected|₂ / |expected|₂`; 0 where both are zero, NaN where a value is.
    pub relative_l2: f64,
    /// Cosine of the angle between the two.
    pub cosine: f64,
    /// Largest absolute difference.
    pub largest: f64,
}

/// The difference of two matrices of one size.
///
/// # Panics
/// If they differ in size.
pub fn difference(found: &Matrix, expected: &Matrix) -> Difference {
    assert_eq!(found.values.len(), expected.values.len(), "values to compare");
    let (mut error, mut product, mut f2, mut e2, mut largest) = (0f64, 0f64, 0f64, 0f64, 0f64);
    for (f, e) in found.values.iter().zip(&expected.values) {
        error += (f - e) * (f - e);
        product += f * e;
        f2 += f * f;
        e2 += e * e;
        // Not `max`, which would pass over NaN.
        let apart = (f - e).abs();
        if largest < apart || apart.is_nan() {
            largest = apart;
        }
    }
    let relative_l2 = if error == 0.0 { 0.0 } else { (error / e2).sqrt() };
    let cosine = if f2 == e2 && error == 0.0 { 1.0 } else { product / (f2 * e2).sqrt() };
    Difference { relative_l2, cosine, largest }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(values: &[f64]) -> Matrix {
        Matrix { columns: values.len(), values: values.to_vec() }
    }

    #[test]
    fn differences_are_measured_and_nan_never_passes() {
        let d = difference(&row(&[3.0, 4.0]), &row(&[3.0, 0.0]));
        assert_eq!((d.relative_l2, d.cosine, d.largest), (4.0 / 3.0, 0.6, 4.0));
        assert_eq!(difference(&row(&[0.0]), &row(&[0.0])).relative_l2, 0.0);
        let d = difference(&row(&[f64::NAN, 1.0]), &row(&[1.0, 1.0]));
        assert!(d.relative_l2.is_nan() && d.cosine.is_nan() && d.largest.is_nan());
    }
}
