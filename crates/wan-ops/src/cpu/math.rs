use pulp::Arch;

use crate::Activation;

/// Runs `body`, and what is inlined into it, compiled for the best instruction set of this machine.
///
/// Loops over slices inside become vector loops; helpers they call must be `#[inline(always)]`.
#[inline(always)]
pub(crate) fn vectorised<T>(body: impl FnOnce() -> T) -> T {
    Arch::new().dispatch(body)
}

/// 1.5 * 2^23: adding it to a small float rounds that to an integer, in the low bits of the sum.
const ROUNDER: f32 = 12_582_912.0;

/// `2^x`, relative error below 3e-7; 2^-126 below there, infinity from 127.5 on, NaN for NaN.
#[inline(always)]
pub(crate) fn exp2(x: f32) -> f32 {
    let x = clamp(x, -126.0, 128.0);
    let shifted = x + ROUNDER;
    let f = x - (shifted - ROUNDER); // -0.5..=0.5
    let mut p = 0.001_327_645_7_f32;
    p = p.mul_add(f, 0.009_675_541);
    p = p.mul_add(f, 0.055_507_135);
    p = p.mul_add(f, 0.240_221_2);
    p = p.mul_add(f, 0.693_146_94);
    p = p.mul_add(f, 1.000_000_1);
    p * power(shifted)
}

/// `e^x`, relative error below 2e-7 for -87 <= x <= 88; 2^-126 below, infinity above, NaN for NaN.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    let x = clamp(x, -87.3, 88.72);
    let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUNDER);
    let n = shifted - ROUNDER;
    // ln 2 in two parts (Cody and Waite): the first has few bits, so that its product with n is exact.
    let r = n.mul_add(-0.693_359_4, x);
    let r = n.mul_add(2.121_944_4e-4, r);
    let mut p = 0.001_383_682_7_f32;
    p = p.mul_add(r, 0.008_374_822);
    p = p.mul_add(r, 0.041_668_225);
    p = p.mul_add(r, 0.166_664_2);
    p = p.mul_add(r, 0.499_999_9);
    p = p.mul_add(r, 1.0);
    p = p.mul_add(r, 1.0);
    p * power(shifted)
}

/// Limits without swallowing NaN, as `f32::max` and `min` would.
#[inline(always)]
fn clamp(x: f32, low: f32, high: f32) -> f32 {
    let x = if x < low { low } else { x };
    if x > high { high } else { x }
}

/// 2^n for the integer n in the low bits of `shifted`.
#[inline(always)]
fn power(shifted: f32) -> f32 {
    f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23))
}

/// `x / (1 + exp(-x))`, relative error below 1e-6.
#[inline(always)]
pub(crate) fn silu(x: f32) -> f32 {
    x / (1.0 + exp(-x))
}

/// `0.5 x (1 + tanh(u))` with `u = sqrt(2/pi) (x + 0.044715 x³)`, as `x / (1 + exp(-2u))`, which loses nothing
/// where tanh nears -1. Relative error below 4e-6 for x > -5 (1e-6 for x > -2); tends to 0 beyond.
#[inline(always)]
pub(crate) fn gelu_tanh(x: f32) -> f32 {
    let twice = 1.595_769 * x * (x * x).mul_add(0.044_715, 1.0);
    x / (1.0 + exp(-twice))
}

/// `0.5 x erfc(-x / sqrt 2)`, with Chebyshev's fit of erfc (Press et al., Numerical Recipes, erfcc: relative error
/// 1.2e-7). Relative error below 2e-6 for x > -5; tends to 0 beyond.
#[inline(always)]
pub(crate) fn gelu_erf(x: f32) -> f32 {
    let z = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let t = 1.0 / z.mul_add(0.5, 1.0);
    let mut p = 0.170_872_77_f32;
    p = p.mul_add(t, -0.822_152_23);
    p = p.mul_add(t, 1.488_515_9);
    p = p.mul_add(t, -1.135_204);
    p = p.mul_add(t, 0.278_868_07);
    p = p.mul_add(t, -0.186_288_06);
    p = p.mul_add(t, 0.096_784_18);
    p = p.mul_add(t, 0.374_091_96);
    p = p.mul_add(t, 1.000_023_7);
    p = p.mul_add(t, -1.265_512_2);
    let tail = 0.5 * t * exp(z.mul_add(-z, p)); // 0.5 erfc(z)
    x * if x > 0.0 { 1.0 - tail } else { tail }
}

/// Applies `activation` to every value.
pub(crate) fn apply(activation: Activation, values: &mut [f32]) {
    vectorised(
        #[inline(always)]
        || apply_inline(activation, values),
    );
}

/// [`apply`], for use inside [`vectorised`].
#[inline(always)]
pub(crate) fn apply_inline(activation: Activation, values: &mut [f32]) {
    match activation {
        Activation::Identity => {}
        Activation::GeluTanh => values.iter_mut().for_each(|v| *v = gelu_tanh(*v)),
        Activation::GeluErf => values.iter_mut().for_each(|v| *v = gelu_erf(*v)),
        Activation::Silu => values.iter_mut().for_each(|v| *v = silu(*v)),
    }
}

/// Sum of `map` over pairs of values of two slices of one length, in a fixed order: 32 partial sums.
#[inline(always)]
pub(crate) fn sum2(a: &[f32], b: &[f32], map: impl Fn(f32, f32) -> f32) -> f32 {
    let mut sums = [0f32; 32];
    let (a, a_rest) = a.as_chunks::<32>();
    let (b, b_rest) = b.as_chunks::<32>();
    for (a, b) in a.iter().zip(b) {
        for i in 0..32 {
            sums[i] += map(a[i], b[i]);
        }
    }
    for (i, (a, b)) in a_rest.iter().zip(b_rest).enumerate() {
        sums[i] += map(*a, *b);
    }
    let mut n = 16;
    while n > 0 {
        for i in 0..n {
            sums[i] += sums[i + n];
        }
        n /= 2;
    }
    sums[0]
}

/// Sum of `map` over the values.
#[inline(always)]
pub(crate) fn sum(values: &[f32], map: impl Fn(f32) -> f32) -> f32 {
    sum2(values, values, |v, _| map(v))
}

/// Largest value; -infinity of none. NaN is passed over.
#[inline(always)]
pub(crate) fn max(values: &[f32]) -> f32 {
    let mut most = [f32::NEG_INFINITY; 32];
    let (chunks, rest) = values.as_chunks::<32>();
    for chunk in chunks {
        for i in 0..32 {
            most[i] = if chunk[i] > most[i] { chunk[i] } else { most[i] };
        }
    }
    // By halves, in registers: one after the other would take as long as all chunks of a row of scores.
    let mut n = 16;
    while n > 0 {
        for i in 0..n {
            most[i] = if most[i + n] > most[i] { most[i + n] } else { most[i] };
        }
        n /= 2;
    }
    rest.iter().fold(most[0], |m, v| if *v > m { *v } else { m })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worst(from: f32, to: f32, f: impl Fn(f32) -> f32, exact: impl Fn(f64) -> f64) -> f64 {
        (0..=200_000)
            .map(|i| from + (to - from) * i as f32 / 200_000.0)
            .map(|x| {
                let want = exact(f64::from(x));
                if want == 0.0 { f64::from(f(x)).abs() } else { (f64::from(f(x)) / want - 1.0).abs() }
            })
            .fold(0.0, f64::max)
    }

    #[test]
    fn exponentials_keep_their_stated_errors() {
        assert!(worst(-125.0, 127.0, exp2, f64::exp2) < 3e-7);
        assert!(worst(-87.0, 88.0, exp, f64::exp) < 2e-7);
        assert_eq!(exp(0.0), 1.0);
        assert!(exp2(f32::NEG_INFINITY) < 2e-38 && exp(f32::NEG_INFINITY) < 2e-38);
        assert!(exp(f32::INFINITY) > 3e38);
        assert!(exp2(f32::NAN).is_nan() && exp(f32::NAN).is_nan());
    }

    #[test]
    fn activations_keep_their_stated_errors() {
        let tanh_form = |x: f64| {
            let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
            x / (1.0 + (-2.0 * u).exp())
        };
        assert!(worst(-5.0, 20.0, gelu_tanh, tanh_form) < 4e-6);
        assert!(worst(-2.0, 20.0, gelu_tanh, tanh_form) < 1e-6);
        assert!(worst(-80.0, 80.0, silu, |x| x / (1.0 + (-x).exp())) < 1e-6);
        for f in [gelu_tanh, gelu_erf, silu] {
            assert!(f(-100.0).abs() < 1e-30 && f(f32::NAN).is_nan());
            assert_eq!((f(0.0), f(100.0)), (0.0, 100.0));
        }
    }

    /// 0.5 x erfc(-x / sqrt 2) at a few points, to 12 digits (from the defining integral).
    #[test]
    fn gelu_erf_meets_tabulated_values() {
        for (x, want) in [
            (-4.0, -1.266_849_673_44e-4),
            (-2.0, -4.550_026_389_64e-2),
            (-1.0, -0.158_655_253_931),
            (-0.25, -0.100_323_421_881),
            (0.5, 0.345_731_230_637),
            (1.0, 0.841_344_746_069),
            (3.0, 2.995_950_305_905),
        ] {
            let found = f64::from(gelu_erf(x));
            assert!((found / want - 1.0).abs() < 2e-6, "{x}: {found} for {want}");
        }
    }

    #[test]
    fn reductions_take_every_length() {
        for n in 0..100 {
            let values: Vec<f32> = (0..n).map(|i| (i * 7 % 13) as f32 - 6.0).collect();
            assert_eq!(sum(&values, |v| v * v), values.iter().map(|v| v * v).sum::<f32>());
            assert_eq!(max(&values), values.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        }
    }
}
