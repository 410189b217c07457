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

/// What a solver takes sigma for. Both have the model's ODE, `dx / dsigma = (x - x0) / sigma`, but step in another variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoiseSchedule {
    /// `x = (1 - sigma) x0 + sigma noise`, what the model was trained on.
    Flow,
    /// `x = x0 + sigma noise`, what k-diffusion, and with it ComfyUI, is written for.
    Exploding,
}

impl NoiseSchedule {
    /// The factor of x0.
    pub(crate) fn alpha(self, sigma: f32) -> f32 {
        match self {
            Self::Flow => alpha(sigma),
            Self::Exploding => 1.0,
        }
    }

    /// `ln(alpha / sigma)`.
    pub(crate) fn log_snr(self, sigma: f32) -> f32 {
        match self {
            Self::Flow => log_snr(sigma),
            Self::Exploding => -ln(sigma),
        }
    }
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
