use wan_ops::Activation;

use super::{Format, Matrix};

/// An activation of every value, one operation.
pub fn activation(format: Format, x: &Matrix, activation: Activation) -> Matrix {
    let f = |x: f64| match activation {
        Activation::Identity => x,
        Activation::GeluTanh => {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
            0.5 * x * (1.0 + inner.tanh())
        }
        Activation::GeluErf => 0.5 * x * erfc(-x / std::f64::consts::SQRT_2),
        Activation::Silu => x / (1.0 + (-x).exp()),
    };
    Matrix { columns: x.columns, values: x.values.iter().map(|v| format.round(f(*v))).collect() }
}

/// `x + gate y`.
pub fn add_gated(format: Format, x: &Matrix, y: &Matrix, gate: Option<&[f64]>) -> Matrix {
    x.map_rows(|index, row| {
        let gated = y.row(index).iter().enumerate().map(|(i, v)| match gate {
            Some(gate) => format.round(v * gate[i]),
            None => *v,
        });
        row.iter().zip(gated).map(|(x, y)| format.round(x + y)).collect()
    })
}

/// `1 - erf(x)`: the series of erf near 0, the continued fraction of erfc far from it (Abramowitz and Stegun 7.1.6 and
/// 7.1.14), both to the precision of f64.
fn erfc(x: f64) -> f64 {
    if x < 0.0 {
        return 2.0 - erfc(-x);
    }
    let gauss = (-x * x).exp() / std::f64::consts::PI.sqrt();
    if x < 2.5 {
        let (mut term, mut sum, mut n) = (x, x, 0.0);
        while term > 1e-18 * sum.abs() {
            n += 1.0;
            term *= 2.0 * x * x / (2.0 * n + 1.0);
            sum += term;
        }
        return 1.0 - 2.0 * gauss * sum;
    }
    let fraction = (1..=80).rev().fold(0.0, |tail, n| f64::from(n) / 2.0 / (x + tail));
    gauss / (x + fraction)
}

#[cfg(test)]
mod tests {
    use super::erfc;

    #[test]
    fn erfc_is_that_of_the_tables() {
        // Abramowitz and Stegun, table 7.1 and 7.2.
        for (x, y) in [
            (0.0, 1.0),
            (0.5, 0.479_500_122_186_953_5),
            (1.0, 0.157_299_207_050_285_13),
            (2.0, 0.004_677_734_981_047_266),
            (3.0, 2.209_049_699_858_544e-5),
            (-1.0, 1.842_700_792_949_715),
        ] {
            assert!((erfc(x) - y).abs() < 1e-14 + 1e-12 * y, "{x}: {} for {y}", erfc(x));
        }
    }
}
