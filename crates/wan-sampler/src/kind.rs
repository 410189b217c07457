//! Names of the solvers.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{ComfySampler, ComfyScheduler, KSampler, SamplerError};

/// The solvers a user can choose from, in JSON by their names.
///
/// All but the last have the names and the sigma grids of ComfyUI-WanVideoWrapper; those of them that end in `/beta` have the
/// sigmas of the same name without it, spaced anew by a beta distribution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "&'static str")]
pub enum SchedulerKind {
    /// `dpm++`: DPM-Solver++(2M), midpoint, data prediction.
    DpmPp2M,
    /// `dpm++/beta`: the same on beta sigmas.
    DpmPp2MBeta,
    /// `dpm++_sde`: its stochastic variant; draws noise in every step.
    DpmPpSde,
    /// `dpm++_sde/beta`: the same on beta sigmas.
    DpmPpSdeBeta,
    /// `unipc`: UniPC of order 2 with B(h) = e^h - 1, predictor and corrector.
    UniPc,
    /// `unipc/beta`: the same on beta sigmas.
    UniPcBeta,
    /// `euler`: the explicit Euler method.
    Euler,
    /// `euler/beta`: the same on beta sigmas.
    EulerBeta,
    /// `deis`: DEIS of order 2 in the logarithm of sigma / alpha.
    Deis,
    /// `lcm`: the data prediction with fresh noise, in every step; on the sigmas of `euler`.
    Lcm,
    /// `lcm/beta`: the same on beta sigmas.
    LcmBeta,
    /// `res_multistep`: the exponential Runge-Kutta method of order 2 with the step before for its other stage, in the
    /// logarithm of sigma.
    ResMultistep,
    /// `flowmatch_distill`: the explicit Euler method on four noise levels that distilled models know.
    FlowMatchDistill,
    /// `SAMPLER/SCHEDULER`: ComfyUI's own `KSampler`.
    KSampler(KSampler),
}

impl SchedulerKind {
    /// The solvers of ComfyUI-WanVideoWrapper.
    pub const WRAPPER: [Self; 13] = [
        Self::DpmPp2M,
        Self::DpmPp2MBeta,
        Self::DpmPpSde,
        Self::DpmPpSdeBeta,
        Self::UniPc,
        Self::UniPcBeta,
        Self::Euler,
        Self::EulerBeta,
        Self::Deis,
        Self::Lcm,
        Self::LcmBeta,
        Self::ResMultistep,
        Self::FlowMatchDistill,
    ];

    /// All solvers: the wrapper's, then ComfyUI's own.
    pub const ALL: [Self; Self::WRAPPER.len() + KSampler::ALL.len()] = {
        let mut all = [Self::DpmPp2M; Self::WRAPPER.len() + KSampler::ALL.len()];
        let mut i = 0;
        while i < all.len() {
            all[i] = match i < Self::WRAPPER.len() {
                true => Self::WRAPPER[i],
                false => Self::KSampler(KSampler::ALL[i - Self::WRAPPER.len()]),
            };
            i += 1;
        }
        all
    };

    /// The solver's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::DpmPp2M => "dpm++",
            Self::DpmPp2MBeta => "dpm++/beta",
            Self::DpmPpSde => "dpm++_sde",
            Self::DpmPpSdeBeta => "dpm++_sde/beta",
            Self::UniPc => "unipc",
            Self::UniPcBeta => "unipc/beta",
            Self::Euler => "euler",
            Self::EulerBeta => "euler/beta",
            Self::Deis => "deis",
            Self::Lcm => "lcm",
            Self::LcmBeta => "lcm/beta",
            Self::ResMultistep => "res_multistep",
            Self::FlowMatchDistill => "flowmatch_distill",
            Self::KSampler(pair) => pair.name(),
        }
    }

    /// Whether every step takes a tensor of standard normal noise.
    pub fn needs_noise(self) -> bool {
        match self {
            Self::DpmPpSde | Self::DpmPpSdeBeta | Self::Lcm | Self::LcmBeta => true,
            Self::KSampler(pair) => matches!(pair.sampler, ComfySampler::DpmPpSde | ComfySampler::Lcm),
            _ => false,
        }
    }

    /// Whether a step knows nothing of the steps before it.
    pub(crate) fn is_single_step(self) -> bool {
        match self {
            Self::Euler | Self::EulerBeta | Self::Lcm | Self::LcmBeta | Self::FlowMatchDistill => true,
            Self::KSampler(pair) => matches!(pair.sampler, ComfySampler::Euler | ComfySampler::Lcm),
            _ => false,
        }
    }

    /// The names of all solvers, for messages and help texts: the wrapper's one by one, ComfyUI's by their two parts.
    pub fn names() -> String {
        let wrapper = Self::WRAPPER.map(Self::name).join(", ");
        let samplers = ComfySampler::ALL.map(ComfySampler::name).join(", ");
        let schedulers = ComfyScheduler::ALL.map(ComfyScheduler::name).join(", ");
        format!(
            "{wrapper}, or SAMPLER/SCHEDULER of ComfyUI's KSampler, with SAMPLER {samplers} and SCHEDULER {schedulers} \
             (there euler/beta is k_euler/beta and lcm/beta is k_lcm/beta)"
        )
    }
}

impl fmt::Display for SchedulerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for SchedulerKind {
    type Err = SamplerError;

    fn from_str(name: &str) -> Result<Self, SamplerError> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.name() == name)
            .ok_or_else(|| SamplerError::UnknownScheduler { found: name.to_owned() })
    }
}

impl TryFrom<String> for SchedulerKind {
    type Error = SamplerError;

    fn try_from(name: String) -> Result<Self, SamplerError> {
        name.parse()
    }
}

impl From<SchedulerKind> for &'static str {
    fn from(kind: SchedulerKind) -> Self {
        kind.name()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_round_trip() {
        let mut names = HashSet::new();
        for kind in SchedulerKind::ALL {
            assert!(names.insert(kind.name()), "two solvers are called {kind}");
            assert_eq!(kind.to_string().parse::<SchedulerKind>().unwrap(), kind);
            let json = serde_json::to_string(&kind).unwrap();
            assert_eq!(json, format!("\"{kind}\""));
            assert_eq!(serde_json::from_str::<SchedulerKind>(&json).unwrap(), kind);
        }
    }

    #[test]
    fn unknown_names_list_the_known_ones() {
        for name in ["dpm++/karras", "DPM++", "", "ddim", "euler/", "simple", "k_euler/simple"] {
            let message = name.parse::<SchedulerKind>().unwrap_err().to_string();
            assert!(message.contains(&format!("'{name}'")), "{message}");
            for part in SchedulerKind::ALL.iter().flat_map(|kind| kind.name().split('/')) {
                assert!(message.contains(part), "{part} in {message}");
            }
            let json = serde_json::to_string(name).unwrap();
            let error = serde_json::from_str::<SchedulerKind>(&json).unwrap_err().to_string();
            assert!(error.starts_with(&message), "{error}");
        }
    }
}
