//! Scalars of a solver's step, in f32 as the references compute them.
//!
//! Transcendental functions go through f64 and are rounded once, so that they do not depend on the
//! platform's f32 math library. IEEE infinities are used as they come: the log-SNR of sigma 1 is -inf
//! and that of sigma 0 is +inf.

/// `alpha = 1 - sigma`.
pub(crate) fn alpha(sigma: f32) -> f32 {
    1.0 - sigma
}

/// Half the log signal-to-noise ratio, `ln(1 - sigma) - ln(sigma)`.
pub(crate) fn log_snr(sigma: f32) -> f32 {
    ln(alpha(sigma)) - ln(sigma)
}

/// `e^x`.
pub(crate) fn exp(x: f32) -> f32 {
    f64::from(x).exp() as f32
}

/// `e^x - 1`.
pub(crate) fn exp_m1(x: f32) -> f32 {
    f64::from(x).exp_m1() as f32
}

fn ln(x: f32) -> f32 {
    f64::from(x).ln() as f32
}
