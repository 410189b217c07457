//! ComfyUI's own `KSampler`: its samplers, its schedulers, and what a pair of them is called here.
//!
//! Source: ComfyUI `comfy/samplers.py` (KSAMPLER_NAMES, SCHEDULER_HANDLERS).

use std::sync::LazyLock;

/// The samplers that are known here, each under ComfyUI's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ComfySampler {
    /// `euler`: the explicit Euler method.
    Euler,
    /// `dpmpp_2m`: DPM-Solver++(2M) in the logarithm of sigma, as k-diffusion has it.
    DpmPp2M,
    /// `dpmpp_2m_sde`: its stochastic variant, with noise of this crate's own where ComfyUI has a Brownian tree.
    DpmPpSde,
    /// `uni_pc`: UniPC of order 3 with B(h) = h, in the logarithm of sigma.
    UniPc,
    /// `lcm`: the data prediction with fresh noise, in every step but the last.
    Lcm,
    /// `res_multistep`: the method of the wrapper's scheduler of this name.
    ResMultistep,
}

impl ComfySampler {
    /// All of them, in the order of help texts.
    pub const ALL: [Self; 6] =
        [Self::Euler, Self::DpmPp2M, Self::DpmPpSde, Self::UniPc, Self::Lcm, Self::ResMultistep];

    /// ComfyUI's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Euler => "euler",
            Self::DpmPp2M => "dpmpp_2m",
            Self::DpmPpSde => "dpmpp_2m_sde",
            Self::UniPc => "uni_pc",
            Self::Lcm => "lcm",
            Self::ResMultistep => "res_multistep",
        }
    }
}

/// ComfyUI's schedulers: how a `KSampler` spaces its sigmas. The formulas are in `ksampler_sigmas.rs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ComfyScheduler {
    /// `simple`: equal distances before the shift.
    Simple,
    /// `sgm_uniform`: equal distances between both ends of the model's sigmas, shifted once more.
    SgmUniform,
    /// `karras`: equal distances of sigma^(1/7).
    Karras,
    /// `exponential`: equal distances of the logarithm of sigma.
    Exponential,
    /// `ddim_uniform`: equal distances from the second smallest sigma up; as many steps as fit, from below sigma 1.
    DdimUniform,
    /// `beta`: quantiles of a beta distribution; equal ones are taken once.
    Beta,
    /// `normal`: as `sgm_uniform`, the smallest sigma included.
    Normal,
    /// `linear_quadratic`: half of the steps down to sigma 0.975, the others ever longer; the shift plays no part.
    LinearQuadratic,
    /// `kl_optimal`: equal distances of the arc tangent of sigma.
    KlOptimal,
}

impl ComfyScheduler {
    /// All of them, in ComfyUI's order.
    pub const ALL: [Self; 9] = [
        Self::Simple,
        Self::SgmUniform,
        Self::Karras,
        Self::Exponential,
        Self::DdimUniform,
        Self::Beta,
        Self::Normal,
        Self::LinearQuadratic,
        Self::KlOptimal,
    ];

    /// ComfyUI's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Simple => "simple",
            Self::SgmUniform => "sgm_uniform",
            Self::Karras => "karras",
            Self::Exponential => "exponential",
            Self::DdimUniform => "ddim_uniform",
            Self::Beta => "beta",
            Self::Normal => "normal",
            Self::LinearQuadratic => "linear_quadratic",
            Self::KlOptimal => "kl_optimal",
        }
    }
}

/// A sampler on the sigmas of a scheduler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KSampler {
    /// The solver.
    pub sampler: ComfySampler,
    /// Its sigmas.
    pub scheduler: ComfyScheduler,
}

const PAIRS: usize = ComfySampler::ALL.len() * ComfyScheduler::ALL.len();

/// In the order of [`KSampler::ALL`].
static NAMES: LazyLock<[String; PAIRS]> = LazyLock::new(|| KSampler::ALL.map(KSampler::spelled));

impl KSampler {
    /// All pairs, by scheduler.
    pub const ALL: [Self; PAIRS] = {
        let first = Self { sampler: ComfySampler::ALL[0], scheduler: ComfyScheduler::ALL[0] };
        let mut all = [first; PAIRS];
        let mut i = 0;
        while i < PAIRS {
            let (scheduler, sampler) = (i / ComfySampler::ALL.len(), i % ComfySampler::ALL.len());
            all[i] = Self { sampler: ComfySampler::ALL[sampler], scheduler: ComfyScheduler::ALL[scheduler] };
            i += 1;
        }
        all
    };

    /// `SAMPLER/SCHEDULER` in ComfyUI's names, but for `k_euler/beta` and `k_lcm/beta`: the wrapper has an `euler/beta` and
    /// an `lcm/beta` of its own.
    pub fn name(self) -> &'static str {
        &NAMES[self.scheduler as usize * ComfySampler::ALL.len() + self.sampler as usize]
    }

    fn spelled(self) -> String {
        let taken = self.scheduler == ComfyScheduler::Beta
            && matches!(self.sampler, ComfySampler::Euler | ComfySampler::Lcm);
        let prefix = if taken { "k_" } else { "" };
        format!("{prefix}{}/{}", self.sampler.name(), self.scheduler.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_have_their_names() {
        for pair in KSampler::ALL {
            assert_eq!(pair.name(), pair.spelled());
        }
        let name = |sampler, scheduler| KSampler { sampler, scheduler }.name();
        assert_eq!(name(ComfySampler::UniPc, ComfyScheduler::KlOptimal), "uni_pc/kl_optimal");
        assert_eq!(name(ComfySampler::Lcm, ComfyScheduler::Beta), "k_lcm/beta");
        assert_eq!(name(ComfySampler::DpmPpSde, ComfyScheduler::Beta), "dpmpp_2m_sde/beta");
    }
}
