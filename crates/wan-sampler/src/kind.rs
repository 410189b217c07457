//! Names of the solvers.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::SamplerError;

/// The solvers a user can choose from.
///
/// Those that end in `/simple` are samplers of ComfyUI's own `KSampler` with its scheduler `simple`, each under ComfyUI's
/// name. The others have the names and the sigma grids of ComfyUI-WanVideoWrapper; those that end in `/beta` have the sigmas
/// of the same name without it, spaced anew by a beta distribution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SchedulerKind {
    /// `dpm++`: DPM-Solver++(2M), midpoint, data prediction.
    #[serde(rename = "dpm++")]
    DpmPp2M,
    /// `dpm++/beta`: the same on beta sigmas.
    #[serde(rename = "dpm++/beta")]
    DpmPp2MBeta,
    /// `dpm++_sde`: its stochastic variant; draws noise in every step.
    #[serde(rename = "dpm++_sde")]
    DpmPpSde,
    /// `dpm++_sde/beta`: the same on beta sigmas.
    #[serde(rename = "dpm++_sde/beta")]
    DpmPpSdeBeta,
    /// `unipc`: UniPC of order 2 with B(h) = e^h - 1, predictor and corrector.
    #[serde(rename = "unipc")]
    UniPc,
    /// `unipc/beta`: the same on beta sigmas.
    #[serde(rename = "unipc/beta")]
    UniPcBeta,
    /// `euler`: the explicit Euler method.
    #[serde(rename = "euler")]
    Euler,
    /// `euler/beta`: the same on beta sigmas.
    #[serde(rename = "euler/beta")]
    EulerBeta,
    /// `deis`: DEIS of order 2 in the logarithm of sigma / alpha.
    #[serde(rename = "deis")]
    Deis,
    /// `lcm`: the data prediction with fresh noise, in every step; on the sigmas of `euler`.
    #[serde(rename = "lcm")]
    Lcm,
    /// `lcm/beta`: the same on beta sigmas.
    #[serde(rename = "lcm/beta")]
    LcmBeta,
    /// `res_multistep`: the exponential Runge-Kutta method of order 2 with the step before for its other stage, in the
    /// logarithm of sigma.
    #[serde(rename = "res_multistep")]
    ResMultistep,
    /// `flowmatch_distill`: the explicit Euler method on four noise levels that distilled models know.
    #[serde(rename = "flowmatch_distill")]
    FlowMatchDistill,
    /// `euler/simple`: the explicit Euler method.
    #[serde(rename = "euler/simple")]
    EulerSimple,
    /// `dpmpp_2m/simple`: DPM-Solver++(2M) in the logarithm of sigma, as k-diffusion has it.
    #[serde(rename = "dpmpp_2m/simple")]
    DpmPp2MSimple,
    /// `dpmpp_2m_sde/simple`: its stochastic variant, with noise of this crate's own where ComfyUI has a Brownian tree.
    #[serde(rename = "dpmpp_2m_sde/simple")]
    DpmPpSdeSimple,
    /// `uni_pc/simple`: UniPC of order 3 with B(h) = h, in the logarithm of sigma.
    #[serde(rename = "uni_pc/simple")]
    UniPcSimple,
    /// `lcm/simple`: the data prediction with fresh noise, in every step but the last.
    #[serde(rename = "lcm/simple")]
    LcmSimple,
    /// `res_multistep/simple`: the method of `res_multistep`.
    #[serde(rename = "res_multistep/simple")]
    ResMultistepSimple,
}

impl SchedulerKind {
    /// All solvers, in the order in which help texts list them.
    pub const ALL: [Self; 19] = [
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
        Self::EulerSimple,
        Self::DpmPp2MSimple,
        Self::DpmPpSdeSimple,
        Self::UniPcSimple,
        Self::LcmSimple,
        Self::ResMultistepSimple,
    ];

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
            Self::EulerSimple => "euler/simple",
            Self::DpmPp2MSimple => "dpmpp_2m/simple",
            Self::DpmPpSdeSimple => "dpmpp_2m_sde/simple",
            Self::UniPcSimple => "uni_pc/simple",
            Self::LcmSimple => "lcm/simple",
            Self::ResMultistepSimple => "res_multistep/simple",
        }
    }

    /// Whether every step takes a tensor of standard normal noise.
    pub fn needs_noise(self) -> bool {
        matches!(
            self,
            Self::DpmPpSde
                | Self::DpmPpSdeBeta
                | Self::DpmPpSdeSimple
                | Self::Lcm
                | Self::LcmBeta
                | Self::LcmSimple
        )
    }

    /// Whether its grid and its share of steps are those of ComfyUI's own `KSampler`.
    pub(crate) fn is_simple(self) -> bool {
        matches!(
            self,
            Self::EulerSimple
                | Self::DpmPp2MSimple
                | Self::DpmPpSdeSimple
                | Self::UniPcSimple
                | Self::LcmSimple
                | Self::ResMultistepSimple
        )
    }

    /// Whether a step knows nothing of the steps before it.
    pub(crate) fn is_single_step(self) -> bool {
        matches!(
            self,
            Self::Euler
                | Self::EulerBeta
                | Self::EulerSimple
                | Self::Lcm
                | Self::LcmBeta
                | Self::LcmSimple
                | Self::FlowMatchDistill
        )
    }

    /// The names of all solvers, for messages.
    pub(crate) fn names() -> String {
        Self::ALL.map(Self::name).join(", ")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for kind in SchedulerKind::ALL {
            assert_eq!(kind.to_string().parse::<SchedulerKind>().unwrap(), kind);
            let json = serde_json::to_string(&kind).unwrap();
            assert_eq!(json, format!("\"{kind}\""));
            assert_eq!(serde_json::from_str::<SchedulerKind>(&json).unwrap(), kind);
        }
    }

    #[test]
    fn unknown_names_list_the_known_ones() {
        for name in ["dpm++/karras", "DPM++", "", "ddim"] {
            let message = name.parse::<SchedulerKind>().unwrap_err().to_string();
            assert!(message.contains(&format!("'{name}'")), "{message}");
            for kind in SchedulerKind::ALL {
                assert!(message.contains(kind.name()), "{message}");
            }
        }
    }
}
